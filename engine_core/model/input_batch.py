"""What a step computes, as arrays that live from step to step: the input batch of continuous batching.

A decode step differs little from the one before: each sequence is one token further, and now and then one has got a
block. So `advance` writes only that into the arrays; it is for the same sequences in the same order, one token each.
Any other step (a sequence has come or gone, prompt chunks, guesses, copied blocks) is laid out anew by `build`. What
either leaves behind is the same, and is read off the requests: nothing is added up from step to step.

    if not batch.advance(scheduled):
        batch.build(scheduled)
    logits = forward(batch.token_ids, batch.positions, batch.attention, batch.wanted)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ...kernels.attention_batch import make_batch
from ..scheduling.request import Request
from ..scheduling.step import ScheduledRequest

SPARE_BLOCKS = 16
"""Entries of a step's block table beyond those in use, so that sequences may grow for a while."""


class InputBatch:
    """The sequences that a model runner knows, a row each, and the batch of the present step.

    Of a step: `token_ids` and `positions`, int64, of its flat tokens; `attention`, the same for the attention kernels;
    `wanted`, int64, the flat numbers of the tokens whose logits are needed: first, request by request, the `num_scored`
    ones of prompt logprobs (`prompt_targets`: the number of the scheduled request, and the tokens to score), then those
    that sample. The latter belong to `requests`, which have `rows` and the numbers `sampling` among the scheduled ones,
    each once more for each of its guesses; `ahead` says how many guesses stand before each place, None where nothing is
    guessed; `sampled_positions`, int64, are those of their wanted tokens; `has_beams` and `has_guides` say whether any
    of them is of a beam search, or has a grammar.
    """

    def __init__(self, *, max_num_seqs: int, max_blocks: int, block_size: int, group_size: int) -> None:
        """max_blocks: of a sequence; group_size: query heads a key/value head."""
        self._block_size = block_size
        self._group_size = group_size
        self._row_of: dict[Request, int] = {}
        self._free_rows = list(range(max_num_seqs - 1, -1, -1))
        self._block_tables = np.zeros((max_num_seqs, max_blocks), np.int32)
        self._num_table_blocks = [0] * max_num_seqs
        self._decoding: list[Request] = []
        """The requests of a step that `advance` may follow, in order; empty when it may not."""

    @property
    def live(self) -> Collection[Request]:
        """The sequences that have a row."""
        return self._row_of.keys()

    @property
    def next_row(self) -> int:
        """The row of the sequence that is added next."""
        return self._free_rows[-1]

    def row_of(self, request: Request) -> int:
        """The row of a known sequence."""
        return self._row_of[request]

    def add(self, request: Request) -> None:
        self._row_of[request] = self._free_rows.pop()

    def remove(self, request: Request) -> int | None:
        """Forget a sequence: the row that it had, if it was known."""
        row = self._row_of.pop(request, None)
        if row is not None:
            self._num_table_blocks[row] = 0
            self._free_rows.append(row)
            self._decoding = []
        return row

    def advance(self, scheduled: Sequence[ScheduledRequest]) -> bool:
        """Bring the last step's arrays up to date; False where that does not do, and `build` must follow."""
        if len(scheduled) != len(self._decoding):
            return False
        block_size = self._block_size
        token_ids: list[int] = []
        positions: list[int] = []
        filling: list[int] = []
        for number, (item, request) in enumerate(zip(scheduled, self._decoding, strict=True)):
            position = request.num_computed_tokens
            is_same = item.request is request and position + 1 == len(request.token_ids)
            if not is_same or item.drafts or item.copied_block is not None:
                return False
            if len(request.block_ids) != self._num_table_blocks[self.rows[number]] and not self._grow(number):
                return False
            if (position + 1) % block_size == 0:
                filling.append(number)
            token_ids.append(request.token_ids[-1])
            positions.append(position)
        self.token_ids[:] = token_ids
        self.positions[:] = positions
        self.attention = self.attention.moved(positions, filling)
        return True

    def build(self, scheduled: Sequence[ScheduledRequest]) -> None:
        """Lay a step of known sequences out."""
        rows = [self._update_row(item) for item in scheduled]
        query_lens = np.array([item.num_tokens for item in scheduled], np.int32)
        context_lens = np.array([item.request.num_computed_tokens for item in scheduled], np.int32)
        token_ids: list[int] = []
        for item in scheduled:
            start = item.request.num_computed_tokens
            token_ids += item.request.token_ids[start : start + item.num_new_tokens]
            token_ids += item.drafts
        width = -(-int((query_lens + context_lens).max()) // self._block_size) + SPARE_BLOCKS
        tables = np.ascontiguousarray(self._block_tables[rows, :width])
        self.attention = make_batch(query_lens, context_lens, tables, self._block_size, self._group_size)
        self.token_ids = np.array(token_ids, np.int64)
        first_positions = (context_lens - self.attention.query_start[:-1]).astype(np.int64)
        self.positions = first_positions.repeat(query_lens) + np.arange(len(token_ids))
        self._choose_wanted(scheduled, rows)
        is_decode = len(self.sampling) == len(scheduled) == len(token_ids)
        self._decoding = [item.request for item in scheduled] if is_decode else []
        self.sampled_positions = self.positions if is_decode else self.positions[self.wanted[self.num_scored :]]

    def _choose_wanted(self, scheduled: Sequence[ScheduledRequest], rows: list[int]) -> None:
        """What of a step is asked for; its tokens and positions are there."""
        self.prompt_targets: list[tuple[int, list[int]]] = []
        self.sampling: list[int] = []
        self.ahead: list[int] | None = [] if any(item.drafts for item in scheduled) else None
        scored: list[int] = []
        sampled: list[int] = []
        end = 0
        for number, item in enumerate(scheduled):
            start, end = end, end + item.num_tokens
            targets = _prompt_targets(item)
            if targets:
                self.prompt_targets.append((number, targets))
                scored += range(start, start + len(targets))
            if item.request.num_computed_tokens + item.num_new_tokens == item.request.num_tokens:
                num_places = 1 + len(item.drafts)
                sampled += range(end - num_places, end)
                self.sampling += [number] * num_places
                if self.ahead is not None:
                    self.ahead += range(num_places)
        self.num_scored = len(scored)
        self.wanted = np.array(scored + sampled, np.int64)
        self.requests = [scheduled[number].request for number in self.sampling]
        self.rows = [rows[number] for number in self.sampling]
        self.has_beams = any(request.beams is not None for request in self.requests)
        self.has_guides = any(request.guide is not None for request in self.requests)

    def _update_row(self, item: ScheduledRequest) -> int:
        """The request's row, with its block table brought up to date."""
        blocks, row = item.request.block_ids, self._row_of[item.request]
        # A block that was copied took the place of one that the table has.
        known = self._num_table_blocks[row] if item.copied_block is None else 0
        if known != len(blocks):
            self._block_tables[row, known : len(blocks)] = blocks[known:]
            self._num_table_blocks[row] = len(blocks)
        return row

    def _grow(self, number: int) -> bool:
        """Note the new blocks of a sequence of the step; False where its table has no room for them."""
        row, blocks, table = self.rows[number], self._decoding[number].block_ids, self.attention.block_table
        if len(blocks) > table.shape[1]:
            return False
        known = self._num_table_blocks[row]
        self._block_tables[row, known : len(blocks)] = table[number, known : len(blocks)] = blocks[known:]
        self._num_table_blocks[row] = len(blocks)
        return True


def _prompt_targets(item: ScheduledRequest) -> list[int]:
    """The prompt tokens that follow the step's tokens, when their logprobs are asked for."""
    request = item.request
    if request.params.prompt_logprobs is None:
        return []
    first = request.num_computed_tokens + 1
    return request.token_ids[first : min(first + item.num_new_tokens, request.num_prompt_tokens)]
