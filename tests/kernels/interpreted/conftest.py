"""Tests of the GPU's kernels on CPU tensors, in Triton's interpreter.

Triton reads TRITON_INTERPRET when it is imported, so they run in a process of their own: `../test_triton.py` starts it,
or by hand `TRITON_INTERPRET=1 python -m pytest tests/kernels/interpreted`.
"""

from __future__ import annotations

import os

from hypothesis import Phase, settings

# The interpreter is slow: the same few examples each time, and no search for the smallest that fails.
settings.register_profile("interpreted", deadline=None, derandomize=True, phases=(Phase.explicit, Phase.generate))
if os.environ.get("TRITON_INTERPRET") == "1":
    settings.load_profile("interpreted")

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]
