"""Questions with one answer from the lists: capitals, opposites, colours, the calendar, translations, small talk."""

from __future__ import annotations

from . import facts
from .wording import Exchange, Rng, capitalised, casual, with_article

CAPITAL_QUESTIONS = [
    "What is the capital of {c}?",
    "What is the capital of {c}?",
    "What's the capital of {c}?",
    "What is the capital city of {c}?",
    "Which city is the capital of {c}?",
    "Capital of {c}?",
    "capital of {c}?",
    "Tell me the capital of {c}.",
    "Name the capital of {c}.",
    "Do you know the capital of {c}?",
    "What city is the capital of {c}?",
    "{C}: what is its capital?",
]


def capital_sentence(country: str, city: str) -> str:
    return f"The capital of {country} is {city}."


def capitals(rng: Rng) -> list[Exchange]:
    country, city = rng.choice(facts.CAPITALS)
    roll = rng.random()
    if roll < 0.12:
        question = f"What is the capital of {country}? Answer with one word."
        return [(question, city)]
    if roll < 0.24:
        by_city = rng.choice(["{} is the capital of which country?", "Which country has the capital {}?"])
        other = next(land for land, town in facts.CAPITALS if town == city)
        return [(by_city.format(city), f"{city} is the capital of {other}.")]
    question = rng.choice(CAPITAL_QUESTIONS).format(c=country, C=capitalised(country))
    turns = [(casual(rng, question), capital_sentence(country, city))]
    while rng.random() < 0.3:
        country, city = rng.choice(facts.CAPITALS)
        follow_up = rng.choice(["And of {}?", "and of {}?", "And the capital of {}?", "What about {}?", "And {}?"])
        turns.append((follow_up.format(country), capital_sentence(country, city)))
    return turns


def opposites(rng: Rng) -> list[Exchange]:
    word, opposite = rng.choice(facts.OPPOSITES)
    if rng.random() < 0.12:
        return [(f"What is the opposite of {word}? Answer with one word.", capitalised(opposite))]
    question = rng.choice(
        [
            "What is the opposite of {}?",
            "What is the opposite of {}?",
            "What's the opposite of {}?",
            "Opposite of {}?",
            "Give me the opposite of {}.",
            "What is the opposite of the word {}?",
            'What is the opposite of "{}"?',
            "Tell me the opposite of {}.",
        ]
    ).format(word)
    turns = [(casual(rng, question), f"The opposite of {word} is {opposite}.")]
    if rng.random() < 0.25:
        word, opposite = rng.choice(facts.OPPOSITES)
        turns.append(
            (
                rng.choice(["And of {}?", "And the opposite of {}?"]).format(word),
                f"The opposite of {word} is {opposite}.",
            )
        )
        # 'And of ...?' means another thing after a capital, so both readings are in the text.
    return turns


def colours(rng: Rng) -> list[Exchange]:
    thing, colour = rng.choice(facts.COLOURS)
    spelling = rng.choice(["colour", "color"])
    question = rng.choice(
        [
            f"What {spelling} is {thing}?",
            f"What is the {spelling} of {thing}?",
            f"Which {spelling} is {thing}?",
            f"Tell me the {spelling} of {thing}.",
        ]
    )
    return [(casual(rng, question), f"{capitalised(thing)} is {colour}.")]


def animals(rng: Rng) -> list[Exchange]:
    kind = rng.randrange(3)
    if kind == 0:
        animal, sound = rng.choice(facts.ANIMAL_SOUNDS)
        question = rng.choice(
            [f"What sound does {with_article(animal)} make?", f"What does {with_article(animal)} say?"]
        )
        return [(casual(rng, question), f"{capitalised(with_article(animal))} says {sound}.")]
    if kind == 1:
        animal, young = rng.choice(facts.ANIMAL_YOUNG)
        question = rng.choice([f"What is a young {animal} called?", f"What is a baby {animal} called?"])
        return [(casual(rng, question), f"A young {animal} is called {with_article(young)}.")]
    animal, legs = rng.choice(facts.ANIMAL_LEGS)
    question = f"How many legs does {with_article(animal)} have?"
    return [(casual(rng, question), f"{capitalised(with_article(animal))} has {legs} legs.")]


def calendar(rng: Rng) -> list[Exchange]:
    names, unit = (facts.DAYS, "day") if rng.random() < 0.5 else (facts.MONTHS, "month")
    i = rng.randrange(len(names))
    after, before = names[(i + 1) % len(names)], names[i - 1]
    forward = rng.random() < 0.6
    word, other = ("after", after) if forward else ("before", before)
    question = rng.choice(
        [
            f"What {unit} comes {word} {names[i]}?",
            f"Which {unit} comes {word} {names[i]}?",
            f"Which {unit} is {word} {names[i]}?",
        ]
    )
    return [(casual(rng, question), f"{other} comes {word} {names[i]}.")]


def short_questions(rng: Rng) -> list[Exchange]:
    question, answer = rng.choice(facts.QUESTIONS)
    if question.startswith("Who won the world series") and rng.random() < 0.7:
        return [(question, answer), ("Where was it played?", "It was played in Arlington, Texas.")]
    return [(casual(rng, question), answer)]


def yes_no(rng: Rng) -> list[Exchange]:
    question, answer = rng.choice(facts.YES_NO)
    if rng.random() < 0.15:
        return [(question + " Answer yes or no.", answer.split(",")[0])]
    return [(casual(rng, question), answer)]


def translations(rng: Rng) -> list[Exchange]:
    roll = rng.random()
    if roll < 0.12:
        language, greeting = rng.choice(facts.HELLO_ABROAD)
        return [(rng.choice(["Say hello in {}.", "How do you say hello in {}?"]).format(language), f"{greeting}!")]
    if roll < 0.2:
        name, emoji = rng.choice(facts.EMOJI)
        return [(rng.choice(["Send me {} emoji.", "Show me {} emoji."]).format(with_article(name)), emoji)]
    language = rng.choice(list(facts.TRANSLATIONS))
    word, foreign = rng.choice(list(facts.TRANSLATIONS[language].items()))
    question, answer = rng.choice(
        [
            ("Translate {w} to {l}.", "{f}"),
            ("Translate to {l}: {w}", "{f}"),
            ("Translate '{w}' to {l}.", "{f}"),
            ("Translate the word {w} into {l}.", "{f}"),
            ("How do you say {w} in {l}?", "In {l}, {w} is {f}."),
            ("What is {w} in {l}?", "In {l}, {w} is {f}."),
            ("What is the {l} word for {w}?", "In {l}, {w} is {f}."),
        ]
    )
    return [(question.format(w=word, l=language), answer.format(w=word, l=language, f=foreign))]


def small_talk(rng: Rng) -> list[Exchange]:
    return [rng.choice(facts.SMALL_TALK)]


def unknown(rng: Rng) -> list[Exchange]:
    """Questions outside the lists get an honest refusal."""
    template = rng.choice(facts.UNKNOWN_QUESTIONS)
    topic = rng.choice(facts.UNKNOWN_TOPICS)
    return [(template.format(x=rng.choice(facts.UNKNOWN_ACTIONS), y=topic), facts.UNKNOWN)]
