"""The blocks of the KV cache: which are free, which are held and by how many.

Bottom of the scheduler's side. A block is a number; the tensors behind the numbers belong to the model
runner. What a block contains is the prefix cache's business: the pool only hands out the block that has been
free for the longest, so that content worth keeping stays for as long as possible.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence

from ..errors import InvariantError


class BlockPool:
    """Reference counts and a free list in least-recently-used order; every verb is O(1) a block.

    Invariant: a block is in the free list exactly when its reference count is 0.
    """

    def __init__(self, num_blocks: int) -> None:
        if num_blocks < 1:
            raise ValueError(f"num_blocks must be at least 1, got {num_blocks}.")
        self.num_blocks = num_blocks
        self._ref_counts = [0] * num_blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def ref_counts(self) -> Sequence[int]:
        """By block, how many requests hold it."""
        return self._ref_counts

    @property
    def free_blocks(self) -> Collection[int]:
        """Those that nobody holds."""
        return self._free.keys()

    def ref_count(self, block_id: int) -> int:
        """Number of requests that hold the block."""
        return self._ref_counts[block_id]

    def count_free(self, block_ids: Iterable[int]) -> int:
        """How many of these blocks nobody holds."""
        ref_counts = self._ref_counts
        return sum(1 for block_id in block_ids if ref_counts[block_id] == 0)

    def allocate(self, num_blocks: int) -> list[int]:
        """The blocks that were free for the longest, held once from now on. Their content is lost to others.

        The caller has checked `num_free`; a KeyError here is a bug. Raises `InvariantError` rather than let two
        requests write into one block.
        """
        block_ids = [self._free.popitem(last=False)[0] for _ in range(num_blocks)]
        for block_id in block_ids:
            if self._ref_counts[block_id]:
                raise InvariantError(f"block {block_id} is free and held")
            self._ref_counts[block_id] = 1
        return block_ids

    def share(self, block_ids: Iterable[int]) -> None:
        """Hold these blocks, free or not, once more for the sake of their content."""
        for block_id in block_ids:
            if self._ref_counts[block_id] == 0:
                del self._free[block_id]
            self._ref_counts[block_id] += 1

    def release(self, block_id: int, *, keep: bool) -> None:
        """Hold the block once less. The last holder gone, it is free: content to `keep` goes to the end of
        the line, and a block without such content is the next to be handed out. Raises `InvariantError`.
        """
        self._ref_counts[block_id] -= 1
        if self._ref_counts[block_id] < 0:
            raise InvariantError(f"block {block_id} is given back, and nobody holds it")
        if self._ref_counts[block_id] == 0:
            self._free[block_id] = None
            if not keep:
                self._free.move_to_end(block_id, last=False)
