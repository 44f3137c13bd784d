"""The private folder of a running server: what its processes find each other by. Nobody else may enter it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ServerFolder:
    """Made by the launcher with mode 0700, and gone when the server has ended."""

    path: Path

    @property
    def engine_address(self) -> str:
        """Where the engine listens; the same for each engine that follows another."""
        return f"ipc://{self.path}/engine"

    @property
    def status(self) -> Path:
        """The page of memory of `ServerStatus`."""
        return self.path / "status"

    @property
    def quarantine(self) -> Path:
        """The folder of `Quarantine`."""
        return self.path / "quarantine"

    @property
    def metrics(self) -> Path:
        """The folder in which several workers share their metrics."""
        return self.path / "metrics"
