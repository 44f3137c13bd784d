"""/version, /load and /server_info: answers."""

from __future__ import annotations

from typing import Any

import msgspec


class ServerVersion(msgspec.Struct):
    """The answer of GET /version."""

    version: str


class ServerLoad(msgspec.Struct):
    """The answer of GET /load."""

    server_load: int
    """Requests that the engine has, running or waiting."""


class ServerInfo(msgspec.Struct):
    """The answer of GET /server_info."""

    config: dict[str, Any]
    """The flags; keys and tokens are left out."""
    architecture: str
    max_model_len: int
    engine: dict[str, Any] | None
    """Block size, number of blocks, type of the weights, …; null while the model loads."""
