"""The keys that clients may show: those of the command line, and those of a file with a limit for each.

The file is YAML or JSON:

    keys:
      - name: team-a                # stands for the key in turns and limits; never the key itself
        key: sk-…                   # or sha256: its digest in hex, so that the file holds no secret
        requests_per_minute: 600    # both optional
        max_concurrent: 8

It is read again when it changes. A file that is wrong is logged, and the keys known before stay in force.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""Between two looks at the file."""


class ApiKey(msgspec.Struct, frozen=True):
    """A key and what it may do; the key itself is not kept."""

    name: str
    """Requests of the same name take turns with those of others."""
    digest: bytes = b""
    """SHA-256."""
    requests_per_minute: float | None = None
    max_concurrent: int | None = None


ANYONE = ApiKey("")
"""Where no key is needed, and for those of the command line, which share one name and have no limits."""


class KeyRing:
    """All keys that are in force."""

    def __init__(self, keys: Sequence[str], file: Path | None) -> None:
        """Raises OSError or ValueError when the file cannot be read."""
        self._fixed = [ApiKey("", _digest(key.encode())) for key in keys]
        self._file = file
        self._stamp: tuple[int, int] | None = None
        self._next_look = 0.0
        self._from_file: list[ApiKey] = []
        if file is not None:
            self._stamp = _stamp(file)
            self._from_file = read_key_file(file)

    @property
    def is_empty(self) -> bool:
        """Whether everybody is let in."""
        return not self._fixed and self._file is None

    def find(self, shown: Iterable[bytes]) -> ApiKey | None:
        """The first known one of the keys that a client shows. Takes the same time whatever is shown."""
        self._look()
        found: ApiKey | None = None
        for text in shown:
            digest = _digest(text)
            for key in (*self._fixed, *self._from_file):
                if hmac.compare_digest(digest, key.digest) and found is None:
                    found = key
        return found

    def _look(self) -> None:
        """Read the file again if it has changed."""
        now = time.monotonic()
        if self._file is None or now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        try:
            stamp = _stamp(self._file)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._from_file = read_key_file(self._file)
            logger.info("%d keys are read from the file of keys.", len(self._from_file))
        except (OSError, ValueError) as error:
            logger.error("The file of keys is not used, those known before stay in force: %s", error)


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    key: str | None = None
    sha256: str | None = None
    requests_per_minute: float | None = None
    max_concurrent: int | None = None


class _KeyFile(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[_Entry]


def read_key_file(path: Path) -> list[ApiKey]:
    """The keys of a file. Raises OSError, and ValueError which names the entry and never a key."""
    import yaml  # only for those who have a file

    try:
        entries = msgspec.convert(yaml.safe_load(path.read_text(encoding="utf-8")), _KeyFile).keys
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        raise ValueError(f"{path} is not YAML" + ("." if where is None else f" (line {where.line + 1}).")) from None
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: {error}") from None
    keys: list[ApiKey] = []
    for number, entry in enumerate(entries):
        place = f"{path}: keys[{number}]"
        if not entry.name or entry.name in (key.name for key in keys):
            raise ValueError(f"{place} needs a name of its own.")
        if (entry.key is None) == (entry.sha256 is None):
            raise ValueError(f"{place} needs either key or sha256.")
        for name in ("requests_per_minute", "max_concurrent"):
            value = getattr(entry, name)
            if value is not None and value < 1:
                raise ValueError(f"{place}: {name} must be at least 1.")
        try:
            digest = bytes.fromhex(entry.sha256) if entry.sha256 is not None else _digest((entry.key or "").encode())
        except ValueError:
            digest = b""
        if len(digest) != hashlib.sha256().digest_size or entry.key == "":
            raise ValueError(f"{place}: key must not be empty, and sha256 must have 64 hex digits.")
        keys.append(ApiKey(entry.name, digest, entry.requests_per_minute, entry.max_concurrent))
    return keys


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
