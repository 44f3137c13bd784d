"""A slow and simple judge of context-free grammars: which texts they produce, and which texts begin one of those."""

from __future__ import annotations

from zqserve.guided.grammars.grammar_rules import (
    Choice,
    Expression,
    Literal,
    OneOf,
    Reference,
    Regular,
    Repetition,
    Rules,
    Sequence,
)


class Recogniser:
    """Fixpoints over (rule, position) in one text at a time."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.productive = self._fixpoint(lambda expression, known: self._produces(expression, known))

    def produces(self, text: str) -> bool:
        """Whether the text is one of the grammar's."""
        return len(text) in self._ends(text)[self.rules.start, 0]

    def begins(self, text: str) -> bool:
        """Whether the text is the beginning of one of the grammar's."""
        ends = self._ends(text)
        viable: set[tuple[str, int]] = set()
        grown = True
        while grown:
            grown = False
            for rule, definition in self.rules.definitions.items():
                for start in range(len(text) + 1):
                    if (rule, start) not in viable and self._viable(definition, text, start, ends, viable):
                        viable.add((rule, start))
                        grown = True
        return (self.rules.start, 0) in viable

    def _fixpoint(self, holds) -> set[str]:
        known: set[str] = set()
        while new := {
            name
            for name, definition in self.rules.definitions.items()
            if name not in known and holds(definition, known)
        }:
            known |= new
        return known

    def _produces(self, expression: Expression, known: set[str]) -> bool:
        match expression:
            case Reference(rule):
                return rule in known
            case Sequence(parts):
                return all(self._produces(part, known) for part in parts)
            case Choice(options):
                return any(self._produces(option, known) for option in options)
            case Repetition(item, minimum, _):
                return not minimum or self._produces(item, known)
            case OneOf(characters):
                return bool(characters)
            case Regular(language):
                return not language.is_empty()
        return True

    def _ends(self, text: str) -> dict[tuple[str, int], set[int]]:
        ends = {(rule, start): set() for rule in self.rules.definitions for start in range(len(text) + 1)}
        grown = True
        while grown:
            grown = False
            for rule, definition in self.rules.definitions.items():
                for start in range(len(text) + 1):
                    found = self._match(definition, text, start, ends)
                    if not found <= ends[rule, start]:
                        ends[rule, start] |= found
                        grown = True
        return ends

    def _match(self, expression: Expression, text: str, start: int, ends) -> set[int]:
        match expression:
            case Literal(wanted):
                return {start + len(wanted)} if text.startswith(wanted, start) else set()
            case OneOf(characters):
                return {start + 1} if start < len(text) and text[start] in characters else set()
            case Regular(language):
                return {end for end in range(start, len(text) + 1) if language.contains(text[start:end])}
            case Reference(rule):
                return ends[rule, start]
            case Choice(options):
                return set().union(*(self._match(option, text, start, ends) for option in options))
            case Sequence(parts):
                places = {start}
                for part in parts:
                    places = set().union(*(self._match(part, text, place, ends) for place in places))
                return places
            case Repetition(item, minimum, maximum):
                return self._repeat(item, minimum, maximum, text, start, ends)
        raise NotImplementedError(expression)

    def _repeat(self, item, minimum, maximum, text, start, ends) -> set[int]:
        places, found = {start}, set()
        for count in range(minimum + len(text) + 1 if maximum is None else maximum + 1):
            if count >= minimum:
                found |= places
            places = set().union(*(self._match(item, text, place, ends) for place in places))
        return found

    def _viable(self, expression: Expression, text: str, start: int, ends, viable) -> bool:
        if start == len(text):
            return self._produces(expression, self.productive)
        match expression:
            case Literal(wanted):
                return wanted.startswith(text[start:]) or False
            case OneOf(characters):
                return start == len(text) - 1 and text[start] in characters
            case Regular(language):
                rest = language & _beginning_with(text[start:])
                return not rest.is_empty()
            case Reference(rule):
                return (rule, start) in viable
            case Choice(options):
                return any(self._viable(option, text, start, ends, viable) for option in options)
            case Sequence(parts):
                return self._viable_in(parts, text, start, ends, viable)
            case Repetition(item, minimum, maximum):
                most = min(minimum + len(text) + 1, maximum or 10**9) if maximum != 0 else 0
                places = {start}
                for _ in range(most):
                    if any(self._viable(item, text, place, ends, viable) for place in places):
                        return True
                    places = set().union(*(self._match(item, text, place, ends) for place in places))
                return len(text) in places and self._produces(expression, self.productive)
        raise NotImplementedError(expression)

    def _viable_in(self, parts, text, start, ends, viable) -> bool:
        if not all(self._produces(part, self.productive) for part in parts):
            return False
        places = {start}
        for part in parts:
            if any(self._viable(part, text, place, ends, viable) for place in places):
                return True
            places = set().union(*(self._match(part, text, place, ends) for place in places))
        return len(text) in places


def _beginning_with(text: str):
    from zqserve.guided.languages.language import Language

    return Language.literal(text) + Language.everything()
