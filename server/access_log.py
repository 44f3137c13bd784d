"""Which requests `--access-log` leaves out."""

from __future__ import annotations

import logging

from .config import ServerConfig


class AccessLogFilter(logging.Filter):
    """Of granian's access log, drops the paths of `--disable-access-log-for-endpoints`, below --root-path or not."""

    def __init__(self, config: ServerConfig) -> None:
        super().__init__()
        left_out = config.disable_access_log_for_endpoints
        self._paths = frozenset(left_out) | {config.root_path + path for path in left_out}

    def filter(self, record: logging.LogRecord) -> bool:
        return not (isinstance(record.args, dict) and record.args.get("path") in self._paths)
