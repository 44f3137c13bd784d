"""A gated feed-forward layer in two kernels, in place of transformers' module that computes the same.

Which modules those are is found out by trying: their linear layers have the usual names, and what stands between them
gives what the kernel gives. Used by `model_surgery`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ...kernels.gated_activation import ACTIVATIONS, GatedActivation
from ...kernels.int8_weight import Int8Rounding
from ...kernels.kernel_sequence import Buffer
from ...kernels.packed_linear import can_be_appended, pack_gated, pack_together
from ...kernels.thread_pool import ThreadPool
from .stand_ins import agree, probe_values, stand_ins
from .step_buffers import StepBuffers

INPUTS = (("gate_proj", "up_proj"), ("gate_up_proj",))
"""Names of the linear layers that make gate and up: two, or one whose output holds the gate first."""

OUTPUT = "down_proj"

PROBE_ROWS = 4


class GatedMLP(nn.Module):
    """`down(activation(gate(x)) * up(x))`."""

    def __init__(self, gated: nn.Module, down: nn.Module) -> None:
        """gated: x to `activation(gate(x)) * up(x)`."""
        super().__init__()
        self._gated = gated
        self._down = down

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """x [..., hidden_size] to the same shape; `residual` of that shape is added to the output."""
        return self._down(self._gated(x), residual)

    @property
    def can_be_appended(self) -> bool:
        return can_be_appended(self._gated) and can_be_appended(self._down)

    def append_to(self, x: Buffer, out: Buffer, residual: Buffer, buffers: StepBuffers) -> None:
        """Add what `forward` does to a sequence of kernels."""
        assert can_be_appended(self._gated)
        assert can_be_appended(self._down)
        gated = buffers.get("gated", self._gated.out_bytes)
        self._gated.append_to(buffers.sequence, x, gated)
        self._down.append_to(buffers.sequence, gated, out, residual)


@dataclass(frozen=True)
class RecognisedMLP:
    """The linear layers of a gated feed-forward layer, and the activation between them."""

    inputs: list[nn.Linear]
    activation: str
    output: nn.Linear


def fuse_mlp(module: nn.Module, threads: ThreadPool, rounding: Int8Rounding | None = None) -> GatedMLP | None:
    """The faster form of a gated feed-forward layer, or None where `module` is something else."""
    found = recognise_mlp(module, threads)
    if found is None:
        return None
    gated = pack_gated(found.inputs, found.activation, threads, rounding)
    down = pack_together([found.output], threads, rounding)
    return GatedMLP(gated, down) if gated is not None and down is not None else None


def recognise_mlp(module: nn.Module, threads: ThreadPool) -> RecognisedMLP | None:
    """What a gated feed-forward layer consists of, or None where `module` is something else."""
    children = dict(module.named_children())
    for names in INPUTS:
        inputs, output = [children.get(name) for name in names], children.get(OUTPUT)
        linears = [layer for layer in (*inputs, output) if type(layer) is nn.Linear]
        if len(linears) != len(names) + 1 or len(children) != len(linears) + 1:
            continue
        activation = _recognise(module, names, linears[0].in_features, linears[-1], threads)
        if activation is not None:
            return RecognisedMLP(linears[:-1], activation, linears[-1])
    return None


def _recognise(
    module: nn.Module, names: tuple[str, ...], hidden_size: int, output: nn.Linear, threads: ThreadPool
) -> str | None:
    """The activation with which the kernel gives what the module computes between its linear layers."""
    dtype, width = output.weight.dtype, output.in_features
    if dtype not in (torch.bfloat16, torch.float32):
        return None
    gate_and_up = probe_values(PROBE_ROWS, 2 * width, dtype=dtype, seed=0)
    outputs = dict(zip(names, gate_and_up.split(2 * width // len(names), -1), strict=True))
    try:
        with stand_ins(module, {**outputs, OUTPUT: None}):
            expected = module(torch.zeros(PROBE_ROWS, hidden_size, dtype=dtype))
    except Exception:  # whatever a module of another kind raises when its parts are not what it expects
        return None
    gate, up = gate_and_up.float().chunk(2, -1)
    results = ((name, GatedActivation(name, threads)(gate_and_up)) for name in ACTIVATIONS)
    return next((name for name, result in results if agree(result, expected, gate * up)), None)
