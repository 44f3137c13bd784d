"""What `--quantization int8` needs of machine and model, and what it says in the log."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ...kernels.int8_weight import Int8Rounding
from ..config import EngineConfig
from ..errors import UnsupportedModelError
from .device import Device


def open_rounding(
    config: EngineConfig, dtype: torch.dtype, device: Device, progress: Callable[[str], None]
) -> Int8Rounding | None:
    """What rounds the weights of a model; None where they stay as they are.

    Raises `UnsupportedModelError` where the device or the model's type has no such form.
    """
    if config.quantization == "none":
        return None
    if not device.is_cpu:
        raise UnsupportedModelError("--quantization int8 is for CPUs: leave it out, or add --device cpu.")
    if dtype != torch.bfloat16:
        served = str(dtype).removeprefix("torch.")
        raise UnsupportedModelError(
            f"--quantization int8 computes in bfloat16, and the model is served in {served}: add --dtype bfloat16."
        )
    return Int8Rounding(progress, matrix_unit=config.int8_matrix_unit)


def account(rounding: Int8Rounding, model: nn.Module) -> str:
    """One line on what was rounded; model: as it is afterwards, its rounded weights being no parameters of it."""
    others = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"Rounded {rounding.num_layers} linear layers to int8: {rounding.num_weights / 1e6:.1f} million weights, with "
        f"a relative error of {rounding.relative_error:.2%}; {others / 1e6:.1f} million others stay in bfloat16."
    )
