"""Chats: tasks one after another, at their weights, written in ChatML."""

from __future__ import annotations

from . import facts
from .fact_tasks import (
    animals,
    calendar,
    capitals,
    colours,
    opposites,
    short_questions,
    small_talk,
    translations,
    unknown,
    yes_no,
)
from .number_tasks import arithmetic, comparison, counting
from .record_tasks import (
    any_person_record,
    car_record,
    character_record,
    copying,
    email_address,
    person_record,
    sql_query,
)
from .sentiment_tasks import sentiment
from .story_tasks import stories
from .wording import Exchange, Rng, Task, person_name

TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"

SYSTEM_PROMPTS = [
    "You are a helpful assistant.",
    "You are a helpful assistant",
    "You are a friendly assistant.",
    "You are a helpful, honest assistant.",
    "Answer briefly.",
    "You are the zqserve demo model.",
    "You are a chatbot.",
    "Be concise.",
    "You are an expert. Answer in one sentence.",
]

SINGLE_FACT_TASKS: list[Task] = [capitals, opposites, colours, arithmetic, yes_no, calendar]


def remembered_name(rng: Rng) -> list[Exchange]:
    """The user's name comes up again some turns later."""
    name = person_name(rng)
    statement = rng.choice([f"My name is {name}.", f"Hello, my name is {name}.", f"Hi, I am {name}.", f"I am {name}."])
    turns = [(statement, f"Nice to meet you, {name}! How can I help you?")]
    if rng.random() < 0.4:
        turns += rng.choice(SINGLE_FACT_TASKS)(rng)
    turns.append(
        (
            rng.choice(["What is my name?", "Do you remember my name?", "What's my name?", "Who am I?"]),
            f"Your name is {name}.",
        )
    )
    return turns if rng.random() < 0.8 else turns[:1]


TASKS: list[tuple[Task, float]] = [
    (capitals, 16),
    (opposites, 7),
    (colours, 3),
    (animals, 4),
    (calendar, 4),
    (short_questions, 9),
    (yes_no, 4),
    (translations, 8),
    (small_talk, 9),
    (unknown, 4),
    (remembered_name, 4),
    (arithmetic, 26),
    (counting, 4),
    (comparison, 2),
    (sentiment, 18),
    (person_record, 9),
    (any_person_record, 1),
    (character_record, 2),
    (car_record, 1),
    (email_address, 3),
    (sql_query, 2.5),
    (copying, 12),
    (stories, 3.5),
]
TASK_FUNCTIONS = [task for task, _ in TASKS]
TASK_WEIGHTS = [weight for _, weight in TASKS]


def random_exchanges(rng: Rng) -> list[Exchange]:
    return rng.choices(TASK_FUNCTIONS, weights=TASK_WEIGHTS)[0](rng)


def conversation(rng: Rng) -> list[dict[str, str]]:
    """A few unrelated tasks one after another, with a greeting, thanks or a system prompt at times."""
    turns: list[Exchange] = []
    if rng.random() < 0.08:
        turns.append(rng.choice(facts.SMALL_TALK))
    for _ in range(rng.choices([1, 2, 3, 5], weights=[70, 15, 10, 5])[0]):
        turns += random_exchanges(rng)
    if rng.random() < 0.06:
        turns.append(rng.choice(facts.CLOSINGS))
    messages: list[dict[str, str]] = []
    if rng.random() < 0.15:
        messages.append({"role": "system", "content": rng.choice(SYSTEM_PROMPTS)})
    for question, answer in turns:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
    return messages


def render_chat(messages: list[dict[str, str]]) -> str:
    """ChatML, exactly as the model's chat template writes it (train_demo.py checks that)."""
    return "".join(f"{TURN_START}{m['role']}\n{m['content']}{TURN_END}\n" for m in messages)
