"""The messages of pooling (embeddings, scores, classes) between front-end and engine core; see `messages`.

Torch-free.
"""

from __future__ import annotations

import msgspec

from .pooling_params import PoolingParams


class PoolingRequest(msgspec.Struct, tag="pool", omit_defaults=True, kw_only=True):
    """One text to run through the model. The answer is one `EngineOutput` with its `pooled` set."""

    key: int
    """Unique among the live requests of one front-end, those that generate included."""
    prompt_token_ids: list[int]
    token_type_ids: list[int] | None = None
    """Which part of a pair each token belongs to, 0 or 1; None: all to one."""
    params: PoolingParams
    priority: int = 0
    """Lower runs first; used under the priority policy."""
    arrival_time: float = 0.0
    """Seconds of `time.time()`."""
    user: str = ""
    """Whose text it is: within a priority, users take turns."""


class Pooled(msgspec.Struct, array_like=True):
    """Numbers that a text was turned into."""

    data: bytes
    """float32, little-endian, row by row."""
    shape: list[int]
    """[size], or [num_tokens, size] for the tasks that answer for each token."""
