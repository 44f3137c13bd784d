"""Reviews, and the question whether they are positive."""

from __future__ import annotations

from . import facts
from .wording import Exchange, Rng, capitalised, person_name, repaired_articles


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
