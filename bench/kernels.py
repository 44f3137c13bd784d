"""The CPU kernels beside numpy and torch doing the same work in turns: GB/s, GFLOP/s, and the ratio of each.

    python -m bench kernels --dtype bfloat16 --threads 2

A kernel that reads much is held to what the machine can read (`read`: a sum over memory), one that multiplies much to
torch's matrix product. A ratio above 1 says that ours is faster than the other one of its row.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from zqserve.bench.common.picture import Panel
from zqserve.bench.common.report import Report, add_report_arguments, publish
from zqserve.kernels.attention_batch import make_batch
from zqserve.kernels.packed_linear import pack
from zqserve.kernels.paged_attention import PagedAttention
from zqserve.kernels.rms_norm import RMSNormKernel
from zqserve.kernels.sampling import SamplingKernel, SamplingRows
from zqserve.kernels.thread_pool import ThreadPool

HIDDEN, MLP, VOCAB = 1024, 3072, 32_000
HEADS, KV_HEADS, HEAD_DIM, BLOCK = 16, 8, 128, 16
READ_BYTES = 256 * 2**20
FLUSH_BYTES = 64 * 2**20
"""Read between two calls, so that no kernel finds its weights in the cache."""


@dataclass(frozen=True)
class Duel:
    """Two ways of doing one piece of work."""

    name: str
    ours: Callable[[], object]
    other_name: str
    other: Callable[[], object]
    work: float
    """Bytes read, or floating point operations."""
    unit: str


def main() -> None:
    """All kernels in turns with their counterparts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16", help="of weights and cache")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of both")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--context", type=int, default=1024, help="tokens in the cache, for attention")
    add_report_arguments(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    threads = ThreadPool(args.threads)
    dtype = getattr(torch, args.dtype)
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        for duel in _duels(dtype, threads, args.context):
            rows.append(_fight(duel, args.rounds))
    read = next(row["ours"] for row in rows if row["kernel"] == "read")
    for row in rows:
        if row["unit"] == "GB/s":
            row["of read"] = row["ours"] / read
    bars = {row["kernel"]: row["ratio"] for row in rows}
    title = f"Kernels in {args.dtype}, {args.threads} threads"
    publish(Report(title, rows, [Panel("Ours over the other", "times as fast", bars=bars)]), args)


def _duels(dtype: torch.dtype, threads: ThreadPool, context: int) -> Iterator[Duel]:
    torch.manual_seed(0)
    memory = torch.ones(READ_BYTES // 8, dtype=torch.int64)
    plain = memory.numpy()
    yield Duel("read", memory.sum, "numpy", plain.sum, READ_BYTES, "GB/s")
    for tokens in (1, 4, 32, 512):
        yield _linear(dtype, threads, tokens)
    for batch in (1, 16):
        yield _decode_attention(dtype, threads, batch, context)
    yield _prefill_attention(dtype, threads, context)
    for tokens in (1, 512):
        yield _norm(dtype, threads, tokens)
    for rows in (1, 32):
        yield _sampling(threads, rows)


def _linear(dtype: torch.dtype, threads: ThreadPool, tokens: int) -> Duel:
    weight = torch.randn(MLP, HIDDEN, dtype=dtype)
    x = torch.randn(tokens, HIDDEN, dtype=dtype)
    packed = pack(weight, None, threads)
    if packed is None:
        raise SystemExit(f"There is no packed form of {dtype} on this processor.")
    reads = tokens <= 4
    work = weight.numel() * weight.element_size() if reads else 2.0 * tokens * weight.numel()
    name = f"linear {HIDDEN}x{MLP}, {tokens} rows"
    return Duel(name, lambda: packed(x), "F.linear", lambda: functional.linear(x, weight), work, _unit(reads))


def _decode_attention(dtype: torch.dtype, threads: ThreadPool, batch: int, context: int) -> Duel:
    call, gathered = _attention(dtype, threads, batch, context, new=1)
    num_bytes = 2.0 * batch * context * KV_HEADS * HEAD_DIM * torch.tensor([], dtype=dtype).element_size()
    name = f"attention, {batch} x 1 behind {context}"
    return Duel(name, call, "SDPA, contiguous", gathered, num_bytes, "GB/s")


def _prefill_attention(dtype: torch.dtype, threads: ThreadPool, context: int) -> Duel:
    call, gathered = _attention(dtype, threads, 1, 0, new=context)
    operations = 4.0 * HEADS * HEAD_DIM * context * (context + 1) / 2
    return Duel(f"attention, {context} of a prompt", call, "SDPA, contiguous", gathered, operations, "GFLOP/s")


def _attention(
    dtype: torch.dtype, threads: ThreadPool, batch: int, context: int, *, new: int
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Ours over a paged cache, and torch's over tensors that lie in order already."""
    blocks = -(-(context + new) // BLOCK)
    table = np.random.default_rng(0).permutation(batch * blocks).astype(np.int32).reshape(batch, blocks)
    key_cache = torch.randn(batch * blocks, KV_HEADS, HEAD_DIM, BLOCK).to(dtype)
    value_cache = torch.randn(batch * blocks, KV_HEADS, BLOCK, HEAD_DIM).to(dtype)
    query = torch.randn(batch * new, HEADS, HEAD_DIM, dtype=dtype)
    key, value = (torch.randn(batch * new, KV_HEADS, HEAD_DIM, dtype=dtype) for _ in range(2))
    lens = np.full(batch, new, np.int32), np.full(batch, context, np.int32)
    step = make_batch(*lens, table, BLOCK, HEADS // KV_HEADS)
    kernel = PagedAttention(threads)
    queries = query.view(batch, new, HEADS, HEAD_DIM).transpose(1, 2)
    keys, values = (torch.randn(batch, KV_HEADS, context + new, HEAD_DIM, dtype=dtype) for _ in range(2))

    def contiguous() -> object:
        return functional.scaled_dot_product_attention(queries, keys, values, is_causal=new > 1, enable_gqa=True)

    return lambda: kernel(query, key, value, key_cache, value_cache, step, scale=HEAD_DIM**-0.5), contiguous


def _norm(dtype: torch.dtype, threads: ThreadPool, tokens: int) -> Duel:
    weight, x = torch.randn(HIDDEN), torch.randn(tokens, HIDDEN, dtype=dtype)
    kernel = RMSNormKernel(weight, 1e-6, round_before_weight=True, threads=threads)
    narrow = weight.to(dtype)
    work = 2.0 * x.numel() * x.element_size()
    return Duel(
        f"RMSNorm, {tokens} rows",
        lambda: kernel(x),
        "F.rms_norm",
        lambda: functional.rms_norm(x, (HIDDEN,), narrow, 1e-6),
        work,
        "GB/s",
    )


def _sampling(threads: ThreadPool, num_rows: int) -> Duel:
    """Top-p of a whole vocabulary, against torch's sort, softmax and multinomial."""
    logits = 4 * torch.randn(num_rows, VOCAB)
    kernel = SamplingKernel(VOCAB, threads)
    rows = SamplingRows(
        temperature=np.ones(num_rows, np.float32),
        top_k=np.zeros(num_rows, np.int64),
        top_p=np.full(num_rows, 0.95, np.float32),
        min_p=np.zeros(num_rows, np.float32),
        seed=np.arange(num_rows, dtype=np.int64),
        sample_index=np.zeros(num_rows, np.int64),
        position=np.zeros(num_rows, np.int64),
    )
    return Duel(
        f"top-p, {num_rows} rows of {VOCAB:,}",
        lambda: kernel.sample(logits, rows),
        "torch: sort",
        lambda: _torch_top_p(logits, 0.95),
        4.0 * logits.numel(),
        "GB/s",
    )


def _torch_top_p(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    probabilities, order = logits.softmax(-1).sort(-1, descending=True)
    probabilities[probabilities.cumsum(-1) - probabilities > top_p] = 0
    return order.gather(-1, probabilities.multinomial(1))


def _unit(reads: bool) -> str:
    return "GB/s" if reads else "GFLOP/s"


def _fight(duel: Duel, rounds: int) -> dict[str, Any]:
    """Both in turns; the median of the pairs' ratios is what stands where the machine is busy."""
    flush = np.ones(FLUSH_BYTES // 8)
    ours: list[float] = []
    other: list[float] = []
    for call in (duel.ours, duel.other):
        call()
    for _ in range(rounds):
        for call, seconds in ((duel.ours, ours), (duel.other, other)):
            flush.sum()
            started = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - started)
    return {
        "kernel": duel.name,
        "ours": duel.work / median(ours) / 1e9,
        "other": duel.work / median(other) / 1e9,
        "unit": duel.unit,
        "other one": duel.other_name,
        "ratio": median(b / a for a, b in zip(ours, other, strict=True)),
    }


if __name__ == "__main__":
    main()
