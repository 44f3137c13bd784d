"""Tokens and the times between them, counted for the metrics: told to them some hundred at a time, since every single
one of a stream passes here.

    times.add(seconds, 1)    # a token of an answer, so long after the one before it
    times.add_first(1)       # the first one, which follows none
    times.tell()             # before the metrics are read, and when a request ends
"""

from __future__ import annotations

from bisect import bisect_left

from prometheus_client import Counter, Histogram

MOST_UNTOLD = 256
"""Tokens that the metrics may lag behind, where another worker answers the scrape."""


class TokenTimes:
    """Of one worker."""

    def __init__(self, tokens: Counter, intervals: Histogram, bounds: tuple[float, ...]) -> None:
        """bounds: upper ones of the buckets of `intervals`, in seconds, without infinity."""
        self._tokens = tokens
        self._intervals = intervals
        self._bounds = bounds
        self._num_tokens = 0
        self._counts = [0] * (len(bounds) + 1)
        self._seconds = 0.0

    def add(self, seconds: float, num_tokens: int) -> None:
        """So many tokens, each `seconds` after the one before it."""
        self._counts[bisect_left(self._bounds, seconds)] += num_tokens
        self._seconds += seconds * num_tokens
        self._num_tokens += num_tokens
        if self._num_tokens >= MOST_UNTOLD:
            self.tell()

    def add_first(self, num_tokens: int) -> None:
        """The tokens that begin an answer together: between them passed no time, before them nothing is counted."""
        self._num_tokens += 1
        if num_tokens > 1:
            self.add(0.0, num_tokens - 1)

    def tell(self) -> None:
        """Bring the metrics up to date."""
        if not self._num_tokens:
            return
        self._tokens.inc(self._num_tokens)
        # The library observes one value at a time; its parts take many.
        self._intervals._sum.inc(self._seconds)
        for bucket, count in zip(self._intervals._buckets, self._counts, strict=True):
            if count:
                bucket.inc(count)
        self._num_tokens, self._seconds = 0, 0.0
        self._counts = [0] * len(self._counts)
