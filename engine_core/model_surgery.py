"""Faster parts for transformers' models on a CPU, put in place by what a module is and not by which model it is in.

Linear layers get packed weights, sibling projections of one input become one product, RMSNorms one kernel. Each new
part gives what the old one gave; a module that is not recognised stays as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..kernels.packed_linear import pack
from ..kernels.rms_norm import RMSNormKernel
from ..kernels.thread_pool import ThreadPool

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of projections that read the same input."""


def operate(model: nn.Module, threads: ThreadPool) -> None:
    """Replace what can be replaced in a model on the CPU. The old weights are given up as it goes."""
    merge_projections(model, threads)
    pack_linears(model, threads)
    replace_norms(model, threads)


def merge_projections(model: nn.Module, threads: ThreadPool) -> None:
    """Make one product of the siblings' weights; each sibling then returns its share of it."""
    for parent in list(model.modules()):
        for names in SIBLINGS:
            linears = [getattr(parent, name, None) for name in names]
            packed = _pack_together([linear for linear in linears if type(linear) is nn.Linear], len(names), threads)
            if packed is not None:
                product = SharedProduct(packed, [linear.out_features for linear in linears if linear is not None])
                for index, name in enumerate(names):
                    setattr(parent, name, ProjectionShare(product, index))


def pack_linears(model: nn.Module, threads: ThreadPool) -> None:
    """Pack each plain linear layer (and GPT-2's transposed kind)."""
    for parent, name, module in _children(model):
        if type(module) is nn.Linear:
            packed = pack(module.weight, module.bias, threads)
        elif type(module) is Conv1D:
            packed = pack(module.weight.t(), module.bias, threads)
        else:
            continue
        if packed is not None:
            setattr(parent, name, packed)


def replace_norms(model: nn.Module, threads: ThreadPool) -> None:
    """Replace each RMSNorm whose formula is one of the two known ones, found out by trying it."""
    for parent, name, module in _children(model):
        if type(module).__name__.endswith("RMSNorm"):
            norm = _fused_norm(module, threads)
            if norm is not None:
                setattr(parent, name, norm)


class SharedProduct:
    """The product of one input with the stacked weights of several projections, kept until each took its share."""

    def __init__(self, packed: nn.Module, sizes: list[int]) -> None:
        self._packed = packed
        self._sizes = sizes
        self._input: torch.Tensor | None = None
        self._shares: dict[int, torch.Tensor] = {}

    def share(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """Projection `index` of x [..., in_features]: [..., sizes[index]], a view of the stacked product."""
        if x is not self._input or index not in self._shares:
            self._input = x
            self._shares = dict(enumerate(self._packed(x).split(self._sizes, -1)))
        share = self._shares.pop(index)
        if not self._shares:
            self._input = None
        return share


class ProjectionShare(nn.Module):
    """One of the siblings of a `SharedProduct`."""

    def __init__(self, product: SharedProduct, index: int) -> None:
        super().__init__()
        self._product = product
        self._index = index

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._product.share(self._index, x)


class FusedRMSNorm(nn.Module):
    """An RMSNorm module around the kernel."""

    def __init__(self, kernel: RMSNormKernel) -> None:
        super().__init__()
        self._kernel = kernel

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self._kernel(hidden_states)


def _children(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """(parent, name, module) of every module below `model`, gathered before any is replaced."""
    found = [(parent, name, module) for parent in model.modules() for name, module in parent.named_children()]
    return iter(found)


def _pack_together(linears: list[nn.Linear], expected: int, threads: ThreadPool) -> nn.Module | None:
    if len(linears) != expected:
        return None
    first = linears[0]
    for linear in linears:
        same = linear.in_features == first.in_features and linear.weight.dtype == first.weight.dtype
        if not same or (linear.bias is None) != (first.bias is None):
            return None
    weight = torch.cat([linear.weight.detach() for linear in linears])
    bias = None if first.bias is None else torch.cat([linear.bias.detach() for linear in linears])
    return pack(weight, bias, threads)


def _fused_norm(module: nn.Module, threads: ThreadPool) -> FusedRMSNorm | None:
    """The kernel that gives the same as `module`, or None."""
    weight = getattr(module, "weight", None)
    names = ("variance_epsilon", "eps", "epsilon")
    eps = next((value for name in names if isinstance(value := getattr(module, name, None), float)), None)
    if weight is None or weight.dim() != 1 or eps is None or len(inspect.signature(module.forward).parameters) != 1:
        return None
    if weight.dtype not in (torch.bfloat16, torch.float32):
        return None
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, weight.numel(), generator=generator).to(weight.dtype)
    expected = module(x)
    if expected.dtype != x.dtype:
        return None
    best, fewest = None, x.numel() + 1
    for shifted, early in ((False, True), (False, False), (True, False), (True, True)):
        scale = weight.float() + 1.0 if shifted else weight
        kernel = RMSNormKernel(scale, eps, round_before_weight=early, threads=threads)
        result = kernel(x)
        different = int((result != expected).sum())
        if different < fewest and _agree(result, expected):
            best, fewest = kernel, different
    return None if best is None else FusedRMSNorm(best)


def _agree(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two results differ by no more than a unit in the last place here and there."""
    unit = 2.0**-7 if a.dtype == torch.bfloat16 else 2.0**-20
    return torch.allclose(a.float(), b.float(), rtol=unit, atol=1e-6)
