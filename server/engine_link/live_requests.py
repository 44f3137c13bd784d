"""The requests of a front-end that have not ended: which of them a new engine gets after one that died, and when.

All are sent again with what has come of them so far, and none is lost: but for one that kills engines. Who that is
shows by where engines died:

- A request in which nothing moved between two deaths of engines that had it is a suspect. If it was all that the last
  engine had, it is guilty.
- Who was there at four deaths is a suspect too, however far it came between them: a request may kill each engine only
  after some tokens.
- Suspects are tried in groups, a quarter of them at a time, beside whoever is no suspect. Who gets further than it came
  before the last death, by as much again, is cleared; when all of a group are, the next one follows. When the engine
  dies meanwhile, a quarter of those who were not cleared come first. If that is only one, and the engine's death the
  fourth with it, it is guilty.

So three crashes from outside end nothing that was not alone, and more of them cost others time: they would have to come
at just the wrong moments, again and again, to convict somebody. One of n suspects that is guilty is found after log4(n)
deaths more, but for a fraction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from .quarantine import EngineMessage, Quarantine

DEATHS_OF_A_SUSPECT = 2
"""Of engines that had a request, the last two without progress between them."""
DEATHS_OF_THE_GUILTY = 4
"""Without which nobody is guilty who was not alone; and with which everybody is a suspect."""
NUM_GROUPS = 4
"""Of suspects. More would find a guilty one after fewer deaths, and have the innocent wait longer."""


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
    is_suspect: bool = False
    num_deaths: int = 0
    """Of engines that had it, since it was cleared."""
    progress_at_death: int = 0
    last_gain: int = 0
    """How far it came in the engine that died last."""


class LiveRequests:
    """In the order of their arrival."""

    def __init__(self, quarantine: Quarantine, *, is_only_front_end: bool = True) -> None:
        """is_only_front_end: whether all requests of the engine are here."""
        self._quarantine = quarantine
        self._is_only_front_end = is_only_front_end
        self._records: dict[LiveRequest, _Record] = {}
        self._groups: list[list[LiveRequest]] = []
        """Suspects that wait for their trial, the next group last. Some of them may have ended."""
        self._on_trial: list[LiveRequest] = []
        """Those whom the engine has and who are not cleared yet."""

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[LiveRequest]:
        return iter(list(self._records))

    def __contains__(self, request: LiveRequest) -> bool:
        return request in self._records

    @property
    def has_suspects(self) -> bool:
        return bool(self._groups or self._on_trial)

    def add(self, request: LiveRequest, *, is_sent: bool) -> None:
        """A new request; `is_sent`: the engine has it."""
        self._records[request] = _Record(in_engine=is_sent, was_in_engine=is_sent)

    def remove(self, request: LiveRequest) -> bool:
        """It has ended, or nobody waits for it; whether the engine has it."""
        record = self._records.pop(request, None)
        if record is None:
            return False
        if request in self._on_trial:
            self._on_trial.remove(request)
            self._unlock_when_over()
        return record.in_engine

    def engine_died(self) -> LiveRequest | None:
        """Nothing is in an engine any more; the one that is guilty of it, if that is clear."""
        self._clear_those_who_advanced()
        tried = self._on_trial
        suspects = [request for request in tried or self._records if self._strike(request)]
        stuck = [request for request in suspects if self._records[request].last_gain == 0]
        if not tried and stuck:
            # Who advanced is less likely to be it.
            for request in suspects:
                self._records[request].is_suspect = request in stuck
            suspects = stuck
        guilty = suspects[0] if len(suspects) == 1 and self._is_guilty(suspects[0], was_tried=bool(tried)) else None
        if guilty is None:
            self._groups += reversed(_split(suspects))
        else:
            self._convict(guilty)
        self._on_trial = []
        self.connection_broke()
        self._quarantine.refresh()
        return guilty

    def connection_broke(self) -> None:
        """The engine has forgotten all, and no request is to blame."""
        for record in self._records.values():
            record.in_engine = False
        if self._on_trial:
            self._groups.append(self._on_trial)
            self._on_trial = []
        self._quarantine.unlock()

    def take_unsent(self) -> tuple[list[LiveRequest], int]:
        """What a new engine is to be sent at once, and how many of these an engine that died had."""
        unsent = [(r, record) for r, record in self._records.items() if not (record.in_engine or record.is_suspect)]
        num_resumed = sum(record.was_in_engine for _, record in unsent)
        for _, record in unsent:
            record.in_engine = record.was_in_engine = True
        return [request for request, _ in unsent], num_resumed

    def take_suspects(self) -> list[LiveRequest]:
        """The next suspects to send, once those before them are cleared and no other worker tries any."""
        self._clear_those_who_advanced()
        while self._groups and not self._on_trial:
            if not self._quarantine.try_lock():
                return []
            self._on_trial = [request for request in self._groups.pop() if request in self._records]
            self._unlock_when_over()
            for request in self._on_trial:
                self._records[request].in_engine = True
            if self._on_trial:
                return list(self._on_trial)
        return []

    def _strike(self, request: LiveRequest) -> bool:
        """Note that an engine died that had it; whether it is a suspect of that."""
        record = self._records[request]
        if not record.in_engine:
            return False
        record.num_deaths += 1
        record.last_gain = request.progress - record.progress_at_death
        record.progress_at_death = request.progress
        least = DEATHS_OF_A_SUSPECT if record.last_gain == 0 else DEATHS_OF_THE_GUILTY
        record.is_suspect = record.is_suspect or record.num_deaths >= least
        return record.is_suspect

    def _is_guilty(self, suspect: LiveRequest, *, was_tried: bool) -> bool:
        """Whether the only suspect of a death has done it."""
        record = self._records[suspect]
        if was_tried:
            return record.num_deaths >= DEATHS_OF_THE_GUILTY
        was_alone = self._is_only_front_end and sum(other.in_engine for other in self._records.values()) == 1
        return was_alone and record.last_gain == 0

    def _convict(self, guilty: LiveRequest) -> None:
        """It is never tried again, and what it has done is held against nobody else."""
        for message in guilty.messages()[:1]:
            self._quarantine.add(message)
        for record in self._records.values():
            if not record.is_suspect:
                record.num_deaths = 0

    def _clear_those_who_advanced(self) -> None:
        for request in list(self._on_trial):
            record = self._records[request]
            if request.progress > record.progress_at_death + 2 * record.last_gain:
                record.is_suspect, record.num_deaths = False, 0
                self._on_trial.remove(request)
                self._unlock_when_over()

    def _unlock_when_over(self) -> None:
        if not self._on_trial:
            self._quarantine.unlock()


def _split(suspects: list[LiveRequest]) -> list[list[LiveRequest]]:
    """In up to `NUM_GROUPS` groups."""
    size = -(-len(suspects) // NUM_GROUPS)
    return [suspects[first : first + size] for first in range(0, len(suspects), size)] if suspects else []
