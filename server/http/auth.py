"""Who may call: `Authorization: Bearer KEY` or `x-api-key: KEY`, for every path but the probes."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from .api_keys import KeyRing
from .errors import ApiError


class AuthMiddleware:
    """Answers 401 to a request that shows none of the keys.

    `open_paths` need no key, nor does OPTIONS, which browsers send without one. The comparison takes the same
    time whatever is shown. The key is left in the request's state, for its limits.
    """

    def __init__(self, app: ASGIApp, *, keys: KeyRing, open_paths: Collection[str], root_path: str) -> None:
        self._app = app
        self._keys = keys
        self._open_paths = frozenset(open_paths)
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_open(scope) or self._shows_key(scope):
            await self._app(scope, receive, send)
            return
        refusal = ApiError(
            401,
            "A valid API key is needed: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'.",
            headers={"www-authenticate": "Bearer"},
        )
        await refusal.response(scope)(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        return scope["method"] == "OPTIONS" or scope["path"].removeprefix(self._root_path) in self._open_paths

    def _shows_key(self, scope: Scope) -> bool:
        key = self._keys.find(_shown_keys(scope["headers"]))
        if key is not None:
            scope["state"]["api_key"] = key
        return key is not None


def _shown_keys(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The first key of either header: Anthropic's clients have one of their own."""
    given = dict(reversed(list(headers)))
    scheme, _, token = given.get(b"authorization", b"").partition(b" ")
    keys = [token.strip()] if scheme.lower() == b"bearer" else []
    if b"x-api-key" in given:
        keys.append(given[b"x-api-key"].strip())
    return keys
