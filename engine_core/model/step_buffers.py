"""What the layers of a model share when they are put into one sequence of kernels. Used by `compiled_decoder`."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...kernels.kernel_sequence import Buffer, KernelSequence


@dataclass(frozen=True)
class StepBuffers:
    """The sequence, what a step gives to all layers, and a buffer for each use that one layer after another has."""

    sequence: KernelSequence
    count: int
    """Which count of the sequence is the number of tokens."""
    cos: Buffer
    sin: Buffer
    batch: np.ndarray
    """int64 [BATCH_SIZE], see `AttentionBatch.values`."""
    _shared: dict[tuple[str, int], Buffer] = field(default_factory=dict)

    def get(self, use: str, row_bytes: int) -> Buffer:
        """The buffer for a use, of so many bytes a token."""
        key = use, row_bytes
        if key not in self._shared:
            self._shared[key] = self.sequence.buffer(row_bytes, self.count)
        return self._shared[key]
