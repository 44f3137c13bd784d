"""RMSNorm on a GPU, alone or with the residual added before: `rms_norm`'s twin, a program a row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .launch import Launch, next_power_of_2


class RMSNormKernel:
    """`y = x / sqrt(mean(x²) + eps) * weight` over the last dimension, computed in float32; see the CPU's."""

    def __init__(self, weight: torch.Tensor, eps: float, *, round_before_weight: bool) -> None:
        self.weight = weight.detach().to(torch.float32).contiguous()
        self.eps = eps
        self.round_before_weight = round_before_weight

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., size] to the same shape and dtype."""
        x = x.contiguous()
        out = torch.empty_like(x)
        self.launch(out, None, x, None).run()
        return out

    def add(self, x: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The norm of `x + residual`, and that sum, rounded to their dtype."""
        x, residual = x.contiguous(), residual.contiguous()
        out, total = torch.empty_like(x), torch.empty_like(x)
        self.launch(out, total, x, residual).run()
        return out, total

    def launch(
        self, out: torch.Tensor, total: torch.Tensor | None, x: torch.Tensor, residual: torch.Tensor | None
    ) -> Launch:
        """All contiguous [..., size]; `total` is written where there is a residual."""
        size = self.weight.numel()
        block = next_power_of_2(size)
        return Launch(
            rms_norm_kernel,
            (x.numel() // size,),
            {"out": out, "total": total, "x": x, "residual": residual, "weight": self.weight, "eps": self.eps},
            {"SIZE": size, "BLOCK": block, "ROUND_EARLY": self.round_before_weight},
            num_warps=min(16, max(1, block // 512)),
        )


@triton.jit
def rms_norm_kernel(
    out, total, x, residual, weight, eps, SIZE: tl.constexpr, BLOCK: tl.constexpr, ROUND_EARLY: tl.constexpr
):
    """Grid [rows]."""
    dtype: tl.constexpr = x.dtype.element_ty
    place = tl.arange(0, BLOCK)
    inside = place < SIZE
    at = tl.program_id(0).to(tl.int64) * SIZE + place
    values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if residual is not None:
        values += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
        rounded = values.to(dtype)
        tl.store(total + at, rounded, mask=inside)
        values = rounded.to(tl.float32)
    values = values * tl.rsqrt(tl.sum(values * values, 0) / SIZE + eps)
    if ROUND_EARLY:
        values = values.to(dtype).to(tl.float32)
    values = values * tl.load(weight + place, mask=inside, other=0.0)
    tl.store(out + at, values.to(dtype), mask=inside)
