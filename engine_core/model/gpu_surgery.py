"""Faster parts for transformers' models on a GPU: what `model_surgery` does on a CPU, with Triton's kernels.

Layers are recognised while the model is still on the CPU, by the same trials as there; each new part takes its weights
to the device. What is not recognised stays as it is and follows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ...kernels.rms_norm import RMSNormKernel as CpuRMSNormKernel
from ...kernels.thread_pool import ThreadPool
from ...kernels.triton.gated_activation import GatedActivation
from ...kernels.triton.rms_norm import RMSNormKernel
from .attention import AttentionLayers
from .decoder_layer import fuse_decoder_layer
from .gated_mlp import GatedMLP, recognise_mlp
from .gpu_parts import GatedProduct, GpuRMSNorm, StackedLinear
from .model_surgery import children_of, norm_kernel, probe_calls
from .rotary_attention import RotaryAttention, recognise_attention
from .stand_ins import Call


def operate(model: nn.Module, attention: AttentionLayers, threads: ThreadPool, device: torch.device) -> None:
    """Replace what can be replaced in a model on the CPU that shall run on `device`, and take it there."""
    calls = probe_calls(model)
    for path, parent, name, module in children_of(model):
        part = _attention(module, calls[path], attention, threads, device) if path in calls else None
        part = part or _mlp(module, threads, device) or _norm(module, threads, device)
        if part is not None:
            setattr(parent, name, part)
    for path, parent, name, module in children_of(model):
        layer = fuse_decoder_layer(module, calls[path]) if path in calls else None
        if layer is not None:
            setattr(parent, name, layer)
    model.to(device)


def _attention(
    module: Any, call: Call, attention: AttentionLayers, threads: ThreadPool, device: torch.device
) -> RotaryAttention | None:
    found = recognise_attention(module, call, attention, lambda norm: norm_kernel(norm, threads))
    if found is None or not StackedLinear.can_stack(found.inputs):
        return None
    heads: Any = found.heads
    heads = replace(heads, query_norm=_on(device, heads.query_norm), key_norm=_on(device, heads.key_norm))
    project, output = StackedLinear(found.inputs, device), StackedLinear([found.output], device)
    return RotaryAttention(project, heads, attention, module.layer_idx, output)


def _mlp(module: nn.Module, threads: ThreadPool, device: torch.device) -> GatedMLP | None:
    found = recognise_mlp(module, threads)
    if found is None or not StackedLinear.can_stack(found.inputs):
        return None
    gated = GatedProduct(StackedLinear(found.inputs, device), GatedActivation(found.activation))
    return GatedMLP(gated, StackedLinear([found.output], device))


def _norm(module: nn.Module, threads: ThreadPool, device: torch.device) -> GpuRMSNorm | None:
    if not type(module).__name__.endswith("RMSNorm"):
        return None
    kernel = _on(device, norm_kernel(module, threads))
    return None if kernel is None else GpuRMSNorm(kernel)


def _on(device: torch.device, norm: CpuRMSNormKernel | None) -> RMSNormKernel | None:
    if norm is None:
        return None
    return RMSNormKernel(norm.weight.to(device), norm.eps, round_before_weight=norm.round_before_weight)
