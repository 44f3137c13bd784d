"""Errors as the Anthropic API has them, for /v1/messages and what is below it."""

from __future__ import annotations

from ..protocol.messages import MessageError, MessageErrorInfo

PATH = "/v1/messages"

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def speaks_messages(path: str) -> bool:
    """Whether clients of a path expect this form."""
    return path == PATH or path.startswith(f"{PATH}/")


def message_error(status: int, message: str) -> MessageError:
    """The error object for an HTTP status."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return MessageError(MessageErrorInfo(kind, message))
