"""Embeddings of short texts beside sentence-transformers: texts a second, and how far the vectors are apart.

    python bench/embeddings.py MODEL --peer-python VENV/bin/python

MODEL is a directory of sentence-transformers; VENV is an environment that has that package. Both run as processes of
their own that take turns, round by round, so that what else the machine does meets both alike.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable

WORDS = ["the", "of", "and", "to", "in", "was", "for", "on", "that", "with", "people", "city", "world", "year", "state"]
WORDS += ["school", "during", "national", "film", "series", "game", "team", "north", "part", "number", "government"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--worker", choices=["zqserve", "sentence-transformers"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(encoder(args.worker, args.model), args.texts)
        return
    workers = {
        name: subprocess.Popen(
            [python, __file__, args.model, "--texts", str(args.texts), "--worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for name, python in (("zqserve", sys.executable), ("sentence-transformers", args.peer_python))
    }
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    vectors: dict[str, list[list[float]]] = {}
    for number in range(args.rounds + 1):
        for name, worker in workers.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            print("go", file=worker.stdin, flush=True)
            answer = json.loads(next(line for line in worker.stdout if line.startswith("{")))
            vectors[name] = answer["vectors"]
            if number:  # the first round warms up
                seconds[name].append(answer["seconds"])
    for worker in workers.values():
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait(30)
    for name, taken in seconds.items():
        median = sorted(taken)[len(taken) // 2]
        print(f"{name:22} {args.texts / median:7.0f} texts/s (median), {args.texts / min(taken):7.0f} (best round)")
    ratios = sorted(theirs / ours for ours, theirs in zip(*seconds.values(), strict=True))
    cosines = [sum(map(float.__mul__, a, b)) for a, b in zip(*vectors.values(), strict=True)]
    print(
        f"zqserve is {ratios[len(ratios) // 2]:.2f} times as fast (median of rounds); least cosine {min(cosines):.7f}"
    )


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
    main()
