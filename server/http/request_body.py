"""The body of a request: read within a limit, decoded straight into its Struct.

A body is JSON whatever its Content-Type says (`curl -d` sends a form type). What is wrong with it becomes an
`InvalidRequestError` whose `param` is the path of the field, such as `messages[0].role`.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec
from starlette.types import Receive, Scope

from ...engine_core.errors import InvalidRequestError
from .errors import ApiError

T = TypeVar("T")


MAX_PARTS = 2**19
"""Arrays, objects and keys of a body: the event loop stands still while they are read."""


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """The whole body.

    Raises `ApiError`: 413 as soon as the length that is announced or read passes `max_bytes`, 400 for one that breaks
    off (whether the client left or sent nonsense is not known here).
    """
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    if announced.isdigit() and int(announced) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    num_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(400, "The body broke off before its end.", headers={"connection": "close"})
        chunk = message.get("body", b"")
        num_bytes += len(chunk)
        if num_bytes > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The body as the decoder's Struct. Raises `InvalidRequestError`."""
    if len(body) > MAX_PARTS and body.count(b"[") + body.count(b"{") + body.count(b'":') > MAX_PARTS:
        raise InvalidRequestError(None, f"The body has more than {MAX_PARTS} arrays, objects and keys.")
    try:
        if not body.isascii():
            body.decode()  # msgspec skips over unknown fields without a look
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid_field(str(error)) from None
    except UnicodeDecodeError:
        raise InvalidRequestError(None, "The body is not UTF-8.") from None
    except RecursionError:
        raise InvalidRequestError(None, "The body is nested too deeply.") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidRequestError(None, f"The body is not JSON: {error}.") from None


def convert(value: object, type: type[T], where: str) -> T:
    """A decoded part of the body, whose place is `where`, as a Struct. Raises `InvalidRequestError`."""
    try:
        return msgspec.convert(value, type)
    except msgspec.ValidationError as error:
        raise _invalid_field(str(error), where) from None


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(413, f"The body is larger than {max_bytes} bytes.", headers={"connection": "close"})


_WITH_PATH = re.compile(r"(?P<what>.*?)(?: - at `(?P<key>key in )?\$\.?(?P<path>[^`]*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]+)`")
_OUT_OF_RANGE = re.compile(r"Expected `(?:int|float)` (?P<sign>[<>]=) (?P<limit>\S+)")


def _invalid_field(message: str, where: str = "") -> InvalidRequestError:
    """msgspec's message, with the path in it as `param`: "Expected `int`, got `str` - at `$.max_tokens`".

    The path goes on from `where`.
    """
    match = _WITH_PATH.fullmatch(message)
    if match is None or match["what"] is None:
        return InvalidRequestError(None, message)
    what, path = match["what"], match["path"] or ""
    if where:
        path = f"{where}.{path}" if path and path[0] != "[" else where + path
    missing = _MISSING.fullmatch(what)
    if missing:
        param = f"{path}.{missing['field']}" if path else missing["field"]
        return InvalidRequestError(param, f"{param} is required.")
    param = path.split("[...]")[0] or None  # below that are keys of the client's own
    out_of_range = _OUT_OF_RANGE.fullmatch(what)
    if out_of_range:
        side = "least" if out_of_range["sign"] == ">=" else "most"
        return InvalidRequestError(param, f"{param} must be at {side} {out_of_range['limit']}.")
    what = what[:1].lower() + what[1:]
    return InvalidRequestError(param, f"{param or 'The body'}: {what}.")
