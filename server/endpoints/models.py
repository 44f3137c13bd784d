"""/v1/models: a card for each name of the one model."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ..protocol.models import ModelCard, ModelList, ModelPermission
from ..services import Services


class ModelEndpoints:
    """Methods are Starlette endpoints."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def list_models(self, request: Request) -> Response:
        """Every name that requests may use."""
        return _json(ModelList(data=[self._card(name) for name in self._services.config.model_names]))

    async def get_model(self, request: Request) -> Response:
        """The card of one name; names may hold slashes."""
        name = request.path_params["model"]
        first = self._services.check_model(name)
        return _json(self._card(name or first))

    def _card(self, name: str) -> ModelCard:
        services = self._services
        permission = ModelPermission(id=f"modelperm-{name}", created=services.created)
        return ModelCard(
            id=name,
            created=services.created,
            root=services.model_name,
            max_model_len=services.max_model_len,
            permission=[permission],
        )


def _json(value: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
