"""Requests that killed engines, by content, so that the same input does not come to an engine again.

All front-end workers of a server share one: it is a folder in the server's private one. There too is the lock by which
one worker at a time tries a suspect, so that a death meanwhile has one cause (see `live_requests`).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path

import msgspec

from ...engine_core.messages import EngineRequest
from ...engine_core.pooling.pooling_messages import PoolingRequest

EngineMessage = EngineRequest | PoolingRequest


class Quarantine:
    """One a worker, over a folder that all have."""

    def __init__(self, folder: Path) -> None:
        """folder: made if it is not there."""
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._digests: frozenset[str] = frozenset()
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.refresh()

    def refresh(self) -> None:
        """Take note of what other workers have added: they do so when an engine has died, so look after each death."""
        self._digests = frozenset(path.name for path in self._folder.iterdir() if path.name != "lock")

    def add(self, message: EngineMessage) -> None:
        """Never again."""
        digest = _digest(message)
        (self._folder / digest).touch()
        self._digests |= {digest}

    def has(self, message: EngineMessage) -> bool:
        """Whether a request of the same content is in it. Costs nothing while it is empty."""
        return bool(self._digests) and _digest(message) in self._digests

    def try_lock(self) -> bool:
        """Take the lock if no other worker has it. It is given back when the process ends, however that ends."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Give the lock back."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)


def _digest(message: EngineMessage) -> str:
    """Of what an engine computes for it; without what differs each time the same is asked for."""
    same = {"key": 0, "priority": 0, "arrival_time": 0.0, "user": ""}
    if isinstance(message, EngineRequest):
        grammar = b"" if message.grammar is None else message.grammar.key
        params = msgspec.structs.replace(message.params, seed=None)
        message = msgspec.structs.replace(
            message, **same, params=params, sample_index=0, output_token_ids=[], grammar=None, cache_salt=""
        )
    else:
        grammar = b""
        message = msgspec.structs.replace(message, **same)
    return hashlib.blake2b(msgspec.msgpack.encode(message) + grammar, digest_size=16).hexdigest()
