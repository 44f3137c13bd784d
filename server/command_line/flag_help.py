"""`--help=WORD`: the help of one flag, of a group of flags, or of all flags whose name holds the word."""

from __future__ import annotations

import difflib

from cyclopts import App
from cyclopts.argument import Argument, ArgumentCollection

from .flag_compatibility import FOREIGN_FLAGS, foreign_help


def flags_of(app: App) -> ArgumentCollection:
    """Every flag of the application, its docstring as help."""
    found = app.assemble_argument_collection(parse_docstring=True)
    return ArgumentCollection([argument for argument in found if argument.name.startswith("--")])


def help_of(flags: ArgumentCollection, word: str) -> str:
    """The text to show. Raises ValueError for a word that neither a flag nor a group has in its name."""
    name = word.strip("-").replace("_", "-").lower()
    of_group = [flag for flag in flags if name == _group(flag).lower()]
    if of_group:
        return "\n".join(map(_describe, of_group))
    exact = [flag for flag in flags if f"--{name}" in (*flag.names, *flag.negatives)]
    if exact:
        return _describe(exact[0])
    if name in FOREIGN_FLAGS:
        return foreign_help(name)
    texts = [_describe(flag) for flag in flags if any(name in known for known in flag.names)]
    texts += [foreign_help(known) for known in FOREIGN_FLAGS if name in known]
    if not texts:
        nearest = difflib.get_close_matches(name, [_bare(flag) for flag in flags] + list(FOREIGN_FLAGS), n=1)
        hint = f" Did you mean --help={nearest[0]}?" if nearest else ""
        raise ValueError(f"no flag and no group of flags has {word!r} in its name.{hint}")
    return "\n".join(texts)


def _describe(flag: Argument) -> str:
    names = " ".join(dict.fromkeys((*flag.names, *flag.negatives)))
    choices = flag.get_choices()
    default = flag.show_default
    shown = default(flag.field_info.default) if callable(default) else flag.field_info.default
    lines = [names, f"    {' '.join((flag.parameter.help or '').split())}"]
    if choices:
        lines.append(f"    One of: {', '.join(choices)}.")
    if flag.parameter.env_var:
        lines.append(f"    From the environment: {', '.join(flag.parameter.env_var)}.")
    if not flag.required and default is not False and shown not in (None, ()):
        lines.append(f"    Default: {shown}.")
    return "\n".join(lines) + "\n"


def _bare(flag: Argument) -> str:
    return flag.name.removeprefix("--")


def _group(flag: Argument) -> str:
    groups = flag.parameter.group
    group = groups[0] if isinstance(groups, tuple) else groups
    return str(getattr(group, "name", group))
