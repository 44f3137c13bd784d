"""Probes and figures: /health, /ping, /version, /load, /metrics."""

from __future__ import annotations

from importlib.metadata import version

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ..http import metrics
from ..http.errors import ApiError
from ..protocol.health import ServerLoad, ServerVersion
from ..services import Services


class HealthEndpoints:
    """Methods are Starlette endpoints."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def health(self, request: Request) -> Response:
        """200 while the engine's loop turns; 503 with the reason while it loads, restarts or the server ends."""
        reason = self._services.problem()
        if reason is None:
            return Response()
        return ApiError(503, reason, headers={"retry-after": "1"}).response(request.scope)

    async def version(self, request: Request) -> Response:
        """The version of this package."""
        return _json(ServerVersion(version("zqserve")))

    async def load(self, request: Request) -> Response:
        """The number of requests that the engine has, running or waiting."""
        stats = self._services.engine.stats
        return _json(ServerLoad(stats.num_running + stats.num_waiting))

    async def metrics(self, request: Request) -> Response:
        """Prometheus' text format."""
        return Response(self._services.metrics.render(), headers={"content-type": metrics.CONTENT_TYPE})


def _json(value: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
