"""Faster parts for transformers' models on a CPU, put in place by what a module is and not by which model it is in.

Linear layers get packed weights, sibling projections of one input become one product, RMSNorms one kernel. Each new
part gives what the old one gave, but for the rounding of weights where that is asked for; a module that is not
recognised stays as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ...kernels.int8_weight import Int8Rounding
from ...kernels.packed_linear import pack, pack_together
from ...kernels.rms_norm import RMSNormKernel
from ...kernels.thread_pool import ThreadPool
from .attention import AttentionLayers
from .decoder_layer import ATTENTION, fuse_decoder_layer
from .fused_norm import FusedRMSNorm
from .gated_mlp import fuse_mlp
from .rotary_attention import OUTPUTS, PROBE_TOKENS, fuse_attention
from .stand_ins import Call, agree, observed_calls

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of projections that read the same input."""


def operate(
    model: nn.Module, attention: AttentionLayers, threads: ThreadPool, rounding: Int8Rounding | None = None
) -> None:
    """Replace what can be replaced in a model on the CPU. The old weights are given up as it goes.

    With `rounding` the weights of linear layers become int8.
    """
    calls = probe_calls(model)
    fuse_attentions(model, calls, attention, threads, rounding)
    fuse_mlps(model, threads, rounding)
    merge_projections(model, threads, rounding)
    pack_linears(model, threads, rounding)
    replace_norms(model, threads)
    fuse_decoder_layers(model, calls)


def fuse_attentions(
    model: nn.Module,
    calls: Mapping[str, Call],
    attention: AttentionLayers,
    threads: ThreadPool,
    rounding: Int8Rounding | None,
) -> None:
    """Replace each attention layer with rotary embedding. `calls`: how the model calls its modules, by their names."""
    for path, parent, name, module in children_of(model):
        if path in calls:
            fused = fuse_attention(
                module, calls[path], attention, lambda norm: norm_kernel(norm, threads), threads, rounding
            )
            if fused is not None:
                setattr(parent, name, fused)


def fuse_mlps(model: nn.Module, threads: ThreadPool, rounding: Int8Rounding | None) -> None:
    """Replace each gated feed-forward layer."""
    for _, parent, name, module in children_of(model):
        mlp = fuse_mlp(module, threads, rounding)
        if mlp is not None:
            setattr(parent, name, mlp)


def fuse_decoder_layers(model: nn.Module, calls: Mapping[str, Call]) -> None:
    """Replace each decoder layer whose attention and MLP have been fused before. `calls` as in `fuse_attentions`."""
    for path, parent, name, module in children_of(model):
        if path in calls:
            fused = fuse_decoder_layer(module, calls[path])
            if fused is not None:
                setattr(parent, name, fused)


def merge_projections(model: nn.Module, threads: ThreadPool, rounding: Int8Rounding | None) -> None:
    """Make one product of the siblings' weights; each sibling then returns its share of it."""
    for _, _, _, parent in children_of(model):
        for names in SIBLINGS:
            linears = [getattr(parent, name, None) for name in names]
            plain = [linear for linear in linears if type(linear) is nn.Linear]
            packed = pack_together(plain, threads, rounding) if len(plain) == len(names) else None
            if packed is not None:
                product = SharedProduct(packed, [linear.out_features for linear in plain])
                for index, name in enumerate(names):
                    setattr(parent, name, ProjectionShare(product, index))


def pack_linears(model: nn.Module, threads: ThreadPool, rounding: Int8Rounding | None) -> None:
    """Pack each plain linear layer (and GPT-2's transposed kind)."""
    for _, parent, name, module in children_of(model):
        if type(module) is nn.Linear:
            packed = pack(module.weight, module.bias, threads, rounding)
        elif type(module) is Conv1D:
            packed = pack(module.weight.t(), module.bias, threads, rounding)
        else:
            continue
        if packed is not None:
            setattr(parent, name, packed)


def replace_norms(model: nn.Module, threads: ThreadPool) -> None:
    """Replace each RMSNorm whose formula is one of the two known ones, found out by trying it."""
    for _, parent, name, module in children_of(model):
        if type(module).__name__.endswith("RMSNorm"):
            kernel = norm_kernel(module, threads)
            if kernel is not None:
                setattr(parent, name, FusedRMSNorm(kernel))


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


def probe_calls(model: nn.Module) -> dict[str, Call]:
    """How the model calls its attention and decoder layers, by their names."""
    tokens = torch.arange(PROBE_TOKENS)[None]
    with torch.inference_mode(), observed_calls(model, {*OUTPUTS, ATTENTION}) as calls:
        model(input_ids=torch.zeros_like(tokens), position_ids=tokens, use_cache=False)
    return {path: calls[module] for path, module in model.named_modules() if module in calls}


def children_of(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module, str, nn.Module]]:
    """(path, parent, name, child) of every module below `module`, each before its own children.

    A child may be replaced when it comes; it is not kept alive beyond that, nor are its weights.
    """
    for name, _ in list(module.named_children()):
        yield prefix + name, module, name, getattr(module, name)
        yield from children_of(getattr(module, name), f"{prefix}{name}.")


def norm_kernel(module: nn.Module, threads: ThreadPool) -> RMSNormKernel | None:
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
        if different < fewest and agree(result, expected):
            best, fewest = kernel, different
    return best
