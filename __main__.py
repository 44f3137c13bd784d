"""`python -m zqserve` and the console script `zqserve`: the server, or `models` and its commands."""

from __future__ import annotations

import sys


def main() -> None:
    """Run what the command line asks for and exit with its status."""
    argv = sys.argv[1:]
    if argv[:1] == ["models"]:
        from .model_store.cli import main as run
    else:
        from .server.command_line.cli import main as run
    sys.exit(run(argv))


if __name__ == "__main__":
    main()
