"""A gated feed-forward layer in two kernels, in place of transformers' module that computes the same.

Which modules those are is found out by trying: their linear layers have the usual names, and what stands between them
gives what the kernel gives. Used by `model_surgery`.
"""

from __future__ import annotations

import torch
from torch import nn

from ...kernels.gated_activation import ACTIVATIONS, GatedActivation
from ...kernels.packed_linear import pack_gated, pack_together
from ...kernels.thread_pool import ThreadPool
from .stand_ins import agree, probe_values, stand_ins

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


def fuse_mlp(module: nn.Module, threads: ThreadPool) -> GatedMLP | None:
    """The faster form of a gated feed-forward layer, or None where `module` is something else."""
    children = dict(module.named_children())
    for names in INPUTS:
        inputs, output = [children.get(name) for name in names], children.get(OUTPUT)
        linears = [layer for layer in (*inputs, output) if type(layer) is nn.Linear]
        if len(linears) != len(names) + 1 or len(children) != len(linears) + 1:
            continue
        activation = _recognise(module, names, linears[0].in_features, linears[-1], threads)
        if activation is None:
            continue
        gated, down = pack_gated(linears[:-1], activation, threads), pack_together(linears[-1:], threads)
        if gated is not None and down is not None:
            return GatedMLP(gated, down)
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
