"""What a key may ask for in a time, and at once: 429 with Retry-After beyond it.

The limits of a key are those of the server; each of several front-end workers grants its share, so that what a key gets
in all is right as long as its requests spread over the workers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..http.api_keys import ApiKey
from ..http.errors import ApiError

MAX_REMEMBERED = 1024
"""Keys whose use is known before those are looked for that it makes no difference to forget."""


@dataclass(slots=True)
class _Use:
    """What a key has used. The allowance is a bucket that fills steadily and holds a minute's worth."""

    allowance: float
    as_of: float
    full_at: float
    """When the bucket is full again: a key that was never seen would be treated alike then."""
    num_active: int = 0


class RateLimits:
    """The limits of all keys, as one worker applies them."""

    def __init__(self, *, num_workers: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._num_workers = num_workers
        self._clock = clock
        self._uses: dict[str, _Use] = {}
        """By the name of the key."""

    def __len__(self) -> int:
        """Keys whose use is known."""
        return len(self._uses)

    def enter(self, key: ApiKey) -> Callable[[], None]:
        """Let a request begin; what to call when it has ended. Raises `ApiError` 429."""
        if key.requests_per_minute is None and key.max_concurrent is None:
            return _nothing
        now = self._clock()
        per_minute = math.inf if key.requests_per_minute is None else key.requests_per_minute / self._num_workers
        capacity = max(1.0, per_minute)
        if len(self._uses) > MAX_REMEMBERED and key.name not in self._uses:
            self._uses = {name: use for name, use in self._uses.items() if use.num_active or use.full_at > now}
        use = self._uses.setdefault(key.name, _Use(capacity, now, now))
        use.allowance = min(capacity, use.allowance + (now - use.as_of) * per_minute / 60)
        use.as_of = now
        if key.max_concurrent is not None and use.num_active >= -(-key.max_concurrent // self._num_workers):
            raise _too_many(f"{key.max_concurrent} requests at once", 1.0)
        if use.allowance < 1.0:
            raise _too_many(f"{key.requests_per_minute:g} requests a minute", (1.0 - use.allowance) * 60 / per_minute)
        use.allowance -= 1.0
        if key.requests_per_minute is not None:
            use.full_at = now + (capacity - use.allowance) * 60 / per_minute
        use.num_active += 1

        def leave() -> None:
            use.num_active -= 1

        return leave


def _nothing() -> None:
    pass


def _too_many(limit: str, seconds: float) -> ApiError:
    headers = {"retry-after": str(math.ceil(seconds))}
    return ApiError(429, f"This key is allowed {limit}.", headers=headers)
