"""The weights of a model, as the headers of its files tell: names, types, shapes. No tensor is read."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..engine_core.model_files import read_json

INDEX = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100 << 20
"""What the safetensors format allows."""
FLOATING = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file."""

    dtype: str
    """As safetensors names it: F32, BF16, …"""
    shape: tuple[int, ...]
    end: int
    """Offset of its end, in bytes behind the header."""

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Weights:
    """All tensors of a model by name."""

    tensors: dict[str, Tensor]
    torch_bytes: int = 0
    """Size of PyTorch files where there are no others; their tensors are not known."""

    @property
    def num_parameters(self) -> int:
        """Stored elements of floating point."""
        return sum(tensor.num_elements for tensor in self.tensors.values() if tensor.dtype in FLOATING)

    def num_bytes(self, bytes_per_parameter: int | None) -> int:
        """Memory that they take with so many bytes a parameter; None: as they are stored."""
        if not self.tensors:
            return self.torch_bytes
        return sum(
            tensor.num_elements
            * (bytes_per_parameter if bytes_per_parameter and tensor.dtype in FLOATING else _bytes_of(tensor))
            for tensor in self.tensors.values()
        )


def read_weights(directory: Path) -> Weights:
    """Read the headers. Raises ValueError, naming the file, for what is missing or damaged."""
    files = list(weight_files(directory))
    tensors: dict[str, Tensor] = {}
    for path in files:
        tensors.update(read_header(path))
    if files:
        return Weights(tensors)
    return Weights({}, sum(path.stat().st_size for path in torch_files(directory)))


def weight_files(directory: Path) -> Iterator[Path]:
    """The safetensors files that belong to the model. Raises ValueError when the index names one that is missing."""
    index = directory / INDEX
    if not index.is_file():
        yield from sorted(directory.glob("*.safetensors"))
        return
    for name in sorted(set(weight_map(directory).values())):
        path = directory / name
        if not path.is_file():
            raise ValueError(f"{name} is missing, which {INDEX} names.")
        yield path


def weight_map(directory: Path) -> dict[str, str]:
    """In which file each tensor is, as the index says; {} without an index. Raises ValueError."""
    entries = read_json(directory / INDEX).get("weight_map", {})
    if not isinstance(entries, dict) or not all(isinstance(name, str) for name in entries.values()):
        raise ValueError(f"{INDEX} has no weight_map of tensors to files.")
    return entries


def torch_files(directory: Path) -> list[Path]:
    """Weights as PyTorch writes them."""
    return sorted((*directory.glob("pytorch_model*.bin"), *directory.glob("*.pt"), *directory.glob("*.pth")))


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises ValueError when the file is cut short or is none."""
    with path.open("rb") as file:
        start = file.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= size <= MAX_HEADER_BYTES:
            raise ValueError(f"{path.name} is no safetensors file.")
        header = file.read(size)
    try:
        entries = json.loads(header)
        tensors = {
            name: Tensor(entry["dtype"], tuple(entry["shape"]), entry["data_offsets"][1])
            for name, entry in entries.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise ValueError(f"{path.name} has a damaged header.") from None
    expected = 8 + size + max((tensor.end for tensor in tensors.values()), default=0)
    found = path.stat().st_size
    if found != expected:
        raise ValueError(f"{path.name} has {found} bytes instead of {expected}: it was not written or fetched whole.")
    return tensors


def _bytes_of(tensor: Tensor) -> int:
    """Of an element as stored; the name of a type ends in, or begins with, its bits: F32, BF16, F8_E4M3, BOOL."""
    bits = re.search(r"\d+", tensor.dtype)
    return 1 if bits is None else max(1, int(bits[0]) // 8)
