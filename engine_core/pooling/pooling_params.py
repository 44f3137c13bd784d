"""What a pooling request asks for: one vector of a text, its class probabilities, or the same for each of its tokens.

Public as `zqserve.PoolingParams`; travels to the engine inside of a `PoolingRequest`. Torch-free.
"""

from __future__ import annotations

from typing import Literal

import msgspec

PoolingTask = Literal["embed", "classify", "token_embed", "token_classify"]
"""A vector of the whole text, its class probabilities, a vector a token, class probabilities a token."""


class PoolingParams(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How the model's output becomes the answer."""

    task: PoolingTask | None = None
    """None: what the model is served for. Always set in a request to the engine."""
    dimensions: int | None = None
    """Keep the first values of a vector alone, for models that were trained for that (matryoshka)."""
    use_activation: bool | None = None
    """Whether vectors are normalised, or scores go through sigmoid or softmax; None: as the model's files say."""
