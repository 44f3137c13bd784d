"""The requests of a front-end that have not ended: which of them a new engine gets after one that died, and when.

All are sent again with what has come of them so far, and none is lost: but for one that kills engines. Who that is
shows by what each of them got: where an engine died twice with a request in it that had got nothing more in between,
the request is a suspect. A lone suspect is guilty. Of several, one at a time is tried: it goes to the engine only when
the one before it has got something, which clears that one. An engine that dies meanwhile convicts the one on trial.

So a crash that has nothing to do with requests, however often it happens, convicts nobody as long as answers advance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from .quarantine import EngineMessage, Quarantine

STRIKES_OF_A_SUSPECT = 2


class LiveRequest(Protocol):
    """What waits for an engine: a `RequestStream` or a `PoolingBatch`."""

    @property
    def progress(self) -> int:
        """Grows with all that comes of it."""
        ...

    def messages(self) -> Sequence[EngineMessage]:
        """What makes an engine go on with it."""
        ...

    def fail(self, error: Exception) -> None:
        """Nothing more will come."""
        ...


@dataclass(slots=True)
class _Record:
    """What is known of a request beside its answers."""

    in_engine: bool = False
    was_in_engine: bool = False
    """In this one or in one that died."""
    num_strikes: int = 0
    progress_at_death: int = -1

    @property
    def is_suspect(self) -> bool:
        return self.num_strikes >= STRIKES_OF_A_SUSPECT


class LiveRequests:
    """In the order of their arrival."""

    def __init__(self, quarantine: Quarantine, *, is_only_front_end: bool = True) -> None:
        """is_only_front_end: whether all requests of the engine are here."""
        self._quarantine = quarantine
        self._is_only_front_end = is_only_front_end
        self._records: dict[LiveRequest, _Record] = {}
        self._num_suspects = 0
        self._on_trial: LiveRequest | None = None

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[LiveRequest]:
        return iter(list(self._records))

    def __contains__(self, request: LiveRequest) -> bool:
        return request in self._records

    @property
    def has_suspects(self) -> bool:
        return self._num_suspects > 0

    def add(self, request: LiveRequest, *, is_sent: bool) -> None:
        """A new request; `is_sent`: the engine has it."""
        self._records[request] = _Record(in_engine=is_sent, was_in_engine=is_sent)

    def remove(self, request: LiveRequest) -> bool:
        """It has ended, or nobody waits for it. False when it was not here."""
        record = self._records.pop(request, None)
        if record is None:
            return False
        self._num_suspects -= record.is_suspect
        if request is self._on_trial:
            self._end_trial()
        return True

    def engine_died(self) -> LiveRequest | None:
        """Nothing is in an engine any more; the one that is guilty of it, if that is clear."""
        guilty = self._on_trial
        if guilty is not None and self._has_advanced(guilty):
            guilty = None
        if guilty is None:
            suspects = self._strike_all()
            if len(suspects) == 1 and self._is_only_front_end:
                guilty = suspects[0]
        for record in self._records.values():
            record.in_engine = False
        self._end_trial()
        self._quarantine.refresh()
        if guilty is not None:
            for message in guilty.messages()[:1]:
                self._quarantine.add(message)
        return guilty

    def take_unsent(self) -> tuple[list[LiveRequest], int]:
        """What a new engine is to be sent at once, and how many of these an engine that died had."""
        unsent = [(r, record) for r, record in self._records.items() if not (record.in_engine or record.is_suspect)]
        num_resumed = sum(record.was_in_engine for _, record in unsent)
        for _, record in unsent:
            record.in_engine = record.was_in_engine = True
        return [request for request, _ in unsent], num_resumed

    def take_suspect(self) -> LiveRequest | None:
        """The next suspect to send, once the one before it is cleared and no other worker tries one."""
        if self._on_trial is not None:
            if not self._has_advanced(self._on_trial):
                return None
            record = self._records[self._on_trial]
            record.num_strikes = 0
            self._num_suspects -= 1
            self._end_trial()
        request = next((request for request, record in self._records.items() if record.is_suspect), None)
        if request is None or not self._quarantine.try_lock():
            return None
        self._on_trial = request
        self._records[request].in_engine = True
        return request

    def _strike_all(self) -> list[LiveRequest]:
        """Note a death against all that were there; those that are suspects by it."""
        suspects: list[LiveRequest] = []
        for request, record in self._records.items():
            if not record.in_engine:
                continue
            self._num_suspects -= record.is_suspect
            progress = request.progress
            record.num_strikes = record.num_strikes + 1 if progress == record.progress_at_death else 1
            record.progress_at_death = progress
            if record.is_suspect:
                self._num_suspects += 1
                suspects.append(request)
        return suspects

    def _has_advanced(self, request: LiveRequest) -> bool:
        return request.progress > self._records[request].progress_at_death

    def _end_trial(self) -> None:
        if self._on_trial is not None:
            self._on_trial = None
            self._quarantine.unlock()
