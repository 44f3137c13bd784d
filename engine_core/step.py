"""What one step asks of the model runner and what comes back: the one contract between scheduler and runner.

The scheduler makes a list of `ScheduledRequest`, the runner answers with a list of `RequestResult` of the
same length and order. Torch-free, so that the scheduler and its tests need no model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from .messages import TokenLogprobs
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


@dataclass(slots=True)
class RequestResult:
    """What the step brought to one scheduled request."""

    token_ids: list[int]
    """The next tokens: the sampled one, and those that a grammar forces. Empty while the sequence is not computed to
    its end, and when the mask of a guided request was not ready: then the last token is computed once more.
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

    def execute(self, scheduled: list[ScheduledRequest]) -> list[RequestResult]:
        """Run one step: one result for each scheduled request, in the same order."""
        ...

    def forget(self, requests: Iterable[Request]) -> None:
        """Drop what is kept for requests that finished, were aborted or preempted; unknown ones are passed
        over.
        """
        ...
