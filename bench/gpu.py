"""What zqserve makes of a GPU: kernels checked, decode and prefill beside the chip's measured limits, engine, guided.

    python -m bench gpu [--json FILE] [--plot FILE]    # one CUDA GPU, no network, weights made up on the device
    python -m bench gpu --dry-run                      # no GPU: every section with tiny shapes in Triton's interpreter

The limits are measured first: the speed of a copy (bytes read and written) and of a large matrix product. A decode step
must read all weights and the keys and values of its sequences once: what that takes at the copy's speed is its floor. A
dry run shows that the script works; its speeds say nothing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zqserve.bench.common.picture import Panel
from zqserve.bench.common.report import Report, Row, add_report_arguments, publish

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    batches: tuple[int, ...]
    context_len: int
    decode_steps: int
    prompt_len: int
    num_prompts: int
    requests: int
    input_len: int
    output_len: int
    copy_bytes: int
    matrix: int
    vocab_size: int
    lens: list[tuple[int, int]]
    heads: dict[str, tuple[int, int, int]]


REAL = Sizes(
    batches=(1, 8, 64, 256),
    context_len=512,
    decode_steps=64,
    prompt_len=2048,
    num_prompts=4,
    requests=256,
    input_len=512,
    output_len=256,
    copy_bytes=4 << 30,
    matrix=8192,
    vocab_size=128_256,
    lens=[(700, 1), (0, 1), (5000, 1), (0, 333), (100, 200)],
    heads={"Llama-3.1-8B": (32, 8, 128), "Qwen3-0.6B": (16, 8, 128), "Gemma-2-9B": (16, 8, 256), "Phi-2": (32, 32, 80)},
)
TINY = Sizes(
    batches=(1, 3),
    context_len=20,
    decode_steps=2,
    prompt_len=24,
    num_prompts=2,
    requests=2,
    input_len=8,
    output_len=3,
    copy_bytes=1 << 20,
    matrix=64,
    vocab_size=600,
    lens=[(40, 1), (0, 1), (0, 20), (5, 9)],
    heads={"tiny": (4, 2, 16)},
)


def main() -> None:
    """Run all sections and publish one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU, in Triton's interpreter")
    parser.add_argument("--models", nargs="+", default=["Llama-3.1-8B", "Qwen3-0.6B"], metavar="NAME")
    add_report_arguments(parser)
    args = parser.parse_args()
    if args.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which is from here on
    import torch

    if not args.dry_run and not torch.cuda.is_available():
        raise SystemExit("There is no CUDA GPU here; python -m bench gpu --dry-run goes through the script without.")
    bench = GpuBench(TINY if args.dry_run else REAL, args.dry_run)
    bench.check_kernels()
    bench.measure_limits()
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models:
            bench.measure_model(name, Path(folder) / name)
        bench.measure_engine(args.models[-1], Path(folder) / "engine")
    title = "Dry run: the figures say nothing" if args.dry_run else f"zqserve on {torch.cuda.get_device_name()}"
    publish(Report(title, bench.rows, bench.panels()), args)


class GpuBench:
    """Runs the sections one after the other and gathers their rows."""

    def __init__(self, sizes: Sizes, dry_run: bool) -> None:
        import torch

        self._sizes = sizes
        self._dry_run = dry_run
        self._device = torch.device("cpu" if dry_run else "cuda")
        self._copy_speed = 0.0
        self._matmul_speed = 0.0
        self.rows: list[Row] = []

    def check_kernels(self) -> None:
        """Every kernel against float64; ends the bench where one is wrong."""
        import torch

        from zqserve.bench.common.gpu_checks import Checks

        major, minor = (8, 0) if self._dry_run else torch.cuda.get_device_capability()
        checks = Checks(self._device, torch.float32 if self._dry_run else torch.bfloat16, 10 * major + minor)
        for name, error in checks.all(self._sizes.heads, self._sizes.lens, self._sizes.vocab_size).items():
            self._add("kernel error", name, error, "of the largest", limit=checks.tolerance)
            if not error <= checks.tolerance:
                raise SystemExit(f"The kernel of {name} is wrong on this device: its error is {error:.2g}.")

    def measure_limits(self) -> None:
        """Bytes a second of a copy, and operations a second of a matrix product."""
        import torch

        dtype = torch.float32 if self._dry_run else torch.bfloat16
        source = torch.ones(self._sizes.copy_bytes, dtype=torch.uint8, device=self._device)
        target = torch.empty_like(source)
        self._copy_speed = 2 * source.numel() / self._seconds(lambda: target.copy_(source))
        self._add("limit", "copy", self._copy_speed / 1e9, "GB/s")
        size = self._sizes.matrix
        a, b = (torch.randn(size, size, device=self._device).to(dtype) for _ in range(2))
        self._matmul_speed = 2 * size**3 / self._seconds(lambda: a @ b)
        self._add("limit", "matrix product", self._matmul_speed / 1e12, "TFLOP/s")

    def measure_model(self, name: str, folder: Path) -> None:
        """Decode and prefill of one model, without an engine around it."""
        import torch

        from zqserve.bench.common.gpu_model import CONFIGS, TINY_CONFIGS, GpuModel, write_config

        sizes = self._sizes
        # Room for the steps that are timed, and for those before.
        longest = max(sizes.context_len + 4 * sizes.decode_steps + 16, sizes.prompt_len)
        started = time.perf_counter()
        config = (TINY_CONFIGS if self._dry_run else CONFIGS)[name]
        model = GpuModel.load(write_config(config, folder), longest, max(*sizes.batches, sizes.num_prompts))
        self._add("load", name, time.perf_counter() - started, "s")
        for batch in sizes.batches:
            tokens = torch.randint(3, config["vocab_size"], (batch,), device=self._device)
            with torch.inference_mode():
                steps = model.decode_steps(tokens, sizes.context_len)
                steps.run()  # compiles, and records the graph
                seconds = self._seconds(steps.run, sizes.decode_steps)
            needed = model.weight_bytes + batch * sizes.context_len * model.key_bytes
            floor = needed / self._copy_speed
            self._add("decode", f"{name}, batch {batch}", batch / seconds, "tok/s", limit=batch / floor)
        prompts = torch.randint(3, config["vocab_size"], (sizes.num_prompts, sizes.prompt_len), device=self._device)
        seconds = self._seconds(lambda: model.prefill(prompts))
        operations = _prefill_operations(config, model, sizes.num_prompts, sizes.prompt_len)
        self._add("prefill", name, operations / seconds / 1e12, "TFLOP/s", limit=self._matmul_speed / 1e12)

    def measure_engine(self, name: str, folder: Path) -> None:
        """Requests through the engine: seconds to ready, output tokens a second, guided beside free."""
        from zqserve.bench.common.gpu_model import CONFIGS, TINY_CONFIGS, write_config
        from zqserve.bench.guided_throughput import CASES, Batch, compare, run
        from zqserve.engine_core.config import EngineConfig
        from zqserve.engine_core.engine import build_engine_core

        sizes = self._sizes
        config = (TINY_CONFIGS if self._dry_run else CONFIGS)[name]
        started = time.perf_counter()
        core = build_engine_core(
            EngineConfig(
                model=str(write_config(config, folder)),
                tokenizer=str(ROOT / "demo" / "model"),
                device="cuda",
                load_format="dummy",
                num_blocks=64 if self._dry_run else None,
                max_num_seqs=min(256, sizes.requests),
                max_num_batched_tokens=32 if self._dry_run else 8192,
            ),
            progress=lambda line: None,
        )
        self._add("ready", f"engine, {name}", time.perf_counter() - started, "s")
        core.prepare_guided_decoding()
        prompts = [[3 + (7 * i + j) % 500 for j in range(sizes.input_len)] for i in range(sizes.requests)]
        batch = Batch(prompts, [2], sizes.requests, sizes.output_len)
        run(core, batch, None, seed=1)
        found = run(core, batch, None, seed=2)
        self._add("engine", f"{name}, {sizes.requests} requests", found.num_tokens / found.seconds, "output tok/s")
        row = compare(core, batch, CASES["numbers"], num_rounds=1 if self._dry_run else 3)
        self._add("guided", f"{name}, numbers", row["free/guided seconds"], "times the free speed", limit=1.0)

    def panels(self) -> list[Panel]:
        """A picture: decode beside its floor, and all shares of a limit."""
        decode = [row for row in self.rows if row["section"] == "decode"]
        shares = {f"{row['section']} {row['what']}": row["share"] for row in self.rows if row.get("share")}
        measured: dict[str, list[tuple[float, float]]] = {}
        for row in decode:
            model, _, batch = row["what"].partition(", batch ")
            measured.setdefault(model, []).append((int(batch), row["value"]))
            measured.setdefault(f"{model}, floor", []).append((int(batch), row["limit"]))
        return [
            Panel("Decode", "tokens a second", "batch", lines=measured, log_x=True),
            Panel("Share of the limit", "share", bars=shares),
        ]

    def _add(self, section: str, what: str, value: float, unit: str, limit: float | None = None) -> None:
        row = {"section": section, "what": what, "value": value, "unit": unit, "limit": limit}
        if limit and section != "kernel error":
            row["share"] = value / limit
        self.rows.append(row)
        print(f"{section}: {what}: {value:.4g} {unit}", flush=True)

    def _seconds(self, function: Callable[[], Any], repeats: int = 10) -> float:
        """Of one call, the mean of `repeats` behind two that are not counted."""
        import torch

        repeats = min(repeats, 2) if self._dry_run else repeats
        for _ in range(1 if self._dry_run else 2):
            function()
        self._wait(torch)
        started = time.perf_counter()
        for _ in range(repeats):
            function()
        self._wait(torch)
        return (time.perf_counter() - started) / repeats

    def _wait(self, torch: Any) -> None:
        if not self._dry_run:
            torch.cuda.synchronize()


def _prefill_operations(config: dict[str, Any], model: Any, num_prompts: int, length: int) -> float:
    """Of the layers' products and of attention, where a token meets half of the others on the average."""
    embeddings = model.loaded.model.get_input_embeddings().weight.numel()
    layers = sum(weight.numel() for weight in model.loaded.model.parameters()) - embeddings
    if not config.get("tie_word_embeddings"):
        layers -= embeddings
    shapes = model.loaded.attention.geometry.values()
    attention = sum(s.num_heads * (s.head_dim + s.value_dim) for s in shapes) * length
    return num_prompts * length * (2.0 * layers + attention)


if __name__ == "__main__":
    main()
