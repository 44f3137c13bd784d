"""How the processes of the server log: one line each to standard error, or as a file of the operator's says."""

from __future__ import annotations

import json
import logging
import logging.config
import traceback
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)s %(message)s"


def configure_logging(level: str, config_file: str | Path | None = None) -> None:
    """Set up the loggers of this process; called once, by the process's entry point.

    `config_file` is JSON for `logging.config.dictConfig`. Raises ValueError, naming the file, when it is not.
    """
    if config_file is None:
        logging.basicConfig(level=level.upper(), format=FORMAT)
        return
    try:
        logging.config.dictConfig({"disable_existing_loggers": False, **json.loads(Path(config_file).read_text())})
    except (OSError, ValueError, TypeError, AttributeError, ImportError) as error:
        raise ValueError(f"--log-config-file {config_file} cannot be used: {error}") from None


def where(error: BaseException) -> str:
    """Kind and place of an exception, for the log. What it says may be the text of a client, which is not logged."""
    return (
        f"{type(error).__name__}\nTraceback (most recent call last):\n"
        + "".join(traceback.format_tb(error.__traceback__)).rstrip()
    )
