"""What a decode step reads, kept on the device and moved on there: the next step needs nothing from the host.

All tensors keep their addresses, so a recorded graph of launches can be played again and again. A row beyond the batch
has no keys, and stays so: it writes nothing and its token is never read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from .launch import Launch, next_power_of_2


@dataclass(frozen=True)
class DecodeState:
    """The next step of up to `batch_size` sequences, a row each."""

    token_ids: torch.Tensor
    """int64 [batch_size]: each sequence's last token, which the step computes."""
    positions: torch.Tensor
    """int64 [batch_size]: where it stands."""
    num_keys: torch.Tensor
    """int32 [batch_size]: its position plus one; 0 for a row without a sequence."""
    slots: torch.Tensor
    """int64 [batch_size]: where its key and value go; -1 for a row without a sequence."""
    block_table: torch.Tensor
    """int32 [batch_size, max_blocks], with the blocks of the steps to come."""

    @staticmethod
    def empty(batch_size: int, max_blocks: int, device: torch.device) -> DecodeState:
        """No sequences."""
        longs = torch.zeros(2, batch_size, dtype=torch.int64, device=device)
        return DecodeState(
            token_ids=longs[0],
            positions=longs[1],
            num_keys=torch.zeros(batch_size, dtype=torch.int32, device=device),
            slots=torch.full((batch_size,), -1, dtype=torch.int64, device=device),
            block_table=torch.zeros(batch_size, max_blocks, dtype=torch.int32, device=device),
        )


def advance_launch(
    state: DecodeState, tokens: torch.Tensor, row_of: torch.Tensor, sample_position: torch.Tensor, block_size: int
) -> Launch:
    """Take `tokens` int64 [batch_size], what the step drew, as the next step's input; -1 (none) leaves a row as it is.

    `sample_position` int64 [max_num_seqs] counts each request's draws; `row_of` int32 [batch_size] says where it does.
    """
    batch_size, max_blocks = state.block_table.shape
    return Launch(
        advance_kernel,
        (1,),
        {
            "token_ids": state.token_ids,
            "positions": state.positions,
            "num_keys": state.num_keys,
            "slots": state.slots,
            "block_table": state.block_table,
            "tokens": tokens,
            "row_of": row_of,
            "sample_position": sample_position,
            "batch_size": batch_size,
            "max_blocks": max_blocks,
        },
        {"BLOCK_SIZE": block_size, "ROWS": next_power_of_2(batch_size)},
    )


@triton.jit
def advance_kernel(
    token_ids,
    positions,
    num_keys,
    slots,
    block_table,
    tokens,
    row_of,
    sample_position,
    batch_size,
    max_blocks,
    BLOCK_SIZE: tl.constexpr,
    ROWS: tl.constexpr,
):
    """One program."""
    row = tl.arange(0, ROWS)
    inside = row < batch_size
    keys = tl.load(num_keys + row, mask=inside, other=0)
    token = tl.load(tokens + row, mask=inside, other=-1)
    live = inside & (keys > 0) & (token >= 0)
    position = tl.load(positions + row, mask=live, other=0) + 1
    # Behind the last position that the table has room for nothing is written.
    has_room = position // BLOCK_SIZE < max_blocks
    block = tl.load(block_table + row * max_blocks + position // BLOCK_SIZE, mask=live & has_room, other=0)
    slot = tl.where(has_room, block.to(tl.int64) * BLOCK_SIZE + position % BLOCK_SIZE, -1)
    tl.store(token_ids + row, token, mask=live)
    tl.store(positions + row, position, mask=live)
    tl.store(num_keys + row, keys + 1, mask=live)
    tl.store(slots + row, slot, mask=live)
    request = tl.load(row_of + row, mask=live, other=0)
    drawn = tl.load(sample_position + request, mask=live, other=0)
    tl.store(sample_position + request, drawn + 1, mask=live)
