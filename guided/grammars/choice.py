"""A choice: the output is exactly one of these texts."""

from __future__ import annotations

from typing import Any

from ..errors import GrammarError
from ..languages.language import Language

MAX_CHOICES = 100_000
"""Longer lists are refused."""


def read_choice(choices: Any) -> Language:
    """The language of a list of texts; one that comes twice counts once, and the empty text is one too.

    Raises:
        GrammarError: no list, an empty one, too long a one, or a member that is no text.
    """
    if not isinstance(choices, list):
        raise GrammarError("invalid", "the choices must be a list of strings")
    if not choices:
        raise GrammarError("unsatisfiable", "the list of choices is empty")
    if len(choices) > MAX_CHOICES:
        raise GrammarError("too_complex", f"{len(choices)} choices are more than {MAX_CHOICES}")
    for index, choice in enumerate(choices):
        if not isinstance(choice, str):
            raise GrammarError("invalid", f"a string expected, not {choice!r:.40}", location=f"/{index}")
        try:
            choice.encode()
        except UnicodeEncodeError:
            raise GrammarError("invalid", "a lone surrogate is no text", location=f"/{index}") from None
    return Language.literals(choices)
