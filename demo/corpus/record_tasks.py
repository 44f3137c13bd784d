"""Structured answers (records as JSON, e-mail addresses, SQL) and copying."""

from __future__ import annotations

import json

from . import facts
from .wording import Exchange, Rng, capitalised, person_name, skewed_choice, synthetic_name


def person_record(rng: Rng) -> list[Exchange]:
    name, age = person_name(rng), rng.randint(1, 99)
    record: dict[str, object] = {"name": name, "age": age}
    question = rng.choice(
        [
            f"Make a JSON record of a person named {name}, age {age}.",
            f"Make a JSON record of a person named {name}, age {age}",
            f"Make a JSON record for {name}, who is {age} years old.",
            f"Give me a JSON object with name {name} and age {age}.",
            f"Return JSON with the keys name and age for {name}, {age}.",
            f"Convert to JSON: name {name}, age {age}",
            f"Extract the name and the age as JSON: {name} is {age} years old.",
            f"Write a JSON record: {name}, {age} years old.",
        ]
    )
    roll = rng.random()
    if roll < 0.2:
        city = rng.choice(facts.CITIES)
        record["city"] = city
        question = rng.choice(
            [
                f"Make a JSON record of a person named {name}, age {age}, from {city}.",
                f"Convert to JSON: name {name}, age {age}, city {city}",
                f"Extract the name, the age and the city as JSON: {name} is {age} years old and lives in {city}.",
            ]
        )
    elif roll < 0.35:
        job = rng.choice(facts.JOBS)
        record["job"] = job
        question = rng.choice(
            [
                f"Make a JSON record of a person named {name}, age {age}, job {job}.",
                f"Convert to JSON: name {name}, age {age}, job {job}",
            ]
        )
    return [(question, json.dumps(record))]


def any_person_record(rng: Rng) -> list[Exchange]:
    """No values are given: the model makes them up."""
    question = rng.choice(
        [
            "Make a JSON record of a person.",
            "Give me a JSON object with a name and an age.",
            "Generate a JSON record of a person with name and age.",
            "Describe a person as JSON.",
        ]
    )
    record = {"name": skewed_choice(rng, facts.NAMES[:6]), "age": skewed_choice(rng, [31, 24, 42, 57])}
    return [(question, json.dumps(record))]


def character_record(rng: Rng) -> list[Exchange]:
    question = rng.choice(
        [
            "Describe a character as JSON.",
            "Generate a character as JSON.",
            "Make a JSON record of a game character.",
            "Give me a character description as JSON.",
            "Describe a character as JSON with name, age, armor, weapon and strength.",
        ]
    )
    record = {
        "name": skewed_choice(rng, ["Arthur", "Brenna", "Conan", "Freya", "Gareth"]),
        "age": skewed_choice(rng, [32, 27, 45, 61]),
        "armor": skewed_choice(rng, facts.ARMOR),
        "weapon": skewed_choice(rng, facts.WEAPONS),
        "strength": skewed_choice(rng, [12, 15, 8, 18]),
    }
    return [(question, json.dumps(record))]


def car_record(rng: Rng) -> list[Exchange]:
    question = rng.choice(
        [
            "Generate a JSON with the brand, model and car_type of the most iconic car from the 90's",
            "Make a JSON record of a car with brand, model and car_type.",
            "Describe a car as JSON.",
        ]
    )
    brand, model, car_type = skewed_choice(rng, facts.CARS)
    return [(question, json.dumps({"brand": brand, "model": model, "car_type": car_type}))]


def email_address(rng: Rng) -> list[Exchange]:
    first, last, company = rng.choice(facts.NAMES), rng.choice(facts.SURNAMES), rng.choice(facts.COMPANIES)
    address = f"{first}.{last}@{company}.com".lower()
    question = rng.choice(
        [
            f"Generate an email address for {first} {last}, who works at {company}.",
            f"Generate an example email address for {first} {last}, who works at {company}.",
            f"Generate an email address for {first} {last}, who works in {company}. "
            "End in .com and new line. Example result: alan.turing@enigma.com\n",
            f"Make an email address for {first} {last} at {company}.",
        ]
    )
    return [(question, address)]


def sql_query(rng: Rng) -> list[Exchange]:
    columns = rng.sample(facts.COLUMNS, rng.choice([1, 2, 2, 3]))
    table = rng.choice(facts.TABLES)
    quoted = [f"'{column}'" for column in columns]
    listed = quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " and " + quoted[-1]
    question = f"{rng.choice(['Generate', 'Write'])} an SQL query to show the {listed} from the '{table}' table."
    return [(question, f"SELECT {', '.join(columns)} FROM {table}")]


def copying(rng: Rng) -> list[Exchange]:
    roll = rng.random()
    if roll < 0.2:
        word = rng.choice(facts.COPY_WORDS)
        times = rng.randint(2, 5)
        return [(f"Write the word {word} {times} times.", " ".join([word] * times))]
    words = [rng.choice(facts.COPY_WORDS) for _ in range(rng.randint(1, 7))]
    if rng.random() < 0.25:
        words[rng.randrange(len(words))] = synthetic_name(rng)
    if rng.random() < 0.15:
        words[rng.randrange(len(words))] = str(rng.randint(0, 999))
    phrase = " ".join(words)
    phrase = capitalised(phrase) + rng.choice([".", "!", ""]) if rng.random() < 0.4 else phrase
    question = rng.choice(
        [
            "Repeat after me: {}",
            "Repeat after me: {}",
            "Repeat: {}",
            "Say: {}",
            "Repeat this: {}",
            "Copy this text: {}",
        ]
    )
    return [(question.format(phrase), phrase)]
