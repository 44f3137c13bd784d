"""From an exception to the error object that the client sees, for every endpoint alike.

`ApiError` is what the HTTP layer raises itself; `to_api_error` gives the one face to all others. A message
never holds a path of this machine or the whole input.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from http import HTTPStatus

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...engine_core.errors import CALLERS_MISTAKES, EngineDeadError, InvalidRequestError, RequestFailedError
from ...engine_core.log import where
from ..protocol.error import ErrorInfo, ErrorResponse
from .messages_error import message_error, speaks_messages

logger = logging.getLogger(__name__)

MAX_MESSAGE_CHARS = 1000

_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    408: "RequestTimeoutError",
    413: "RequestEntityTooLargeError",
    429: "RateLimitError",
    500: "InternalServerError",
    501: "NotImplementedError",
    503: "ServiceUnavailableError",
    504: "RequestTimeoutError",
}


class ApiError(Exception):
    """A request that is answered with `status` and the error object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        type: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message if len(message) <= MAX_MESSAGE_CHARS else message[: MAX_MESSAGE_CHARS - 1] + "…"
        self.param = param
        self.type = type or _TYPES.get(status, "BadRequestError" if status < 500 else "InternalServerError")
        self.headers = headers or {}

    def body(self) -> bytes:
        """The error object as JSON."""
        return msgspec.json.encode(ErrorResponse(ErrorInfo(self.message, self.type, self.param, self.status)))

    def response(self, scope: Scope) -> Response:
        """The answer as a whole, in the form that clients of the path expect."""
        body = self.body()
        if speaks_messages(scope["path"].removeprefix(scope.get("root_path", ""))):
            body = msgspec.json.encode(message_error(self.status, self.message))
        return Response(body, self.status, self.headers, media_type="application/json")


def unsupported(param: str, what: str) -> ApiError:
    """The refusal of a field that we know, cannot honour yet and must not ignore."""
    return ApiError(400, f"{what} is not supported yet ({param}).", param=param, type="NotImplementedError")


def to_api_error(error: Exception) -> ApiError:
    """The face of any exception; one that nobody foresaw is logged and becomes a 500 that gives nothing away."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InvalidRequestError):
        return ApiError(400, error.message, param=error.param)
    if isinstance(error, RequestFailedError) and str(error).startswith(CALLERS_MISTAKES):
        return ApiError(400, str(error))
    if isinstance(error, EngineDeadError | RequestFailedError):
        return ApiError(500, str(error) or "The engine stopped; the request cannot be finished.")
    if isinstance(error, HTTPException):
        return ApiError(
            error.status_code,
            error.detail or HTTPStatus(error.status_code).phrase,
            headers=dict(error.headers or {}),
        )
    logger.error("A request failed unexpectedly: %s", where(error))
    return ApiError(500, "The server made a mistake; its log has the details.")


async def handle(request: Request, error: Exception) -> Response:
    """Starlette's exception handler for the errors above; unknown paths and methods get words of their own."""
    if isinstance(error, HTTPException) and error.status_code == 404:
        error = ApiError(404, f"There is no {request.url.path} here.")
    elif isinstance(error, HTTPException) and error.status_code == 405:
        error = ApiError(
            405, f"{request.url.path} does not take {request.method}.", headers={"allow": _allowed_methods(request)}
        )
    return to_api_error(error).response(request.scope)


def _allowed_methods(request: Request) -> str:
    """What the path takes, by whichever route; one that has its very name goes before one with a placeholder."""
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    named = [route for route in routes if not route.param_convertors]
    return ", ".join(sorted({method for route in named or routes for method in route.methods}))


class UnexpectedErrors:
    """Answers what no handler caught with a 500 and ends the exception there: the connection stays usable."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        def watched_send(message: Message) -> Awaitable[None]:
            nonlocal started
            started = True
            return send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            answer = to_api_error(error)
            if not started:
                await answer.response(scope)(scope, receive, send)
