"""Short stories from a few patterns."""

from __future__ import annotations

from . import facts
from .wording import Exchange, Rng, capitalised

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
