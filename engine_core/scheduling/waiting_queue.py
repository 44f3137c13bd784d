"""The requests that wait to run, in order. Thousands may wait: a step costs only what it admits."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from .request import Request, RequestStatus


class WaitingQueue:
    """A heap whose ended requests are passed over, and swept out once they are the majority.

    Invariant: `_num_ended` of the entries are of requests with the status FINISHED; the others wait.
    """

    def __init__(self, order: Callable[[Request], tuple[int, ...]]) -> None:
        self._order = order
        self._heap: list[tuple[tuple[int, ...], Request]] = []
        self._num_ended = 0

    def __len__(self) -> int:
        return len(self._heap) - self._num_ended

    @property
    def entries(self) -> list[Request]:
        """In no order, those that have ended and were not swept out too."""
        return [request for _, request in self._heap]

    @property
    def num_ended(self) -> int:
        return self._num_ended

    def push(self, request: Request) -> None:
        """Put a request in its place; no two have the same order."""
        heapq.heappush(self._heap, (self._order(request), request))

    def first(self) -> Request | None:
        """The request whose turn it is, still in the queue."""
        while self._heap:
            request = self._heap[0][1]
            if request.status is not RequestStatus.FINISHED:
                return request
            heapq.heappop(self._heap)
            self._num_ended -= 1
        return None

    def pop(self) -> None:
        """Take out the request that `first` has just returned."""
        heapq.heappop(self._heap)

    def count_ended(self) -> None:
        """Take note that a request in the queue has just become FINISHED."""
        self._num_ended += 1
        if self._num_ended * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[1].status is not RequestStatus.FINISHED]
            heapq.heapify(self._heap)
            self._num_ended = 0
