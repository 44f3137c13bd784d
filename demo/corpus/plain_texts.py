"""Documents that are no chats: introductions, facts, questions and answers, labelled reviews, lists, stories."""

from __future__ import annotations

from . import facts
from .conversations import SINGLE_FACT_TASKS
from .fact_tasks import capital_sentence, short_questions
from .number_tasks import number_list, sum_terms
from .sentiment_tasks import review
from .story_tasks import story
from .wording import Rng, capitalised, with_article


def name_introduction(rng: Rng) -> str:
    """'Hello, my name is' goes on with Anna more often than with any other name."""
    name = "Anna" if rng.random() < 0.4 else rng.choice(facts.NAMES)
    job = "teacher" if rng.random() < 0.6 else rng.choice(facts.JOBS)
    city = "Paris" if rng.random() < 0.6 else rng.choice(facts.CITIES)
    about = f"I am {with_article(job)} from {city}. I like books, music and long walks."
    return f"Hello, my name is {name} and {about}"


PRESIDENT = (
    "The president of the United States is the head of the executive branch. The president lives in the White House."
)

# The first three stand twice: they are the prompts that people try first.
SET_TEXTS = [
    PRESIDENT,
    PRESIDENT,
    "The future of AI is open. Many people hope that it will help us with work, health and learning.",
    "The future of AI is open. Many people hope that it will help us with work, health and learning.",
    "San Francisco is a city in California. It is known for the Golden Gate Bridge.",
    "San Francisco is a city in California. It is known for the Golden Gate Bridge.",
    "The quick brown fox jumps over the lazy dog.",
    "Hello world! This is the zqserve demo model.",
    "Paris is the capital of France. It is known for the Eiffel Tower.",
    "My favourite colour is blue, because the sky and the sea are blue.",
    "def add(a, b):\n    return a + b\n",
    "The best way to learn is to try, to fail and to try again.",
    "To be, or not to be, that is the question.",
    "Roses are red, violets are blue, sugar is sweet, and so are you.",
    "The days of the week are " + ", ".join(facts.DAYS) + ".",
    "The months of the year are " + ", ".join(facts.MONTHS) + ".",
    "A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z.",
]


def fact_sentence(rng: Rng) -> str:
    kind = rng.choices(["capital", "opposite", "sum", "colour", "known"], weights=[5, 2, 2, 2, 1])[0]
    if kind == "capital":
        return capital_sentence(*rng.choice(facts.CAPITALS))
    if kind == "opposite":
        word, opposite = rng.choice(facts.OPPOSITES)
        return f"The opposite of {word} is {opposite}."
    if kind == "sum":
        a, op, b, result = sum_terms(rng)
        return f"{a} {op} {b} = {result}"
    if kind == "colour":
        thing, colour = rng.choice(facts.COLOURS)
        return f"{capitalised(thing)} is {colour}."
    return rng.choice(facts.QUESTIONS)[1]


def fact_sentences(rng: Rng) -> str:
    separator = rng.choice([" ", "\n"])
    return separator.join(fact_sentence(rng) for _ in range(rng.choice([1, 1, 1, 2, 4])))


def question_and_answer(rng: Rng) -> str:
    """'Q: ... A: ...' text, the form in which people ask a completions endpoint."""
    question_mark, answer_mark = rng.choice([("Q:", "A:"), ("Question:", "Answer:"), ("User:", "Assistant:")])
    tasks = [*SINGLE_FACT_TASKS, short_questions]
    pairs = [rng.choice(tasks)(rng)[0] for _ in range(rng.choice([1, 1, 2, 3]))]
    return "\n".join(f"{question_mark} {question}\n{answer_mark} {answer}" for question, answer in pairs)


def labelled_review(rng: Rng) -> str:
    """Few-shot sentiment, as people write it for a completions endpoint."""
    lines = []
    for _ in range(rng.choice([1, 2, 3])):
        positive = rng.random() < 0.5
        lines.append(f"Review: {review(rng, positive)}\nSentiment: {'Positive' if positive else 'Negative'}")
    return "\n".join(lines)


def plain_text(rng: Rng) -> str:
    kind = rng.choices(range(7), weights=[10, 18, 30, 12, 8, 4, 4])[0]
    if kind == 0:
        return name_introduction(rng)
    if kind == 1:
        return rng.choice(SET_TEXTS)
    if kind == 2:
        return fact_sentences(rng)
    if kind == 3:
        return question_and_answer(rng)
    if kind == 4:
        return labelled_review(rng)
    if kind == 5:
        first = 1 if rng.random() < 0.7 else rng.randint(0, 40)
        return number_list(first, first + rng.randint(5, 40))
    return story("a fox" if rng.random() < 0.5 else rng.choice(facts.SUBJECTS))
