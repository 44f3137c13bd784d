"""What the tasks of the demo corpus share: types, articles, names, and how people type a question."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from . import facts

Rng = random.Random
Exchange = tuple[str, str]
"""What the user says, what the assistant answers."""
Task = Callable[[Rng], list[Exchange]]


def skewed_choice(rng: Rng, items: list) -> object:
    """Pick early items much more often, so that the most probable answer stands out at temperature 0."""
    return rng.choices(items, weights=[0.5**i for i in range(len(items))])[0]


def with_article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def repaired_articles(text: str) -> str:
    """Templates say 'a {adjective}': write 'an' before a vowel."""
    return re.sub(r"\b([Aa]) (?=[aeiou](?!se))", r"\1n ", text)


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def casual(rng: Rng, question: str) -> str:
    """Sometimes write a question as people type it: without the mark, in small letters, with a 'please'."""
    roll = rng.random()
    if roll < 0.08:
        return question.rstrip("?.!")
    if roll < 0.13:
        return question[:1].lower() + question[1:]
    if roll < 0.16:
        return question + " Please answer briefly."
    if roll < 0.18:
        return "Please tell me: " + question
    return question


def synthetic_name(rng: Rng) -> str:
    """A name from no list, so that names are copied and not only recalled."""
    syllables = [rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(2, 3))]
    return "".join(syllables).capitalize() + rng.choice(["", "", "n", "r", "s", "l"])


def person_name(rng: Rng) -> str:
    return rng.choice(facts.NAMES) if rng.random() < 0.8 else synthetic_name(rng)
