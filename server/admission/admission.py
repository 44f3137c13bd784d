"""The bounded queue: how many requests may wait for the engine, and how much prompt they may hold.

A request waits from the moment when its headers are here until the engine gives its first output. One too many is
refused at once with 503, before its body is read, so that a crowd costs little. The limits are those of the server;
each of several front-end workers has its share.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

from ..http.api_keys import ANYONE, ApiKey
from ..http.errors import ApiError
from .rate_limits import RateLimits
from .turnstile import Turnstile

RETRY_AFTER_SECONDS = "1"

_ticket: ContextVar[Ticket] = ContextVar("ticket")


class Admission:
    """The queue of one worker, as far as it counts."""

    def __init__(
        self,
        *,
        max_requests: int,
        max_tokens: int,
        num_workers: int = 1,
        count_refused: Callable[[], object] = lambda: None,
    ) -> None:
        """max_tokens: of prompts, once for each answer to be generated."""
        self._count_refused = count_refused
        self.num_requests = 0
        self.num_tokens = 0
        """Of those that wait."""
        self._max_requests = -(-max_requests // num_workers)
        self._max_tokens = -(-max_tokens // num_workers)

    def open(self, user: str) -> Ticket:
        """Let a request wait. Raises `ApiError` 503 when too many do."""
        if self.num_requests >= self._max_requests:
            self._count_refused()
            raise _full(f"{self._max_requests} requests wait already")
        self.num_requests += 1
        return Ticket(self, user)

    def check_tokens(self, num_tokens: int) -> None:
        """Raise `ApiError` 503 when so many more do not fit. What waits for nobody fits always."""
        if self.num_tokens and self.num_tokens + num_tokens > self._max_tokens:
            self._count_refused()
            raise _full(f"prompts of {self.num_tokens} tokens wait already, and {self._max_tokens} may")


class Ticket:
    """The place of one HTTP request in the queue."""

    def __init__(self, admission: Admission, user: str) -> None:
        self.user = user
        """Whose request it is: users take turns."""
        self._admission = admission
        self._num_tokens = 0
        self._waits = True

    @property
    def waits(self) -> bool:
        """Whether the engine has given nothing yet."""
        return self._waits

    def add_tokens(self, num_tokens: int) -> None:
        """It brings that much prompt. Raises `ApiError` 503."""
        self._admission.check_tokens(num_tokens)
        if self._waits:
            self._num_tokens += num_tokens
            self._admission.num_tokens += num_tokens

    def leave(self) -> None:
        """The engine has begun with it, or nobody waits for it any more."""
        if self._waits:
            self._waits = False
            self._admission.num_requests -= 1
            self._admission.num_tokens -= self._num_tokens


def current_ticket() -> Ticket:
    """That of the HTTP request which the running task answers."""
    return _ticket.get()


class AdmissionMiddleware:
    """Lets requests in, or answers 503 (the queue is full) or 429 (the key has used up what it may).

    It concerns POST alone: whoever only looks is never in the queue.
    """

    def __init__(self, app: ASGIApp, *, admission: Admission, rate_limits: RateLimits) -> None:
        self._app = app
        self._admission = admission
        self._rate_limits = rate_limits
        self._turnstile = Turnstile()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        key: ApiKey = scope["state"].get("api_key", ANYONE)
        try:
            release = self._rate_limits.enter(key)
        except ApiError as error:
            await error.response(scope)(scope, receive, send)
            return
        try:
            ticket = self._admission.open(key.name)
        except ApiError as error:
            release()
            await error.response(scope)(scope, receive, send)
            return
        _ticket.set(ticket)
        try:
            await self._turnstile.wait()
            await self._app(scope, receive, send)
        finally:
            ticket.leave()
            release()


def _full(why: str) -> ApiError:
    return ApiError(503, f"The queue is full: {why}.", headers={"retry-after": RETRY_AFTER_SECONDS})
