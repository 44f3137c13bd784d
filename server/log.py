"""How the processes of the server log: one line each, to standard error."""

from __future__ import annotations

import logging

FORMAT = "%(asctime)s %(levelname)s %(message)s"


def configure_logging(level: str) -> None:
    """Set up the root logger of this process; called once, by the process's entry point."""
    logging.basicConfig(level=level.upper(), format=FORMAT)
