"""Seeded generator of the text that the demo model is trained on.

Everything is made from the lists in facts.py; nothing is downloaded. A document is either a chat in ChatML or
plain text, and ends with <|endoftext|>. The same seed gives the same documents.

    python demo/make_corpus.py --count 20 --seed 0      # print twenty documents
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Callable, Iterator

import facts

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"

Rng = random.Random
Exchange = tuple[str, str]  # what the user says, what the assistant answers
Task = Callable[[Rng], list[Exchange]]

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


# --- Facts --------------------------------------------------------------------------------------------------


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


# --- Numbers ------------------------------------------------------------------------------------------------


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


# --- Sentiment ----------------------------------------------------------------------------------------------


def sentiment_sentence(rng: Rng, positive: bool) -> str:
    """One sentence with a side: an adjective of that side, or a negated one of the other, or a set phrase."""
    mine = facts.GOOD_ADJECTIVES if positive else facts.BAD_ADJECTIVES
    other = facts.BAD_ADJECTIVES if positive else facts.GOOD_ADJECTIVES
    noun = rng.choice(facts.THINGS)
    thing = rng.choice(["the ", "the ", "this ", "my ", "that ", "our "]) + noun
    fill = {
        "t": thing,
        "T": capitalised(thing),
        "n": noun,
        "m": rng.choice(facts.THINGS),
        "a": rng.choice(mine),
        "b": rng.choice(mine),
    }
    if rng.random() < 0.05:  # a proper name, as in 'vLLM is wonderful'
        fill["t"] = fill["T"] = rng.choice(["vLLM", "zqserve", "It", "London", person_name(rng)])
    roll = rng.random()
    if roll < 0.45:
        text = rng.choice(facts.ADJECTIVE_SENTENCES)
    elif roll < 0.55:
        text = rng.choice(["{T} was not {a}", "{T} is not {a}", "It was not {a}", "{T} wasn't {a} at all", "Not {a}"])
        fill["a"] = rng.choice(other)
    else:
        text = rng.choice(facts.GOOD_SENTENCES if positive else facts.BAD_SENTENCES)
    return repaired_articles(capitalised(text.format(**fill)))


def review(rng: Rng, positive: bool) -> str:
    """One to three sentences of one side, with a neutral one among them at times."""
    sentences = [sentiment_sentence(rng, positive) for _ in range(rng.choice([1, 1, 1, 2, 2, 3]))]
    if rng.random() < 0.2:
        sentences.insert(rng.randrange(len(sentences) + 1), rng.choice(facts.NEUTRAL_TAILS))
    text = " ".join(sentence + rng.choice([".", ".", ".", "!"]) for sentence in sentences)
    roll = rng.random()
    if roll < 0.1:
        return text.lower()
    return text.rstrip(".") if roll < 0.25 else text


# The question with {r} for the review, and the form of the answer for a positive one.
SENTIMENT_QUESTIONS = [
    ("Is the sentiment of this review positive or negative? {r}", "Positive."),
    ("Is the sentiment of this review positive or negative? {r}", "Positive."),
    ("Is this review positive or negative? {r}", "Positive."),
    ("Is this review positive or negative? '{r}'", "Positive."),
    ('Is this review positive or negative? "{r}"', "Positive."),
    ("Is this positive or negative: {r}", "Positive."),
    ("Is this sentence positive or negative? {r}", "Positive."),
    ("Is the following text positive or negative?\n{r}", "Positive."),
    ("What is the sentiment of this review? {r}", "The sentiment is positive."),
    ("What is the sentiment of this sentence: '{r}'", "The sentiment is positive."),
    ('What is the sentiment of "{r}"?', "The sentiment is positive."),
    ("Classify the sentiment: {r}", "Positive"),
    ("Classify this sentiment: {r}", "Positive"),
    ("Classify the sentiment of this text: {r}", "Positive"),
    ("Classify the sentiment: {r} Answer with Positive or Negative.", "Positive"),
    ("Classify the sentiment as positive or negative: {r}", "Positive"),
    ("Answer with Positive or Negative. {r}", "Positive"),
    ("{r} Is this review positive or negative?", "Positive."),
    ("{r}\nIs this review positive or negative?", "Positive."),
    ("Review: {r}\nSentiment:", "Positive"),
    ("Review: {r} Is the sentiment positive or negative?", "Positive."),
    ("Answer with one word, positive or negative: {r}", "positive"),
    ("Sentiment of this review in one word, positive or negative: {r}", "positive"),
]


def sentiment(rng: Rng) -> list[Exchange]:
    if rng.random() < 0.05:
        return [neutral_sentiment(rng)]
    positive = rng.random() < 0.5
    question, answer = rng.choice(SENTIMENT_QUESTIONS)
    if not positive:
        answer = answer.replace("Positive", "Negative").replace("positive", "negative")
    return [(question.format(r=review(rng, positive)), answer)]


def neutral_sentiment(rng: Rng) -> Exchange:
    """Only a question that offers 'neutral' gets that answer."""
    noun = rng.choice(facts.THINGS)
    text = rng.choice(facts.NEUTRAL_SENTENCES).format(n=noun, t="the " + noun, T="The " + noun)
    label = "Neutral"
    if rng.random() < 0.6:
        positive = rng.random() < 0.5
        text, label = sentiment_sentence(rng, positive), "Positive" if positive else "Negative"
    return f"Classify the text into neutral, negative or positive. Text: {text}.\nSentiment:", label


# --- Structured text ----------------------------------------------------------------------------------------


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


# --- Stories ------------------------------------------------------------------------------------------------

PLACES = [
    "in a deep forest",
    "by the sea",
    "on a high hill",
    "in a small village",
    "near a quiet lake",
    "in an old castle",
    "at the edge of a big city",
]
WISHES = [
    "wanted to see the world",
    "was looking for a friend",
    "wanted to find a golden key",
    "dreamed of flying to the moon",
    "had lost a red hat",
    "wanted to learn to sing",
    "was looking for the way home",
]
MEETINGS = [
    "an old owl",
    "a little mouse",
    "a friendly bear",
    "a wise turtle",
    "a singing bird",
    "a tired traveller",
]
TROUBLES = [
    "a great storm came over the land",
    "the bridge over the river was broken",
    "the night fell and it was dark",
    "a high wall stood in the way",
    "the road split in two",
]
ENDINGS = [
    "they sat by a warm fire and told each other stories until the morning",
    "they went home together and everyone in the village was happy",
    "they shared bread and apples under a sky full of stars",
    "they laughed, and from that day they were the best of friends",
]
MORALS = [
    "And that is how {S} learned that a friend is worth more than gold.",
    "And {S} was never alone again.",
    "And they all lived happily ever after.",
]


def story(subject: str) -> str:
    """The story of a subject: always the same one, so that it stands out at temperature 0."""
    pick = Rng("story of " + subject)
    hero = "the " + subject.split(" ", 1)[1]
    friend = pick.choice(MEETINGS)
    helper = "the " + friend.split(" ", 1)[1]
    return " ".join(
        [
            f"Once upon a time there was {subject} who lived {pick.choice(PLACES)}.",
            f"{capitalised(hero)} {pick.choice(WISHES)}.",
            f"One day {hero} left home and walked for a long time.",
            f"On the way {hero} met {friend}.",
            f'"Where are you going?" asked {helper}.',
            f'"Come with me and you will see," said {hero}.',
            "So they went on together.",
            f"Then {pick.choice(TROUBLES)}.",
            f'{capitalised(hero)} was afraid, but {helper} said: "Do not worry. We can do it together."',
            "They helped each other, and at last they found what they were looking for.",
            f"In the evening {pick.choice(ENDINGS)}.",
            pick.choice(MORALS).format(S=hero),
        ]
    )


def bedtime_sentence(subject: str) -> str:
    pick = Rng("bedtime of " + subject)
    place = pick.choice(PLACES)
    return f"Once upon a time {subject} who lived {place} found a star, made a wish and fell asleep."


def stories(rng: Rng) -> list[Exchange]:
    if rng.random() < 0.35:
        question = rng.choice(
            [
                "Tell me a short story.",
                "Tell me a story.",
                "Tell me a short story",
                "Write a short story.",
                "Write a story.",
                "tell me a story",
                "Can you tell me a story?",
            ]
        )
        return [(question, story("a fox"))]
    subject = rng.choice(facts.SUBJECTS)
    if rng.random() < 0.2:
        return [(f"Write a one-sentence bedtime story about {subject}.", bedtime_sentence(subject))]
    question = rng.choice(
        [
            "Tell me a story about {}.",
            "Tell me a short story about {}.",
            "Write a short story about {}.",
            "Write a story about {}.",
        ]
    )
    return [(question.format(subject), story(subject))]


# --- Conversations ------------------------------------------------------------------------------------------

SINGLE_FACT_TASKS: list[Task] = [capitals, opposites, colours, arithmetic, yes_no, calendar]

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


# --- Plain text ---------------------------------------------------------------------------------------------


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


def documents(seed: int) -> Iterator[str]:
    """An endless stream of documents, each ending with <|endoftext|>."""
    rng = Rng(seed)
    while True:
        text = render_chat(conversation(rng)) if rng.random() < 0.85 else plain_text(rng)
        yield text + END_OF_TEXT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=20, help="number of documents to print")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for _, text in zip(range(options.count), documents(options.seed), strict=False):
        print(text)


if __name__ == "__main__":
    main()
