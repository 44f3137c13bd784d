"""Sums, counting and comparing."""

from __future__ import annotations

from .wording import Exchange, Rng


def sum_terms(rng: Rng) -> tuple[int, str, int, int]:
    """Operands and result: sums and differences up to 20, products up to 10 x 10, small numbers most often."""
    kind = rng.choices("+-*", weights=[5, 3, 2])[0]
    limit = 10 if kind == "*" or rng.random() < 0.5 else 20
    a, b = rng.randint(0, limit), rng.randint(0, limit)
    if kind == "*":
        return a, kind, b, a * b
    if kind == "-":
        a, b = max(a, b), min(a, b)
        return a, kind, b, a - b
    if a + b > 20:
        a, b = 20 - a, 20 - b
    return a, kind, b, a + b


def arithmetic(rng: Rng) -> list[Exchange]:
    a, op, b, result = sum_terms(rng)
    word = {"+": "plus", "-": "minus", "*": "times"}[op]
    shown = f"{a} {op} {b}"
    question, answer = rng.choice(
        [
            (f"What is {shown}?", f"{shown} = {result}"),
            (f"What is {shown}?", f"{shown} = {result}"),
            (f"{shown} = ?", f"{shown} = {result}"),
            (f"{shown}", f"{shown} = {result}"),
            (f"{a}{op}{b}", f"{shown} = {result}"),
            (f"What's {a}{op}{b}?", f"{shown} = {result}"),
            (f"Calculate {shown}.", f"{shown} = {result}"),
            (f"How much is {shown}?", f"{shown} = {result}"),
            (f"What is {a} {word} {b}?", f"{a} {word} {b} is {result}."),
            (f"How much is {a} {word} {b}?", f"{a} {word} {b} is {result}."),
            (f"What is {shown}? Answer with a number.", f"{result}"),
            (f"What is {shown}? Answer with only the number.", f"{result}"),
        ]
    )
    turns = [(question, answer)]
    if rng.random() < 0.2:
        a, op, b, result = sum_terms(rng)
        turns.append((f"And {a} {op} {b}?", f"{a} {op} {b} = {result}"))
    return turns


def number_list(first: int, last: int) -> str:
    return ", ".join(str(n) for n in range(first, last + 1))


def counting(rng: Rng) -> list[Exchange]:
    first = 1 if rng.random() < 0.6 else rng.randint(0, 30)
    last = first + rng.choice([2, 4, 4, 9, 9, 19, rng.randint(2, 30)])
    if rng.random() < 0.06:
        first, last = 1, rng.choice([50, 100])
    verb = rng.choice(
        [
            "Count from {} to {}.",
            "Count from {} to {}",
            "List the numbers from {} to {}.",
            "Please count from {} to {}.",
        ]
    )
    if first == 1 and rng.random() < 0.3:
        return [(f"Count to {last}.", number_list(first, last))]
    return [(verb.format(first, last), number_list(first, last))]


def comparison(rng: Rng) -> list[Exchange]:
    a, b = rng.sample(range(21), 2)
    return [(f"Which is bigger, {a} or {b}?", f"{max(a, b)} is bigger than {min(a, b)}.")]
