"""Memory in which masks are made: one for each vocabulary, as masks are made one at a time."""

from __future__ import annotations

import numpy as np

from ..automata.column import address_of
from . import mask_walk as mw
from .trie_nodes import MAX_TOKEN_BYTES


class WalkMemory:
    """What a walk works on; see `mask_walk`.

    Attributes:
        control: int64[CONTROL_SIZE].
        levels: int32[bytes of a token + 2, LEVEL_SIZE].
        base: int32[levels of the matcher's stack].
        cells: int32[n, 2].
        fresh: uint8[256].
        waiting: int64[2 * MAX_SEGMENTS].
        loops: uint8[128], for `find_loop`.
        user: the number of the one whose addresses are in `control`.
    """

    def __init__(self) -> None:
        self.control = np.zeros(mw.CONTROL_SIZE, np.int64)
        self.levels = np.empty((MAX_TOKEN_BYTES + 2, mw.LEVEL_SIZE), np.int32)
        self.base = np.empty(64, np.int32)
        self.cells = np.empty((1024, 2), np.int32)
        self.fresh = np.zeros(256, np.uint8)
        self.waiting = np.empty(2 * mw.MAX_SEGMENTS, np.int64)
        self.loops = np.zeros(128, np.uint8)
        self.user = self._num_users = 0
        self._publish()

    def new_user(self) -> int:
        """A number for whoever makes masks here; none is 0."""
        self._num_users += 1
        return self._num_users

    def grow_base(self, size: int) -> None:
        """Makes room for `size` levels of the matcher's stack at least."""
        if size > len(self.base):
            self.base = np.concatenate((self.base, np.zeros(size, np.int32)))
            self._publish()

    def grow_cells(self) -> None:
        """Doubles the cells."""
        self.cells = np.concatenate((self.cells, np.zeros_like(self.cells)))
        self._publish()

    def _publish(self) -> None:
        for place, array in (
            *((mw.LEVELS, self.levels), (mw.BASE, self.base), (mw.CELLS, self.cells)),
            *((mw.FRESH, self.fresh), (mw.WAITING, self.waiting)),
        ):
            self.control[place] = address_of(array)
        self.control[mw.CELLS_SIZE] = len(self.cells)
