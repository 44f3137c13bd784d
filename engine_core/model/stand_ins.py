"""Finds out what a module computes between its linear layers, by trying it with stand-ins in their place.

The stand-ins return given values, so that what is seen has no rounding of a matrix product in it and can be compared
to the last bit. Used by `model_surgery` and the parts that it puts into models.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


class StandIn(nn.Module):
    """Notes a copy of its input, and its keywords, and returns one of `output`, or of the input where that is None.

    Copies, since the module under trial may change in place what it is given.
    """

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.input: torch.Tensor | None = None
        self.kwargs: dict[str, Any] = {}
        self._output = output

    def forward(self, hidden_states: torch.Tensor, *_args: Any, **kwargs: Any) -> Any:
        self.input = hidden_states.clone()
        self.kwargs = kwargs
        return copy.deepcopy(self._output) if self._output is not None else hidden_states.clone()


@contextmanager
def stand_ins(module: nn.Module, outputs: Mapping[str, Any]) -> Iterator[dict[str, StandIn]]:
    """Within the context, the named children of `module` are stand-ins with these outputs."""
    originals = {name: getattr(module, name) for name in outputs}
    placed = {name: StandIn(output) for name, output in outputs.items()}
    try:
        for name, stand_in in placed.items():
            setattr(module, name, stand_in)
        yield placed
    finally:
        for name, original in originals.items():
            setattr(module, name, original)


@dataclass(frozen=True)
class Call:
    """How the model calls one of its modules."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@contextmanager
def observed_calls(model: nn.Module, names: Container[str]) -> Iterator[dict[nn.Module, Call]]:
    """Within the context, notes how each module that has a child of one of these names is called."""
    calls: dict[nn.Module, Call] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls[module] = Call(args, kwargs)

    handles = [
        module.register_forward_pre_hook(note, with_kwargs=True)
        for module in model.modules()
        if any(name in names for name, _ in module.named_children())
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def probe_values(*shape: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Random values of every magnitude up to some thousands, so that limits and cut-offs show too."""
    generator = torch.Generator().manual_seed(seed)
    magnitude = torch.exp(3 * torch.randn(*shape, generator=generator)).clamp(max=4_096)
    return (magnitude * torch.randn(*shape, generator=generator).sign()).to(dtype)


def agree(found: torch.Tensor, expected: torch.Tensor, terms: torch.Tensor | None = None) -> bool:
    """Whether two results are of one dtype and shape and differ by no more than a unit in the last place.

    `terms`, where given, is how large numbers were that may have cancelled: their float32 rounding is allowed too.
    """
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    unit = 2.0**-7 if found.dtype == torch.bfloat16 else 2.0**-20
    allowed = unit * expected.float().abs() + 1e-6
    if terms is not None:
        allowed += 2.0**-21 * terms.float().abs()
    return bool(((found.float() - expected.float()).abs() <= allowed).all())
