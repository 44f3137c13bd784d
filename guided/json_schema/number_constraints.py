"""What `type: integer`, `minimum`, `maximum`, `multipleOf` … leave of the numbers, and what their negation leaves."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Any

from ..languages import number_spelling
from ..languages.language import Language
from .drafts import Draft
from .patterns import no_text

NUMBER_KEYWORDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")

MAX_FREELY_SPELLED = 64
"""More constants than this are not accepted in every spelling."""

_WRITTEN_AS_INTEGER = "-?(?:0|[1-9][0-9]*)"


def exact(number: Any) -> Decimal:
    """A JSON number as it was written."""
    return Decimal(repr(number)) if type(number) is float else Decimal(number)


def numbers(keywords: dict[str, Any], only_integers: bool, draft: Draft) -> Language:
    """The spellings of the numbers that the keywords allow."""
    step = exact(keywords["multipleOf"]) if "multipleOf" in keywords else None
    return _numbers(only_integers, draft, tuple(_bounds(keywords)), step)


@lru_cache(maxsize=256)
def _numbers(
    only_integers: bool, draft: Draft, bounds: tuple[tuple[bool, Decimal, bool], ...], step: Decimal | None
) -> Language:
    language = _integers(draft) if only_integers else number_spelling.number()
    for low, bound, exclusive in bounds:
        if low:
            language = language & number_spelling.at_least(bound, exclusive)
        else:
            language = language & number_spelling.at_most(bound, exclusive)
    return language if step is None else language & number_spelling.multiple_of(step)


def not_numbers(keywords: dict[str, Any], only_integers: bool) -> Language:
    """The spellings of the numbers that the keywords forbid."""
    language = number_spelling.not_integer() if only_integers else no_text()
    for low, bound, exclusive in _bounds(keywords):
        if low:
            language = language | number_spelling.at_most(bound, not exclusive)
        else:
            language = language | number_spelling.at_least(bound, not exclusive)
    if "multipleOf" in keywords:
        language = language | number_spelling.not_multiple_of(exact(keywords["multipleOf"]))
    return language


def one_of(values: list[Decimal]) -> Language:
    """The spellings of these numbers; of many, only the plain ones (`7`, `7.0`)."""
    if len(values) <= MAX_FREELY_SPELLED:
        return Language.union(number_spelling.equal(value) for value in values)
    texts = [format(value, "f") for value in values]
    return Language.literals([*texts, *(f"{text}.0" for text in texts if "." not in text)])


def none_of(values: list[Decimal]) -> Language:
    """The spellings of all other numbers."""
    return Language.intersection([number_spelling.number(), *map(number_spelling.not_equal, values)])


def allows(keywords: dict[str, Any], number: Any) -> bool:
    """Whether a number is within the bounds and a multiple."""
    value = exact(number)
    for low, bound, exclusive in _bounds(keywords):
        distance = value - bound if low else bound - value
        if distance < 0 or (exclusive and distance == 0):
            return False
    return "multipleOf" not in keywords or is_multiple(value, exact(keywords["multipleOf"]))


def is_multiple(value: Decimal, step: Decimal) -> bool:
    """Whether `value` is an integer times `step`, exactly."""
    (numerator, denominator), (step_numerator, step_denominator) = value.as_integer_ratio(), step.as_integer_ratio()
    return (numerator * step_denominator) % (denominator * step_numerator) == 0


def _integers(draft: Draft) -> Language:
    if draft.name == "draft-04":
        # There 1.0 is no integer.
        return number_spelling.integer() & Language.regex(_WRITTEN_AS_INTEGER, "python")
    return number_spelling.integer()


def _bounds(keywords: dict[str, Any]) -> list[tuple[bool, Decimal, bool]]:
    """(lower?, bound, exclusive?) of each bound; draft 4 says with a boolean that `minimum` is exclusive."""
    bounds = []
    for low, word, exclusive_word in (
        (True, "minimum", "exclusiveMinimum"),
        (False, "maximum", "exclusiveMaximum"),
    ):
        bound, exclusive = keywords.get(word), keywords.get(exclusive_word)
        if bound is not None:
            bounds.append((low, exact(bound), exclusive is True))
        if exclusive is not None and type(exclusive) is not bool:
            bounds.append((low, exact(exclusive), True))
    return bounds
