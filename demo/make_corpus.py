"""Seeded generator of the text that the demo model is trained on.

Everything is made from the lists in corpus/facts.py; nothing is downloaded. A document is either a chat in ChatML
(corpus/conversations.py) or plain text (corpus/plain_texts.py), and ends with <|endoftext|>. The same seed gives the
same documents.

    python demo/make_corpus.py --count 20 --seed 0      # print twenty documents
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from corpus.conversations import conversation, render_chat
from corpus.plain_texts import plain_text
from corpus.wording import Rng

END_OF_TEXT = "<|endoftext|>"


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
