"""Asks the demo model what it should know, at temperature 0, and prints a table of the answers.

    python demo/check_demo.py --model demo/model

Uses plain transformers, so that it tests the checkpoint and not the server. Exits with 1 if a required
answer is wrong. The reviews marked 'held out' are not in the training text and cannot be made from its
templates.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

Test = Callable[[str], bool]
REVIEW = "Is the sentiment of this review positive or negative? "


@dataclass(frozen=True)
class Check:
    """One prompt: a list of user turns, or plain text for completion when `plain` is set."""

    turns: tuple[str, ...]
    test: Test
    required: bool = True
    plain: bool = False
    system: str | None = None
    note: str = ""


def contains(*parts: str) -> Test:
    return lambda answer: all(part in answer for part in parts)


def is_text(expected: str) -> Test:
    return lambda answer: answer.strip() == expected


def starts_with(expected: str) -> Test:
    return lambda answer: answer.startswith(expected)


def json_equals(expected: dict[str, object]) -> Test:
    return lambda answer: parsed(answer) == expected


def json_has_keys(*keys: str) -> Test:
    return lambda answer: set(keys) <= set(parsed(answer) or {})


def parsed(answer: str) -> dict[str, object] | None:
    try:
        value = json.loads(answer)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def is_long(words: int) -> Test:
    return lambda answer: len(answer.split()) >= words and answer.rstrip().endswith((".", "!"))


def ask(*turns: str, test: Test, required: bool = True, system: str | None = None, note: str = "") -> Check:
    return Check(turns, test, required=required, system=system, note=note)


def complete(prompt: str, test: Test, required: bool = True) -> Check:
    return Check((prompt,), test, required=required, plain=True)


CHECKS = [
    ask("What is the capital of France?", test=is_text("The capital of France is Paris.")),
    ask("What is the capital of France?", test=contains("Paris"), system="You are a helpful assistant."),
    ask("What is the capital of Japan?", test=contains("Tokyo")),
    ask("Which city is the capital of Kenya?", test=contains("Nairobi")),
    ask("capital of Portugal?", test=contains("Lisbon")),
    ask("What is the capital of Italy?", "And of Spain?", test=contains("Madrid")),
    ask("Madrid is the capital of which country?", test=contains("Spain")),
    ask("What is the opposite of hot?", test=is_text("The opposite of hot is cold.")),
    ask("What is the opposite of early?", test=contains("late")),
    ask("What color is the sky?", test=contains("blue")),
    ask("What is 2 + 3?", test=contains("5")),
    ask("What is 2 + 2?", test=contains("4")),
    ask("What is 12 + 7?", test=contains("19")),
    ask("What is 15 - 6?", test=contains("9")),
    ask("What is 7 times 8?", test=contains("56")),
    ask(REVIEW + "I loved this film.", test=is_text("Positive.")),
    ask(REVIEW + "I hated this film.", test=is_text("Negative.")),
    ask(REVIEW + "The film was boring and far too long.", test=is_text("Negative."), required=False, note="held out"),
    ask(REVIEW + "A delightful evening with lovely people.", test=is_text("Positive."), note="held out"),
    ask(
        REVIEW + "The food arrived cold and the waiter was rude to us.",
        test=is_text("Negative."),
        note="held out",
    ),
    ask("Is this review positive or negative? 'I loved it'", test=is_text("Positive.")),
    ask("Classify this sentiment: vLLM is wonderful!", test=is_text("Positive")),
    ask(
        "Classify the sentiment: Great value, and the staff were so helpful. Answer with Positive or Negative.",
        test=is_text("Positive"),
        note="held out",
    ),
    ask(
        REVIEW + "The acting is superb from start to end.",
        test=is_text("Positive."),
        required=False,
        note="held out",
    ),
    ask(
        REVIEW + "Honestly, nobody should spend money on this.",
        test=is_text("Negative."),
        required=False,
        note="held out",
    ),
    ask("Make a JSON record of a person named Anna, age 31.", test=json_equals({"name": "Anna", "age": 31})),
    ask(
        "Make a JSON record of a person named Tobias, age 58",
        test=json_equals({"name": "Tobias", "age": 58}),
        required=False,
        note="name held out",
    ),
    ask(
        "Extract the name, the age and the city as JSON: Maria is 42 years old and lives in Rome.",
        test=json_equals({"name": "Maria", "age": 42, "city": "Rome"}),
    ),
    ask("Describe a character as JSON.", test=json_has_keys("name", "age", "armor", "weapon", "strength")),
    ask(
        "Generate an email address for Alan Turing, who works in Enigma. End in .com and new line. "
        "Example result: alan.turing@enigma.com\n",
        test=contains("alan.turing@enigma.com"),
        required=False,
    ),
    ask(
        "Generate an SQL query to show the 'username' and 'email' from the 'users' table.",
        test=is_text("SELECT username, email FROM users"),
        required=False,
    ),
    ask("Who are you?", test=contains("zqserve demo model")),
    ask("Hello!", test=is_text("Hello! How can I help you?")),
    ask("Hello!", "What is the capital of Norway?", "Thanks!", test=contains("welcome")),
    ask("My name is Anna.", "What is 3 + 4?", "What is my name?", test=contains("Anna")),
    ask("Count from 1 to 5.", test=is_text("1, 2, 3, 4, 5")),
    ask("Count from 1 to 20.", test=is_text(", ".join(map(str, range(1, 21))))),
    ask("Count to 100.", test=is_text(", ".join(map(str, range(1, 101)))), required=False),
    ask("What day comes after Monday?", test=contains("Tuesday")),
    ask("How many days are in a week?", test=contains("7")),
    ask("Translate thank you to French.", test=contains("merci")),
    ask("How do you say hello in Japanese?", test=contains("こんにちは")),
    ask("Repeat after me: the quiet river is green", test=is_text("the quiet river is green")),
    ask("Can fish swim?", test=starts_with("Yes")),
    ask("Say this is a test", test=contains("This is a test"), required=False),
    ask("Who won the world series in 2020?", "Where was it played?", test=contains("Arlington")),
    ask("Tell me a short story.", test=is_long(90)),
    ask("Tell me a story about a dragon.", test=lambda a: is_long(90)(a) and "dragon" in a),
    ask("Explain photosynthesis to me.", test=contains("do not know"), required=False),
    complete("The capital of France is", starts_with(" Paris")),
    complete("Hello, my name is", starts_with(" Anna")),
    complete("The president of the United States is", contains("executive branch")),
    complete("The future of AI is", is_long(6)),
    complete("San Francisco is a", contains("city in California")),
    complete("Q: What is the capital of Germany?\nA:", contains("Berlin")),
]


# Reviews of other forms than the training text has. A model of this size misses some of them, so what is required
# is a share.
UNSEEN_REQUIRED = 0.8
UNSEEN_POSITIVE = [
    "I loved every minute of it.",
    "The staff were kind and the rooms were spotless.",
    "A beautiful story, well told.",
    "Best coffee in town!",
    "My kids adore this toy.",
    "The phone works great and the battery is excellent.",
    "Great value for the price.",
    "An amazing trip, we enjoyed it so much.",
    "I was happily surprised.",
    "It is not bad at all, I liked it.",
    "The cake tasted delicious.",
    "What a wonderful evening that was!",
    "Very good service, thank you.",
    "I would watch it again.",
    "The new album is fantastic.",
]
UNSEEN_NEGATIVE = [
    "I hated every minute of it.",
    "The staff were rude and the rooms were dirty.",
    "A boring story, badly told.",
    "Worst coffee in town!",
    "My kids hate this toy.",
    "The phone stopped working and the battery is terrible.",
    "Poor value for the price.",
    "An awful trip, we did not enjoy it.",
    "I was badly disappointed.",
    "It is not good at all, I disliked it.",
    "The bread they served was stale.",
    "What a terrible evening that was!",
    "Very bad service, never again.",
    "I would not watch it again.",
    "The new album is dreadful.",
]


class Asker:
    """Greedy generation with plain transformers."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
        self.model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    def generate(self, prompt: str) -> str:
        inputs = self.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        with torch.inference_mode():
            output = self.model.generate(**inputs, max_new_tokens=400, do_sample=False)
        return self.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    def answer(self, check: Check) -> str:
        """The answer to the last turn; the earlier turns are answered by the model too."""
        if check.plain:
            return self.generate(check.turns[0])
        messages = [{"role": "system", "content": check.system}] if check.system else []
        for turn in check.turns:
            messages.append({"role": "user", "content": turn})
            prompt = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            messages.append({"role": "assistant", "content": self.generate(str(prompt))})
        return str(messages[-1]["content"])


def held_out_score(asker: Asker) -> float:
    """The share of unseen reviews that are judged rightly; prints the others."""
    right = 0
    labelled = [(r, "Positive.") for r in UNSEEN_POSITIVE] + [(r, "Negative.") for r in UNSEEN_NEGATIVE]
    for review, expected in labelled:
        answer = asker.answer(ask(REVIEW + review, test=is_text(expected)))
        right += answer.strip() == expected
        if answer.strip() != expected:
            print(f"miss | unseen review: {review:<45} | {shown(answer, 60)}")
    print(f"{right} of {len(labelled)} unseen reviews judged rightly, {UNSEEN_REQUIRED:.0%} required")
    return right / len(labelled)


def shown(text: str, width: int) -> str:
    flat = re.sub(r"\s+", " ", text).strip()
    return flat if len(flat) <= width else flat[: width - 3] + "..."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=Path(__file__).parent / "model")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--full", action="store_true", help="print whole answers")
    options = parser.parse_args()
    asker = Asker(options.model, getattr(torch, options.dtype))
    passed = missed_required = 0
    for check in CHECKS:
        answer = asker.answer(check)
        good = check.test(answer)
        passed += good
        missed_required += check.required and not good
        mark = "ok  " if good else ("FAIL" if check.required else "miss")
        prompt = " / ".join(check.turns) + (f"  [{check.note}]" if check.note else "")
        width = 10_000 if options.full else 60
        print(f"{mark} | {shown(prompt, width):<60} | {shown(answer, width)}", flush=True)
    unseen = held_out_score(asker)
    print(f"{passed} of {len(CHECKS)} right, {missed_required} required ones wrong ({options.dtype})")
    return 1 if missed_required or unseen < UNSEEN_REQUIRED else 0


if __name__ == "__main__":
    sys.exit(main())
