"""The engine's state of one sequence, owned by the scheduler. No tensor, no socket.

The one number that drives everything is `num_computed_tokens`, which chases `num_tokens`: a prompt, a chunk
of it, one decode step and the recomputation after a preemption are all "compute the next tokens of the
sequence".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..messages import EngineRequest
from ..sampling_params import SamplingParams

if TYPE_CHECKING:
    from ..constraints.guided_decoding import Guide
    from .beam_group import BeamGroup
    from .prompt_lookup import PromptLookup


class RequestStatus(enum.Enum):
    """Where a request stands."""

    WAITING = enum.auto()
    RUNNING = enum.auto()
    PREEMPTED = enum.auto()
    FINISHED = enum.auto()


@dataclass(slots=True, eq=False)
class Request:
    """A sequence being generated.

    Invariants: `num_computed_tokens <= num_tokens`; while running, `len(block_ids) * block_size` covers the
    computed and the scheduled tokens.
    """

    message: EngineRequest
    client: bytes
    """The socket identity of the front-end that sent it; empty in process."""
    token_ids: list[int]
    """Prompt and output so far."""
    num_prompt_tokens: int
    status: RequestStatus = RequestStatus.WAITING
    num_computed_tokens: int = 0
    """Tokens whose keys and values are in the cache."""
    block_ids: list[int] = field(default_factory=list)
    block_hashes: list[bytes] = field(default_factory=list)
    """Hashes of the full blocks of `token_ids`, chained from the first."""
    num_cached_tokens: int = 0
    """Prompt tokens found in the prefix cache at the first admission."""
    num_preemptions: int = 0
    sequence_number: int = 0
    """Order of arrival in this engine."""
    turn: int = 0
    """Order between users, before that of arrival; see `fair_share`."""
    first_scheduled_time: float | None = None
    stop_token_ids: frozenset[int] = frozenset()
    """Tokens that end it: those asked for and, unless ignored, EOS."""
    num_prompt_logprobs: int = 0
    """Prompt logprobs already sent, those of positions 1, 2, …; they are not sent again after a preemption."""
    has_output: bool = False
    """Whether anything was sent of it."""
    guide: Guide | None = None
    """Follows the output through its grammar; it stays over a preemption."""
    beams: BeamGroup | None = None
    """The beam search that it is, or that it is a sequence of."""
    lookup: PromptLookup | None = None
    """Guesses its next tokens, if they may be guessed."""

    @classmethod
    def from_message(cls, message: EngineRequest, client: bytes = b"", sequence_number: int = 0) -> Request:
        """A waiting request; tokens that another engine generated before are taken over as output."""
        eos_token_ids = [] if message.params.ignore_eos else message.eos_token_ids
        return cls(
            message=message,
            client=client,
            token_ids=message.prompt_token_ids + message.output_token_ids,
            num_prompt_tokens=len(message.prompt_token_ids),
            sequence_number=sequence_number,
            stop_token_ids=frozenset((*eos_token_ids, *(message.params.stop_token_ids or ()))),
            num_prompt_logprobs=len(message.prompt_token_ids) - 1 if message.output_token_ids else 0,
        )

    @property
    def params(self) -> SamplingParams:
        return self.message.params

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens
