"""A step as paged attention sees it: which query tokens each sequence has, and how they are cut into work items.

The same for all layers of a model, so it is made once a step. The kernels read it by the address of its `values`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numba import njit

from .simd import load_i64

TILE_ROWS = 32
"""Query rows (tokens times query heads of a group) that share one pass over the keys."""

WRITE_TOKENS = 16
"""Tokens whose keys one thread writes together: neighbours share cache lines."""

# Places in `AttentionBatch.values`.
NUM_ITEMS, NUM_WRITES, TABLE_WIDTH, TOKENS_PER_ITEM, BLOCK_TABLE = range(5)
FIRST_LIST = 5
QUERY_START, CONTEXT_LEN, ITEM_SEQ, ITEM_START, WRITTEN_EARLY, WRITE_SEQ, WRITE_START = range(5, 12)
BATCH_SIZE = 12


@dataclass(frozen=True)
class AttentionBatch:
    """What one step's attention needs, the same for every layer. All int32 numpy arrays.

    query_start[s] .. query_start[s + 1] are the flat token numbers of sequence s, whose first has position
    `context_len[s]`; `block_table` is [num_seqs, max_blocks].
    """

    query_start: np.ndarray
    context_len: np.ndarray
    block_table: np.ndarray
    written_early: np.ndarray
    write_seq: np.ndarray
    num_writes: int
    """Groups of tokens whose keys and values are written before any attention begins."""
    last_position: int
    """The highest of all tokens."""
    values: np.ndarray
    """int64 [BATCH_SIZE]: numbers, and addresses of parts of `lists` and of the block table, as the kernels read them.
    """
    lists: np.ndarray
    """int32, one after another:
    query_start; context_len;
    item_seq, item_start: the work items, as a sequence and the first of its query tokens, the costly ones first;
    written_early: of each sequence, whether its keys and values are written before any attention begins: where it is
    several items, and where it fills a block, since another sequence of the step may share that. Else the item does it;
    write_seq, write_start: like the items, in steps of `WRITE_TOKENS`, what is written early. There is room for a group
    of each sequence.
    """

    def moved(self, positions: list[int], filling: list[int]) -> AttentionBatch:
        """The batch of the next step, if in both each sequence computes one token; this one's arrays become its own.

        positions: of the tokens; filling: the sequences whose block they fill. The order of the items stays: where the
        sequences move on together, so does which of them are the longest.
        """
        self.context_len[:] = positions
        if filling or self.num_writes:
            self.written_early[:] = 0
            self.written_early[filling] = 1
            self.write_seq[: len(filling)] = filling
            self.values[NUM_WRITES] = len(filling)
        return AttentionBatch(
            self.query_start,
            self.context_len,
            self.block_table,
            self.written_early,
            self.write_seq,
            len(filling),
            max(positions),
            self.values,
            self.lists,
        )


def make_batch(
    query_lens: np.ndarray,
    context_lens: np.ndarray,
    block_table: np.ndarray,
    block_size: int,
    group_size: int,
) -> AttentionBatch:
    """Cut a step into work items.

    query_lens, context_lens: int32 [num_seqs], tokens to compute and tokens already in the cache;
    block_table: int32 [num_seqs, max_blocks], C-contiguous; group_size: query heads a key/value head.
    """
    num_seqs = len(query_lens)
    query_start = np.zeros(num_seqs + 1, np.int32)
    query_lens.cumsum(out=query_start[1:])
    tokens_per_item = max(1, TILE_ROWS // group_size)
    seqs, starts = _cut(query_lens, tokens_per_item)
    if len(seqs) > 1:
        # The longest items first, so that no thread is left with a long one at the end.
        order = (context_lens[seqs] + starts).argsort(kind="stable")[::-1]
        seqs, starts = seqs[order], starts[order]
    early = (context_lens % block_size + query_lens >= block_size) | (query_lens > tokens_per_item)
    write_seqs, write_starts = _cut(np.where(early, query_lens, 0), WRITE_TOKENS) if early.any() else (_NOTHING,) * 2
    num_writes, room = len(write_seqs), max(len(write_seqs), num_seqs)
    writes = _filled_up(write_seqs, room), _filled_up(write_starts, room)
    parts = (query_start, context_lens, seqs, starts, early, *writes)
    lists = np.concatenate(parts, dtype=np.int32, casting="unsafe")
    begins = list(accumulate(map(len, parts), initial=0))
    values = np.empty(BATCH_SIZE, np.int64)
    values[:FIRST_LIST] = len(seqs), num_writes, block_table.shape[1], tokens_per_item, block_table.ctypes.data
    values[FIRST_LIST:] = begins[:-1]
    values[FIRST_LIST:] *= lists.itemsize
    values[FIRST_LIST:] += lists.ctypes.data
    query_start, context_len, _, _, written_early, write_seq, _ = (lists[a:b] for a, b in pairwise(begins))
    last_position = int((context_lens + query_lens).max()) - 1
    tables = (query_start, context_len, block_table, written_early, write_seq)
    return AttentionBatch(*tables, num_writes, last_position, values, lists)


def _filled_up(numbers: np.ndarray, size: int) -> np.ndarray:
    """With zeros behind them."""
    filled = np.zeros(size, np.int32)
    filled[: len(numbers)] = numbers
    return filled


_NOTHING = np.zeros(0, np.int32)


def _cut(lens: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Each sequence in pieces of `step` tokens: sequence numbers and first tokens."""
    seqs = np.arange(len(lens), dtype=np.int32)
    if lens.max() <= step and lens.min() > 0:
        return seqs, np.zeros_like(seqs)
    pieces = -(-lens // step)
    seqs = seqs.repeat(pieces)
    first_piece = pieces.cumsum() - pieces
    return seqs, (np.arange(len(seqs)) - first_piece[seqs]) * step


@njit(error_model="numpy")
def of_batch(args, place):
    """What stands at a place of the batch whose address is a kernel's argument 2."""
    return load_i64(args[2] + 8 * place)
