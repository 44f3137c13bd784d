"""Beam search by the plainest loop: every continuation of every beam, sorted. What the tests hold ours against."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from zqserve.engine_core.scheduling.beam_search import EarlyStopping


@dataclass(frozen=True)
class Found:
    """A sequence that ended."""

    token_ids: tuple[int, ...]
    score: float
    """Sum of the log-probabilities."""
    rank: float


def search(
    log_probabilities: Callable[[tuple[int, ...]], list[float]],
    *,
    width: int,
    max_tokens: int,
    end_ids: Collection[int] = (),
    min_tokens: int = 0,
    length_penalty: float = 1.0,
    early_stopping: EarlyStopping = False,
) -> list[Found]:
    """The sequences that transformers' rules find, the best first.

    log_probabilities: of each token of the vocabulary behind the output so far.
    """
    running: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    ended: list[Found] = []
    for length in range(1, max_tokens + 1):
        continuations = [
            (score + log_probability, (*tokens, token_id))
            for score, tokens in running
            for token_id, log_probability in enumerate(log_probabilities(tokens))
            if log_probability > float("-inf")
        ]
        continuations.sort(key=lambda item: -item[0])
        del continuations[max(2, 1 + len(end_ids)) * width :]

        def ends(tokens: tuple[int, ...]) -> bool:
            return len(tokens) == max_tokens or (tokens[-1] in end_ids and len(tokens) > min_tokens)

        for score, tokens in continuations[:width]:
            if ends(tokens):
                ended.append(Found(tokens, score, score / length**length_penalty))
        ended = sorted(ended, key=lambda found: -found.rank)[:width]
        running = [item for item in continuations if not ends(item[1])][:width]
        if not running:
            break
        if len(ended) == width:
            final_length = max_tokens if early_stopping == "never" and length_penalty > 0 else length
            hope = running[0][0] / final_length**length_penalty
            if early_stopping is True or hope <= ended[-1].rank:
                break
    return ended
