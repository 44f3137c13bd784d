"""The error object of every endpoint: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import msgspec


class ErrorInfo(msgspec.Struct):
    """What went wrong; `code` is the HTTP status, `param` the plain name of the field that caused it."""

    message: str
    type: str
    param: str | None
    code: int


class ErrorResponse(msgspec.Struct):
    """The body of a failed request, and the event of a stream that fails."""

    error: ErrorInfo
