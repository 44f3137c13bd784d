"""Imports everything that an engine needs, before it is known which model it serves: most of the time of a start.

    preload()       # in a process without threads; then fork it (`fork_server`)

Part of what transformers imports is left out, since an engine never uses it: the compiler of torch (`torch._dynamo`)
and tensors that are spread over processes (`torch.distributed.tensor`).
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

from .constraints.guided_decoding import load_loops
from .host_runtime import tune_openmp


def preload() -> None:
    """Import, and load what is compiled of guided decoding. Starts no thread and asks for no device."""
    # There is nothing to collect while modules are imported, and looking for it would take as long as half of them.
    gc.disable()
    tune_openmp()
    _import_lean_transformers()
    importlib.import_module(".pooling.pooling_loader", __package__)
    _prepare_loading()
    load_loops()
    # What is here now stays; unmoved by the collector, it is also shared by all processes forked from this one.
    gc.freeze()
    gc.enable()


def _import_lean_transformers() -> None:
    _put_off_compiler()
    from transformers import utils
    from transformers.utils import import_utils

    def is_torch_distributed_available() -> bool:
        """An engine holds its whole model; transformers then does without, as with a torch that was built so."""
        return False

    for module in (utils, import_utils):
        vars(module)["is_torch_distributed_available"] = is_torch_distributed_available


def _prepare_loading() -> None:
    """What comes with the first model that is built and read, whichever it is."""
    import torch
    from transformers import conversion_mapping

    importlib.import_module("transformers.generation.utils")
    # A table of how the names of weights have changed.
    conversion_mapping.get_checkpoint_conversion_mapping("")
    # Models are built on this device before their weights are read; it brings a library for symbols (sympy).
    torch.nn.Embedding(1, 1, device="meta")
    torch.arange(1, device="meta")


def _put_off_compiler() -> None:
    """Put a stand-in for torch's compiler which becomes the real one as soon as anything but its marks is used."""
    name = "torch._dynamo"
    spec = importlib.util.find_spec(name)
    if name in sys.modules or spec is None:
        return
    stand_in = _PackagePutOff(name)
    vars(stand_in).update(vars(importlib.util.module_from_spec(spec)))
    vars(stand_in).update(disable=_mark, allow_in_graph=_mark, assume_constant_result=_mark)
    sys.modules[name] = stand_in
    vars(sys.modules["torch"])["_dynamo"] = stand_in
    # The one module of it that transformers imports, which knows none of the others. They need the package complete.
    importlib.import_module(f"{name}._trace_wrapped_higher_order_op")
    del vars(stand_in)["__path__"]


class _PackagePutOff(types.ModuleType):
    """A package whose code runs when an attribute is missed, such as the path that a module of it is looked for on."""

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        assert spec is not None
        assert spec.loader is not None
        vars(self)["__path__"] = spec.submodule_search_locations
        object.__setattr__(self, "__class__", types.ModuleType)
        spec.loader.exec_module(self)
        return getattr(self, name)


def _mark(function: Callable[..., Any] | None = None, *_args: Any, **_options: Any) -> Any:
    """Stands in for decorators that tell the compiler how to take a function: nothing is compiled, so it stays."""
    return _mark if function is None else function
