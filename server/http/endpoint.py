"""A route together with what `/openapi.json` says about it: declared in one place, so that neither is forgotten.

`routes.py` lists the endpoints of the server; `openapi.py` makes the document of that list.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from starlette.routing import Route

from ..protocol.error import ErrorResponse

ENGINE_ERRORS = (500, 503, 504)
"""What an endpoint answers when the engine fails under the request, takes none now, or needs too long."""

JSON = "application/json"

NOT_SERVED = "Not served"
"""The tag of paths that are known and only refuse."""


Types = Any | Sequence[Any]
"""A type, or several of which one is meant."""


class Endpoint(Route):
    """A path that the server answers, and its description."""

    def __init__(
        self,
        method: str | Sequence[str],
        path: str,
        app: Callable[..., Any],
        *,
        tag: str,
        summary: str,
        request: Types = (),
        example: Mapping[str, Any] | None = None,
        answer: Types = (),
        media_type: str = JSON,
        event: Types = (),
        ends_with_done: bool = True,
        errors: Collection[int] = (),
        error: Any = ErrorResponse,
        refuses: bool = False,
    ) -> None:
        """Serve `path` with `app`: raw ASGI, or a Starlette endpoint.

        `request` is the Struct that the body is decoded into, and `example` a body. `answer` is the type of the whole
        answer; without it the body is empty. `event` is the type of the JSON in an event, where the answer may be
        streamed; whether `data: [DONE]` comes behind the last one, `ends_with_done` says. `errors` are the statuses
        beside those that the request and its model imply, `error` the type of what comes with them. An endpoint that
        only `refuses` gives nothing else.
        """
        super().__init__(path, app, methods=list(_several(method)))
        self.verbs = _several(method)
        """The methods as declared; HEAD, which comes with GET, is not among them."""
        self.tag = tag
        self.summary = summary
        self.requests = _several(request)
        self.example = example
        self.answers = _several(answer)
        self.media_type = media_type
        self.events = _several(event)
        self.ends_with_done = ends_with_done
        self.errors = frozenset(errors)
        self.error = error
        self.refuses = refuses

    @property
    def types(self) -> tuple[Any, ...]:
        """Every type that the description refers to."""
        return (*self.requests, *self.answers, *self.events, self.error)


def _several(given: Any) -> tuple[Any, ...]:
    return tuple(given) if isinstance(given, list | tuple) else (given,)
