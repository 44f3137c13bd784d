"""How many texts a regular language has: few, or so many that one never runs out of them.

Names and items that must be different from each other depend on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .language import JointAutomaton, Language

if TYPE_CHECKING:
    from ..budget import Budget

MAX_STATES = 2000
"""States of a language that are looked at to see whether it is endless."""


def texts_that_run_out(language: Language, limit: int, budget: Budget) -> list[str] | None:
    """The texts with a beginning that is one of only finitely many: all others can, whatever has been written of
    them, still become one of infinitely many. None: there are more than `limit`, or it is not seen in MAX_STATES."""
    return _texts_that_run_out(JointAutomaton((language,), budget), limit, budget)


def _texts_that_run_out(automaton: JointAutomaton, limit: int, budget: Budget) -> list[str] | None:
    if automaton.start is None:
        return []
    targets: dict[int, set[int]] = {}
    pending = [automaton.start]
    while pending:
        state = pending.pop()
        if state not in targets:
            targets[state] = {target for _, _, target in automaton.arcs(state)}
            pending += targets[state]
            if len(targets) > MAX_STATES:
                return None
    finite = _without_a_cycle(targets)
    if not finite:
        return []
    # What leads there must not be part of a cycle, or there are infinitely many ways.
    leading = _all_before(finite, targets)
    if len(_without_a_cycle({state: targets[state] & leading for state in leading})) < len(leading):
        return None
    return _texts_within(automaton, leading, finite, limit, budget)


def is_endless_language(language: Language, budget: Budget) -> bool:
    """Whether each beginning of a text of the language is one of infinitely many (or there is none)."""
    return texts_that_run_out(language, 0, budget) == []


def is_endless_automaton(automaton: JointAutomaton, budget: Budget) -> bool:
    """The same of the language of an automaton, which keeps the work that the budget stopped."""
    return _texts_that_run_out(automaton, 0, budget) == []


def few_texts(language: Language, limit: int, budget: Budget) -> list[str] | None:
    """All texts of `language`, the shortest first; None: there are more than `limit`."""
    automaton = JointAutomaton((language,), budget)
    return [] if automaton.start is None else _texts_within(automaton, None, None, limit, budget)


def _texts_within(
    automaton: JointAutomaton, within: set[int] | None, ends: set[int] | None, limit: int, budget: Budget
) -> list[str] | None:
    """The texts that are accepted in `ends`, and all of whose states are `within` (None: any). Each state within leads
    to such a text."""
    assert automaton.start is not None
    level = [("", automaton.start)]
    texts: list[str] = []
    while level:
        texts += [text for text, state in level if automaton.accepted(state) and (ends is None or state in ends)]
        after: list[tuple[str, int]] = []
        for text, state in level:
            budget.spend()
            for first, last, target in automaton.arcs(state):
                if within is None or target in within:
                    after += [(text + chr(code), target) for code in range(first, min(last, first + limit) + 1)]
            # Each beginning leads to a text.
            if len(texts) + len(after) > limit:
                return None
        level = after
    return texts if len(texts) <= limit else None


def _without_a_cycle(targets: dict[int, set[int]]) -> set[int]:
    """The states from which no cycle can be reached."""
    before: dict[int, list[int]] = {state: [] for state in targets}
    num_open: dict[int, int] = {}
    for state, following in targets.items():
        num_open[state] = len(following)
        for target in following:
            before[target].append(state)
    found: set[int] = set()
    pending = [state for state, number in num_open.items() if not number]
    while pending:
        state = pending.pop()
        found.add(state)
        for previous in before[state]:
            num_open[previous] -= 1
            if not num_open[previous]:
                pending.append(previous)
    return found


def _all_before(states: set[int], targets: dict[int, set[int]]) -> set[int]:
    """The states from which one of `states` can be reached, these included."""
    before: dict[int, list[int]] = {}
    for state, following in targets.items():
        for target in following:
            before.setdefault(target, []).append(state)
    found = set(states)
    pending = list(states)
    while pending:
        for previous in before.get(pending.pop(), ()):
            if previous not in found:
                found.add(previous)
                pending.append(previous)
    return found
