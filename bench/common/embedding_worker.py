"""Turns texts into vectors, once for each line of standard input, and says how long that took.

A process of `embeddings.py`: `embedding_worker.py zqserve|sentence-transformers MODEL TEXTS`. It runs with the peer's
Python too, which has no zqserve.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable

WORDS = ["the", "of", "and", "to", "in", "was", "for", "on", "that", "with", "people", "city", "world", "year", "state"]
WORDS += ["school", "during", "national", "film", "series", "game", "team", "north", "part", "number", "government"]


def encoder(name: str, model: str) -> Callable[[list[str]], list[list[float]]]:
    """What turns texts into vectors."""
    if name == "zqserve":
        from zqserve import LLM

        llm = LLM(model)
        return lambda texts: [output.outputs.embedding for output in llm.embed(texts, use_tqdm=False)]
    from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]

    peer = SentenceTransformer(model, device="cpu")
    return lambda texts: peer.encode(texts).tolist()


def work(encode: Callable[[list[str]], list[list[float]]], count: int) -> None:
    """Embed once for each line of standard input."""
    generator = random.Random(3)
    texts = [" ".join(generator.choices(WORDS, k=generator.randint(4, 40))) + "." for _ in range(count)]
    for _ in sys.stdin:
        start = time.perf_counter()
        vectors = encode(texts)
        print(json.dumps({"seconds": time.perf_counter() - start, "vectors": vectors}), flush=True)


if __name__ == "__main__":
    work(encoder(sys.argv[1], sys.argv[2]), int(sys.argv[3]))
