"""What requests ask for of their tokens, kept on the device, a row a request, and the launches that choose by it.

All tensors keep their addresses, so a recorded graph of launches can be played again and again. The last row belongs to
no request: it asks for nothing, and is for the rows of a step whose draws nobody reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..token_mask import MAX_ENDINGS, AutomatonTable, TokenBytes
from .launch import Launch, next_power_of_2
from .logits import LogitEdits, adjust_launch, edit_launch
from .sampling import SamplingState, sample_launch
from .token_mask import follow_launch, mask_launch

MAX_BYTES_A_TOKEN = 16
"""Room for the text of the vocabulary, on average; those that people use have six to nine."""


@dataclass(frozen=True)
class RequestState:
    """The rows of up to `max_num_seqs` requests, and one more.

    Attributes:
        sampling: the parameters of the draw; its `position` counts the output tokens.
        seen: int32 [rows, vocab_size], as `logits` describes it: four bytes a token of the vocabulary.
        penalties: float32 [rows, 3]: repetition, frequency, presence.
        edits: changes of single logits.
        mask_of, mask_words: int32 [rows] and [rows, words]: the fixed set of tokens of a row, -1 for none.
        states: int32 [rows]: where each output is in its automaton, -1 without one.
        endings: int32 [rows, MAX_ENDINGS]: of the rows with an automaton, as `token_mask` describes them.
        automata: room for the tables of the running requests' grammars, their states numbered through.
        tokens: room for what the automata read.
        logits: float32 [batch_size, vocab_size]: of a step of any rows.
    """

    sampling: SamplingState
    seen: torch.Tensor
    penalties: torch.Tensor
    edits: LogitEdits
    mask_of: torch.Tensor
    mask_words: torch.Tensor
    states: torch.Tensor
    endings: torch.Tensor
    automata: AutomatonTable
    tokens: TokenBytes
    logits: torch.Tensor

    @staticmethod
    def empty(max_num_seqs: int, vocab_size: int, num_automaton_states: int, device: torch.device) -> RequestState:
        """Rows that ask for the likeliest token."""
        num_rows = max_num_seqs + 1
        ints = {"dtype": torch.int32, "device": device}
        num_bytes = MAX_BYTES_A_TOKEN * vocab_size if num_automaton_states else 1
        return RequestState(
            sampling=SamplingState.greedy(num_rows, device),
            seen=torch.zeros(num_rows, vocab_size, **ints),
            penalties=torch.tensor([1.0, 0.0, 0.0], device=device).repeat(num_rows, 1),
            edits=LogitEdits.empty(num_rows, device),
            mask_of=torch.full((num_rows,), -1, **ints),
            mask_words=torch.empty(num_rows, -(-vocab_size // 32), **ints),
            states=torch.full((num_rows,), -1, **ints),
            endings=torch.full((num_rows, MAX_ENDINGS), -1, **ints),
            automata=AutomatonTable(
                torch.empty(max(1, num_automaton_states), 256, **ints),
                torch.empty(max(1, num_automaton_states), dtype=torch.uint8, device=device),
            ),
            tokens=TokenBytes(
                torch.empty(num_bytes, dtype=torch.uint8, device=device),
                torch.zeros(vocab_size + 1, **ints),
            ),
            logits=torch.empty(next_power_of_2(max_num_seqs), vocab_size, device=device),
        )

    @property
    def nobody(self) -> int:
        """The row that belongs to no request."""
        return len(self.states) - 1


def choose_launches(
    drawn: torch.Tensor, logits: torch.Tensor, row_of: torch.Tensor, state: RequestState
) -> Iterator[Launch]:
    """Draw `drawn` int64 [num_rows] from logits float32 [num_rows, vocab_size], which are changed in place.

    `row_of` int32 [num_rows] says where a row's request stands in `state`. The order is that of the processors and
    masks on the host. What is drawn is counted; `position` is left to `advance_launch`.
    """
    yield adjust_launch(logits, row_of, state.seen, state.penalties, state.mask_of, state.mask_words)
    yield edit_launch(logits, row_of, state.edits, state.sampling.position)
    yield mask_launch(logits, row_of, state.states, state.automata, state.tokens, state.endings)
    yield sample_launch(drawn, logits, row_of, state.sampling, state.seen)
    yield follow_launch(drawn, row_of, state.states, state.automata, state.tokens)
