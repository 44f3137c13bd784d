"""Compiled grammars as they come off the wire: read once, kept while they are used and for a while after.

A grammar crosses from the process that compiled it as a pickle. What a pickle may name is limited to the classes of
`guided` and to plain data, so that reading one runs no code of anybody else's.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from .messages import Grammar

if TYPE_CHECKING:
    from ..guided.grammar import CompiledGrammar

MAX_CACHED_BYTES = 64 << 20
"""Of the pickles; what a grammar grows by while it is used is limited by what asks for it."""
MAX_CACHED = 256
_PACKAGE = __name__.partition(".")[0] + ".guided."
_PLAIN = {
    "builtins": {"bytearray", "complex", "dict", "frozenset", "list", "range", "set", "slice", "tuple"},
    "collections": {"Counter", "OrderedDict", "defaultdict", "deque"},
    "copyreg": {"_reconstructor"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "numpy": {"dtype", "ndarray"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.numeric": {"_frombuffer"},
}


class GrammarReader:
    """Reads grammars, and keeps those that were used last."""

    def __init__(self) -> None:
        self._grammars: OrderedDict[bytes, tuple[CompiledGrammar, int]] = OrderedDict()
        self._num_bytes = 0

    def read(self, grammar: Grammar) -> CompiledGrammar:
        """The grammar, shared by all requests that bring one of the same key. Raises ValueError when it is none."""
        known = self._grammars.get(grammar.key)
        if known is not None:
            self._grammars.move_to_end(grammar.key)
            return known[0]
        compiled = _unpickle(grammar.data)
        self._grammars[grammar.key] = (compiled, len(grammar.data))
        self._num_bytes += len(grammar.data)
        while len(self._grammars) > MAX_CACHED or self._num_bytes > MAX_CACHED_BYTES:
            _, (_, num_bytes) = self._grammars.popitem(last=False)
            self._num_bytes -= num_bytes
        return compiled


def _unpickle(data: bytes) -> CompiledGrammar:
    from ..guided.grammar import CompiledGrammar

    try:
        compiled = _GrammarUnpickler(io.BytesIO(data)).load()
    except Exception as error:  # whatever bytes that are no pickle bring about
        raise ValueError(f"The compiled grammar cannot be read: {error}") from None
    if not isinstance(compiled, CompiledGrammar):
        raise ValueError("The compiled grammar is something else.")
    return compiled


class _GrammarUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, name: str) -> Any:
        found = super().find_class(module_name, name) if self._may_name(module_name, name) else None
        if found is None or (module_name.startswith(_PACKAGE) and not found.__module__.startswith(_PACKAGE)):
            raise pickle.UnpicklingError(f"{module_name}.{name} is no part of a grammar")
        return found

    @staticmethod
    def _may_name(module_name: str, name: str) -> bool:
        return name in _PLAIN.get(module_name, ()) or (module_name.startswith(_PACKAGE) and "." not in name)
