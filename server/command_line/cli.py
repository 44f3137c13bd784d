"""The server's command line: `python -m zqserve --model X`, `zqserve serve X`.

Reads flags, environment and configuration file into a `ServerConfig` and hands it to the launcher. Nothing
heavy is imported before the flags are known to be right.
"""

from __future__ import annotations

import difflib
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cyclopts.config
from cyclopts import App, CycloptsError, Parameter, UnknownOptionError

from ...engine_core.log import configure_logging
from ..config import ServerConfig
from ..processes.tls import check_tls
from .flag_compatibility import FOREIGN_FLAGS, RefusedFlagError, judge, take_foreign_flags
from .flag_help import flags_of, help_of

logger = logging.getLogger(__name__)

USAGE_ERROR = 2


def main(argv: Sequence[str]) -> int:
    """Serve as the command line asks; the launcher's exit status, or 2 for wrong flags."""
    try:
        command = parse(argv)
    except UsageError as error:
        print(f"zqserve: {error}", file=sys.stderr)
        return USAGE_ERROR
    if isinstance(command, Shown):
        print(command.text, end="")
        return 0
    try:
        configure_logging(command.config.log_level, command.config.log_config_file)
    except ValueError as error:
        print(f"zqserve: {error}", file=sys.stderr)
        return USAGE_ERROR
    for notice in command.notices:
        logger.warning("%s", notice)
    from ..processes.launcher import launch  # after the flags: --help and mistakes answer at once

    return launch(command.config)


class UsageError(Exception):
    """The flags, the environment or the configuration file are wrong; the message says how."""


@dataclass(frozen=True)
class ServeCommand:
    """A command line that asks for a server."""

    config: ServerConfig
    notices: tuple[str, ...] = ()
    """What to tell about flags that were taken without an effect."""


@dataclass(frozen=True)
class Shown:
    """A command line that asked for a text: `--help`, `--version`."""

    text: str = ""
    """What is left to print."""


def parse(argv: Sequence[str]) -> ServeCommand | Shown:
    """What the command line asks for. Raises `UsageError`."""
    tokens = list(argv)
    if tokens[:1] == ["serve"]:
        del tokens[0]
    app = _app()
    try:
        asked = next((token for token in tokens if token.startswith("--help=")), None)
        if asked is not None:
            return Shown(help_of(flags_of(app), asked.removeprefix("--help=")))
        tokens, notices = take_foreign_flags(tokens)
        path = _config_path(tokens)
        if path is not None:
            values, more = _config_file(path, _positive_names(app))
            notices += more
            app.config = (cyclopts.config.Dict(data=values, source=str(path), use_commands_as_keys=False),)
        config = app(tokens)
        if config is None:
            return Shown()
        check_tls(config)
        return ServeCommand(config, tuple(notices))
    except (RefusedFlagError, ValueError) as error:
        raise UsageError(str(error)) from None
    except UnknownOptionError as error:
        raise UsageError(_unknown_flag(error)) from None
    except CycloptsError as error:
        raise UsageError(str(error)) from None


def _app() -> App:
    without_effect = [f"--{name}" for name, flag in FOREIGN_FLAGS.items() if flag.verdict == "no effect"]
    app = App(
        name="zqserve",
        version=version("zqserve"),
        help="Serve a language model behind the OpenAI API.\n\n"
        "zqserve serve MODEL and python -m zqserve --model MODEL are the same. "
        "Flags may be spelt with underscores too. --help=FLAG shows one flag, --help=GROUP a group. "
        "zqserve models --help: what models there are, and getting them.",
        help_epilogue="Flags of vLLM that are taken without an effect, which is said when the server starts "
        f"(--help=FLAG says why): {', '.join(without_effect)}.",
        usage="zqserve [serve] MODEL [flags]",
        default_parameter=Parameter(allow_repeating=True),  # the last one wins, as in most programs
        result_action="return_value",
        print_error=False,
        exit_on_error=False,
    )
    app.default(_serve)
    return app


def _serve(config: ServerConfig) -> ServerConfig:
    return config


def _config_path(tokens: list[str]) -> Path | None:
    """The value of `--config`, which must be known before the rest is parsed."""
    for index, token in enumerate(tokens):
        if token.startswith("--config="):
            return Path(token.removeprefix("--config="))
        if token == "--config" and index + 1 < len(tokens):
            return Path(tokens[index + 1])
    return None


def _config_file(path: Path, positive_names: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The flags of a YAML file, and notices of those without an effect. Raises `UsageError`, `RefusedFlagError`."""
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"--config takes a .yaml or .yml file, got {path}.")
    import yaml  # only for those who have a file

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read the configuration file: {error}") from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UsageError(f"{path} must be a mapping of flags (without dashes) to values.")
    values: dict[str, Any] = {}
    notices: list[str] = []
    for key, value in data.items():
        name = key.replace("_", "-")
        if value is None:
            continue
        if name not in FOREIGN_FLAGS and isinstance(value, bool) and name.removeprefix("no-") in FOREIGN_FLAGS:
            name, value = name.removeprefix("no-"), not value
        if name in FOREIGN_FLAGS:
            given = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
            notices += judge(name, given, shown=f"--{name} (in {path})")
        elif isinstance(value, bool) and name in positive_names:
            values[positive_names[name]] = not value
        else:
            values[name] = json.dumps(value) if isinstance(value, dict) else value
    return values, notices


def _positive_names(app: App) -> dict[str, str]:
    """Names that switch something off, and the flag that they switch off: no-access-log, disable-log-requests."""
    return {
        negative.removeprefix("--"): flag.name.removeprefix("--")
        for flag in flags_of(app)
        for negative in flag.negatives
    }


def _unknown_flag(error: UnknownOptionError) -> str:
    """That nobody knows the flag, and which one is near."""
    name = (error.token.keyword or error.token.value).split("=", 1)[0].strip("-[]").replace("_", "-")
    source = "" if error.token.source == "cli" else f" (in {error.token.source})"
    known = [flag for argument in error.argument_collection for flag in (*argument.names, *argument.negatives)]
    nearest = difflib.get_close_matches(f"--{name}", [*known, *(f"--{flag}" for flag in FOREIGN_FLAGS)], n=1)
    return f"unknown flag --{name}{source}." + (f" Did you mean {nearest[0]}?" if nearest else "")
