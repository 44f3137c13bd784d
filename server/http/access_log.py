"""What becomes of granian's access log: which requests `--access-log` leaves out, and that nobody can forge a line."""

from __future__ import annotations

import logging

from ..config import ServerConfig


class AccessLogFilter(logging.Filter):
    """Drops the paths of `--disable-access-log-for-endpoints`, below --root-path or not, and escapes the others."""

    def __init__(self, config: ServerConfig) -> None:
        super().__init__()
        left_out = config.disable_access_log_for_endpoints
        self._paths = frozenset(left_out) | {config.root_path + path for path in left_out}

    def filter(self, record: logging.LogRecord) -> bool:
        if not isinstance(record.args, dict):
            return True
        if record.args.get("path") in self._paths:
            return False
        # granian gives the path decoded: with the line breaks that the client wrote as %0A.
        record.args = {name: _printable(value) for name, value in record.args.items()}
        return True


def _printable(value: object) -> object:
    """A text as one line, with escapes in the place of what is no character to be seen."""
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in value)
