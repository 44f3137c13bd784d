"""/v1/models: the names under which the one model is served."""

from __future__ import annotations

from typing import Literal

import msgspec


class ModelPermission(msgspec.Struct, kw_only=True):
    """Kept for clients that expect it; everything is allowed that the server can do."""

    id: str
    object: Literal["model_permission"] = "model_permission"
    created: int
    allow_create_engine: bool = False
    allow_sampling: bool = True
    allow_logprobs: bool = True
    allow_search_indices: bool = False
    allow_view: bool = True
    allow_fine_tuning: bool = False
    organization: str = "*"
    group: None = None
    is_blocking: bool = False


class ModelCard(msgspec.Struct, kw_only=True):
    """One name of the model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["zqserve"] = "zqserve"
    root: str
    """The name that stands first; the others are its aliases."""
    parent: None = None
    max_model_len: int
    permission: list[ModelPermission]


class ModelList(msgspec.Struct, kw_only=True):
    """The answer of GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
