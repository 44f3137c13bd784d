"""Who may call: `Authorization: Bearer KEY`, for every path but the probes."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from .errors import ApiError


class AuthMiddleware:
    """Answers 401 to a request that shows none of the keys.

    `open_paths` need no key, nor does OPTIONS, which browsers send without one. The comparison takes the same
    time whatever is shown: digests of equal length, against every key.
    """

    def __init__(self, app: ASGIApp, *, keys: Sequence[str], open_paths: Collection[str], root_path: str) -> None:
        self._app = app
        self._digests = [_digest(key.encode()) for key in keys]
        self._open_paths = frozenset(open_paths)
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_open(scope) or self._shows_key(scope):
            await self._app(scope, receive, send)
            return
        refusal = ApiError(
            401,
            "A valid API key is needed: send it as 'Authorization: Bearer KEY'.",
            headers={"www-authenticate": "Bearer"},
        )
        await refusal.response()(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        return scope["method"] == "OPTIONS" or scope["path"].removeprefix(self._root_path) in self._open_paths

    def _shows_key(self, scope: Scope) -> bool:
        shown = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, token = shown.partition(b" ")
        digest = _digest(token.strip())
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return scheme.lower() == b"bearer" and any(matches)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
