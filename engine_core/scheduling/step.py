"""What one step asks of the model runner and what comes back: the one contract between scheduler and runner.

The scheduler makes a list of `ScheduledRequest`, the runner answers with a list of `RequestResult` of the
same length and order. Torch-free, so that the scheduler and its tests need no model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from ..messages import TokenLogprobs
from .request import Request


@dataclass(slots=True)
class ScheduledRequest:
    """Compute tokens `[num_computed_tokens, num_computed_tokens + num_new_tokens)` of `request.token_ids`.

    `request.block_ids` already covers them. The order within a step matters: a request may read blocks that
    an earlier one of the same step fills, since each layer writes all its keys and values before attention
    reads any.
    """

    request: Request
    num_new_tokens: int
    copied_block: tuple[int, int] | None = None
    """A block whose content is copied into another one before the step writes anything: from, to. The other one is in
    `request.block_ids` by now.
    """
    drafts: list[int] = field(default_factory=list)
    """Guesses of the tokens behind the sequence, computed with it: see `prompt_lookup`. Only for a sequence that the
    step computes to its end.
    """

    @property
    def num_tokens(self) -> int:
        """How many the step computes, guesses included."""
        return self.num_new_tokens + len(self.drafts)


@dataclass(slots=True)
class Candidates:
    """The likeliest tokens that may follow one beam, best first; none that is forbidden."""

    token_ids: list[int]
    scores: list[float]
    """Log-probabilities as the search adds them up: after penalties and biases, not normalised again."""
    logprobs: list[float]
    """The ones to report."""
    ranks: list[int] | None = None
    top_token_ids: list[int] = field(default_factory=list)
    top_logprobs: list[float] = field(default_factory=list)
    """When logprobs are asked for: the rank of each candidate, and the likeliest tokens, whoever may follow."""

    def entry(self, number: int) -> TokenLogprobs | None:
        """The logprobs of a candidate as they are reported, if they are."""
        if self.ranks is None:
            return None
        return TokenLogprobs(
            [self.token_ids[number], *self.top_token_ids],
            [self.logprobs[number], *self.top_logprobs],
            self.ranks[number],
        )


@dataclass(slots=True)
class RequestResult:
    """What the step brought to one scheduled request."""

    token_ids: list[int]
    """The next tokens: the drafts that proved right, the sampled one, and those that a grammar forces. Empty while the
    sequence is not computed to its end, and when the mask of a guided request was not ready: then the last token is
    computed once more.
    """
    logprobs: list[TokenLogprobs] | None = None
    """One entry a token of `token_ids`, when the request asks for them."""
    prompt_logprobs: list[TokenLogprobs] | None = None
    """For each computed position p whose next token belongs to the prompt, the entry of position p + 1, in
    order.
    """
    error: str | None = None
    """Why this one request cannot go on; it is finished with the reason "error"."""
    is_complete: bool = False
    """Whether the grammar allows nothing behind `token_ids`, so that the request ends."""
    candidates: Candidates | None = None
    """In the place of `token_ids`, for a sequence of a beam search."""


def is_fed_one_by_one(num_left: int, num_running: int) -> bool:
    """Whether tokens that a decoding sequence has got all at once (text that its grammar forces) are computed one a
    step, in the steps in which the others decode, where the runner begins those early.

    That takes a step a token of this sequence; a chunk takes a forward more of everybody.
    """
    return num_left <= num_running


class Runner(Protocol):
    """What the engine core needs of a model runner: the `ModelRunner`, or a model of another kind in tests."""

    @property
    def num_blocks(self) -> int: ...
    @property
    def block_size(self) -> int: ...
    @property
    def max_model_len(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def default_batched_tokens(self) -> int:
        """Token budget of a step where the configuration has none."""
        ...

    @property
    def num_lookahead_tokens(self) -> int:
        """Tokens behind those that a step computes for which a decoding sequence shall have blocks, while there are
        enough: the runner may begin with them before it is asked to.
        """
        ...

    @property
    def live(self) -> Collection[Request]:
        """The sequences for which something is kept."""
        ...

    def execute(self, scheduled: list[ScheduledRequest]) -> list[RequestResult]:
        """Run one step: one result for each scheduled request, in the same order."""
        ...

    def forget(self, requests: Iterable[Request]) -> None:
        """Drop what is kept for requests that finished, were aborted or preempted; unknown ones are passed
        over.
        """
        ...
