"""Beam search over scored continuations: which beams go on, which have ended, when the search is over.

Pure: no model, no tensor, no request. `BeamGroup` gives it the likeliest continuations of the running beams, step by
step. The rules are those of transformers' `generate(num_beams=...)`, so that the same answers are found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..messages import BeamOutput, FinishReason, TokenLogprobs

EarlyStopping = bool | Literal["never"]


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a beam has ended."""

    finish_reason: FinishReason
    stop_reason: int | None = None
    is_complete: bool = False
    """Whether the last token is text, and not what ended it."""


@dataclass(frozen=True, slots=True, eq=False)
class Beam:
    """A sequence of output tokens: an earlier beam and one more token. Beams share their beginnings."""

    before: Beam | None
    """None for the empty beam that a search begins with."""
    parent: int
    """Which of the running beams `before` was."""
    token_id: int
    num_tokens: int
    score: float
    """Sum of what its tokens were scored with."""
    logprob: float
    """Sum of its tokens' reported logprobs."""
    entry: TokenLogprobs | None = None
    """What is reported of the last token, when logprobs are asked for."""
    ending: Ending | None = None
    tail: bytes = b""
    """The end of its text, as much as a stop string may begin with."""

    def ended(self, parent: int, ending: Ending) -> Beam:
        """This beam, which is number `parent` of those that run, ended without another token."""
        return replace(self, parent=parent, ending=ending)

    def output(self) -> BeamOutput:
        """What is told of an ended beam."""
        assert self.ending is not None
        beams = list(self._from_the_last())
        beams.reverse()
        return BeamOutput(
            token_ids=[beam.token_id for beam in beams],
            finish_reason=self.ending.finish_reason,
            cumulative_logprob=self.logprob,
            stop_reason=self.ending.stop_reason,
            logprobs=None if self.entry is None else [beam.entry for beam in beams if beam.entry is not None],
            is_complete=self.ending.is_complete,
        )

    def _from_the_last(self) -> Iterator[Beam]:
        beam = self
        while beam.before is not None:
            yield beam
            beam = beam.before


EMPTY = Beam(None, 0, -1, 0, 0.0, 0.0)


class BeamSearch:
    """One search.

    Invariant: at most `width` beams run and at most `width` ended ones are kept, both the best first.
    """

    def __init__(self, *, width: int, max_tokens: int, length_penalty: float, early_stopping: EarlyStopping) -> None:
        """max_tokens: length at which every beam ends; the caller ends them then."""
        self.width = width
        self.running: list[Beam] = [EMPTY]
        self.ended: list[Beam] = []
        self.is_over = False
        self._max_tokens = max_tokens
        self._length_penalty = length_penalty
        self._early_stopping: EarlyStopping = early_stopping
        self._num_tokens = 0

    def num_candidates(self, num_endings: int) -> int:
        """How many continuations a step looks at, so that enough go on when the best ones end.

        num_endings: number of tokens that end a beam.
        """
        return max(2, 1 + num_endings) * self.width

    def advance(self, continuations: Sequence[Beam]) -> None:
        """Take the likeliest continuations of all running beams, the best first and `num_candidates` at most.

        An ended one counts only where it is among the `width` best of them.
        """
        for beam in continuations[: self.width]:
            if beam.ending is not None:
                self.ended.append(beam)
        # Stable: of equally good ones the earlier stays.
        self.ended.sort(key=self._rank, reverse=True)
        del self.ended[self.width :]
        self.running = [beam for beam in continuations if beam.ending is None][: self.width]
        self._num_tokens += 1
        self.is_over = not self.running or (
            len(self.ended) == self.width and (self._early_stopping is True or not self._may_improve())
        )

    def _may_improve(self) -> bool:
        """Whether the best running beam may still come before the last of those that have ended.

        It is taken to get no worse score; and to end now, or at the full length where that is better.
        """
        at_length = self._num_tokens
        if self._early_stopping == "never" and self._length_penalty > 0:
            at_length = self._max_tokens
        return self.running[0].score / at_length**self._length_penalty > self._rank(self.ended[-1])

    def _rank(self, beam: Beam) -> float:
        return beam.score / max(beam.num_tokens, 1) ** self._length_penalty
