"""A route together with what `/openapi.json` says about it: declared in one place, so that neither is forgotten.

`routes.py` lists the endpoints of the server; `openapi.py` makes the document of that list.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.routing import Route

from ..protocol.error import ErrorResponse

JSON = "application/json"

PROBES = "Server"
"""The tag of paths that tell of the server itself, and are answered to its end."""
NOT_SERVED = "Not served"
"""The tag of paths that are known and only refuse."""


Types = Any | Sequence[Any]
"""A type, or several of which one is meant."""


@dataclass(frozen=True)
class ServerSentEvents:
    """An answer as a stream of events, each with a JSON object."""

    objects: tuple[Any, ...]
    """Their types."""
    ends_with_done: bool
    """Whether `data: [DONE]` comes behind the last one."""


@dataclass(frozen=True)
class ObjectSequence:
    """An answer as JSON objects, each with a separator behind it that the request chooses."""

    objects: tuple[Any, ...]
    """Their types."""
    separators: Mapping[str, str]
    """The separators, and the content type that each brings."""


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
        stream: ServerSentEvents | ObjectSequence | None = None,
        errors: Collection[int] = (),
        error: Any = ErrorResponse,
        refuses: bool = False,
    ) -> None:
        """Serve `path` with `app`: raw ASGI, or a Starlette endpoint.

        `request` is the Struct that the body is decoded into, and `example` a body. `answer` is the type of the whole
        answer; without it the body is empty. `stream` says how it looks where a request may ask for it in pieces.
        `errors` are the statuses beside those that every path may have, or that the request and its model imply,
        `error` the type of what comes with them. An endpoint that only `refuses` gives nothing else.
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
        self.stream = stream
        self.errors = frozenset(errors)
        self.error = error
        self.refuses = refuses

    @property
    def types(self) -> tuple[Any, ...]:
        """Every type that the description refers to."""
        return (*self.requests, *self.answers, *(self.stream.objects if self.stream else ()), self.error)

    def refused_by(self, app: Callable[..., Any]) -> Endpoint:
        """The same path on a server whose model does not answer it: `app` says what to do."""
        return Endpoint(
            self.verbs,
            self.path,
            app,
            tag=NOT_SERVED,
            summary=f"{self.summary} The model of this server does not.",
            request=self.requests,
            errors=(400,),
            error=self.error,
            refuses=True,
        )


def _several(given: Any) -> tuple[Any, ...]:
    return tuple(given) if isinstance(given, list | tuple) else (given,)
