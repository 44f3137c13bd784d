"""What /v1/responses and /v1/messages answer, read strictly by the types of their APIs' own packages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import anthropic.types
import httpx
import openai.types.responses
from pydantic import BaseModel, TypeAdapter


@dataclass(frozen=True)
class Api:
    """An API, and what its package takes answers and events for."""

    path: str
    answer: type[BaseModel]
    event: TypeAdapter[Any]

    def post(self, http: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
        """The whole answer."""
        response = http.post(self.path, json=body)
        assert response.status_code == 200, response.text
        self.answer.model_validate_json(response.content, strict=True)
        return response.json()

    def events(self, http: httpx.Client, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The events of a stream, each with its type as its name."""
        response = http.post(self.path, json={**body, "stream": True})
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        *blocks, rest = response.text.split("\n\n")
        assert rest == ""
        found = []
        for block in blocks:
            name, line = block.split("\n")
            data = line.removeprefix("data: ")
            self.event.validate_json(data, strict=True)
            found.append(json.loads(data))
            assert name == f"event: {found[-1]['type']}"
        return found


RESPONSES = Api(
    "/v1/responses", openai.types.responses.Response, TypeAdapter(openai.types.responses.ResponseStreamEvent)
)
MESSAGES = Api("/v1/messages", anthropic.types.Message, TypeAdapter(anthropic.types.RawMessageStreamEvent))
