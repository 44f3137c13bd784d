"""One launch of a Triton kernel: run where its tensors are, or compiled ahead of time for a chip that is not here.

The host side of each kernel makes its launches here alone, so what is compiled ahead is what would run.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

INTERPRETED = knobs.runtime.interpret
"""Whether kernels run on CPU tensors, step by step (TRITON_INTERPRET=1)."""

_POINTERS = {
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.uint8: "*u8",
}


@dataclass(frozen=True)
class Resources:
    """What one compiled kernel takes of a chip."""

    registers: int
    """Of each thread."""
    shared: int
    """Bytes of shared memory of each block of threads."""
    spilled: int
    """Bytes of each thread that found no register."""


@dataclass(frozen=True)
class Launch:
    """A kernel, its grid, and its arguments by name: tensors (None: absent), numbers, and what it is compiled for."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    constants: dict[str, Any]
    num_warps: int = 4
    num_stages: int = 1
    fuses_products: bool = True
    """Whether a product and a sum may become one operation that rounds once."""

    def run(self) -> None:
        """On the current stream of the tensors' device; an empty grid is passed over."""
        if 0 not in self.grid:
            self.kernel[self.grid](**self.arguments, **self.constants, **self._options())

    def compile(self, capability: int) -> Resources:
        """Compile for a chip (80: A100, 90: H100) as a launch there would; the tensors may be on device "meta"."""
        signature: dict[str, str] = {}
        constants: dict[tuple[int, ...], Any] = {}
        attributes: dict[tuple[int, ...], Any] = {}
        for place, name in enumerate(self.kernel.arg_names):
            value = self.constants[name] if name in self.constants else self.arguments[name]
            is_constant = name in self.constants or value is None or (isinstance(value, int) and value == 1)
            if is_constant:
                constants[(place,)] = value
            elif isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0):
                attributes[(place,)] = [["tt.divisibility", 16]]
            signature[name] = "constexpr" if is_constant else _type_of(value)
        compiled = triton.compile(
            ASTSource(self.kernel, signature, constants, attributes),
            target=GPUTarget("cuda", capability, 32),
            options=self._options(),
        )
        return _resources(compiled)

    def _options(self) -> dict[str, Any]:
        return {
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
            "enable_fp_fusion": self.fuses_products,
        }


def next_power_of_2(number: int) -> int:
    """The smallest power of two that is not less than `number`, which is positive."""
    return 1 << (number - 1).bit_length()


def _type_of(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return _POINTERS[value.dtype]
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def _resources(compiled: Any) -> Resources:
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [str(tools / "cuobjdump"), "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return Resources(found["REG"], compiled.metadata.shared, found["STACK"] + found["LOCAL"])
