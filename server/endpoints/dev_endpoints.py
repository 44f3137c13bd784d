"""POST /reset_prefix_cache and GET /server_info, for whoever develops or measures: only with `--dev-endpoints`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ..protocol.health import ServerInfo
from ..services import Services

_SECRETS = ("api_key", "hf_token")


class DevEndpoints:
    """Methods are Starlette endpoints."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def reset_prefix_cache(self, request: Request) -> Response:
        """Have the engine forget every cached prefix that no running request uses."""
        await self._services.check_engine()
        self._services.engine.reset_prefix_cache()
        return Response()

    async def server_info(self, request: Request) -> Response:
        """What the server was told at its start, without secrets, and what the engine says of itself."""
        services = self._services
        config = {
            field.name: _plain(getattr(services.config, field.name))
            for field in dataclasses.fields(services.config)
            if field.name not in _SECRETS
        }
        ready = services.engine.ready
        engine = None if ready is None else msgspec.to_builtins(ready)
        answer = ServerInfo(config, services.model.architecture, services.max_model_len, engine)
        return Response(msgspec.json.encode(answer), media_type="application/json")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
