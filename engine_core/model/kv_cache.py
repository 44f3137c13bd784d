"""Sizes and makes the tensors of the paged KV cache."""

from __future__ import annotations

import numpy as np
import torch

from ...kernels.simd import LANES
from ..config import EngineConfig
from .attention import LayerGeometry
from .device import Device

MAX_DEFAULT_CPU_BYTES = 4 << 30
"""On a CPU the cache shares the memory with everything else: more is taken only when asked for."""


def cache_dtype(model_dtype: torch.dtype, device: Device) -> torch.dtype:
    """What keys and values are stored as: the model's dtype, but float32 for float16 on a CPU (its kernels know
    bfloat16 and float32).
    """
    if device.is_cpu and model_dtype not in (torch.bfloat16, torch.float32):
        return torch.float32
    return model_dtype


def block_bytes(geometry: dict[int, LayerGeometry], block_size: int, dtype: torch.dtype) -> int:
    """Bytes of one block over all layers."""
    values = sum(layer.num_kv_heads * (layer.head_dim + _padded(layer.value_dim)) for layer in geometry.values())
    return values * block_size * dtype.itemsize


def num_blocks(config: EngineConfig, device: Device, bytes_per_block: int, max_model_len: int) -> int:
    """How many blocks to make: as configured, or as free memory and the largest possible load allow.

    Raises ValueError when not even one block fits, or when the blocks are of a size that the kernels do not know.
    """
    if config.block_size < LANES or config.block_size % LANES:
        raise ValueError(f"block_size must be a multiple of {LANES}, got {config.block_size}.")
    if config.num_blocks is not None:
        return config.num_blocks
    if config.kv_cache_memory_bytes is not None:
        count = config.kv_cache_memory_bytes // bytes_per_block
    else:
        free = device.free_memory()
        if device.is_cpu:
            free = min(free, MAX_DEFAULT_CPU_BYTES)
        most_useful = config.max_num_seqs * -(-max_model_len // config.block_size)
        count = min(free // bytes_per_block, most_useful)
    if count < 1:
        raise ValueError(
            f"The KV cache has no room for one block of {config.block_size} tokens ({bytes_per_block} bytes); "
            "give it more with --kv-cache-memory."
        )
    return count


def make_caches(
    geometry: dict[int, LayerGeometry], count: int, block_size: int, dtype: torch.dtype, device: Device
) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Key and value cache of each layer, as the device's `paged_attention` lays them out."""
    caches = {}
    for layer, shape in geometry.items():
        if device.is_cpu:
            key_shape = (count, shape.num_kv_heads, shape.head_dim, block_size)
            value_shape = (count, shape.num_kv_heads, block_size, _padded(shape.value_dim))
        else:
            key_shape = (count, shape.num_kv_heads, block_size, shape.head_dim)
            value_shape = (count, shape.num_kv_heads, block_size, shape.value_dim)
        caches[layer] = (
            _zeros(key_shape, dtype, device),
            _zeros(value_shape, dtype, device),
        )
    return caches


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: Device) -> torch.Tensor:
    """A zeroed tensor; on a CPU its pages take memory only once they are written (torch.zeros would write them all)."""
    if not device.is_cpu:
        return torch.zeros(shape, dtype=dtype, device=device.torch_device)
    bits = np.zeros(shape, np.int16 if dtype.itemsize == 2 else np.int32)
    return torch.from_numpy(bits).view(dtype)


def _padded(value_dim: int) -> int:
    return -(-value_dim // LANES) * LANES
