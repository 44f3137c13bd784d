"""Embeddings of short texts beside sentence-transformers: texts a second, and how far the vectors are apart.

    python bench/embeddings.py MODEL --peer-python VENV/bin/python

MODEL is a directory of sentence-transformers; VENV is an environment that has that package. Both run as processes of
their own that take turns, round by round, so that what else the machine does meets both alike.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

from zqserve.bench.common.picture import Panel
from zqserve.bench.common.report import Report, add_report_arguments, publish

WORKER = Path(__file__).parent / "common" / "embedding_worker.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    add_report_arguments(parser)
    args = parser.parse_args()
    workers = {
        name: subprocess.Popen(
            [python, str(WORKER), name, args.model, str(args.texts)],
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
    rows = [
        {"engine": name, "texts/s (median)": args.texts / median(taken), "texts/s (best)": args.texts / min(taken)}
        for name, taken in seconds.items()
    ]
    ratio = median(theirs / ours for ours, theirs in zip(*seconds.values(), strict=True))
    least = min(sum(map(float.__mul__, a, b)) for a, b in zip(*vectors.values(), strict=True))
    note = f"zqserve is {ratio:.2f} times as fast (median of rounds); least cosine {least:.7f}"
    panel = Panel("Embeddings", "texts a second", bars={row["engine"]: row["texts/s (median)"] for row in rows})
    publish(Report(f"Embeddings of {args.texts} texts", rows, [panel], [note]), args)


if __name__ == "__main__":
    main()
