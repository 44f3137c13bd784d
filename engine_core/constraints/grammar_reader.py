"""Compiled grammars as they come off the wire: read once, kept while they are used and for a while after.

A grammar crosses from the process that compiled it as a pickle. What a pickle may name is limited to the classes of
`guided` and to plain data, so that reading one runs no code of anybody else's.
"""

from __future__ import annotations

import io
import logging
import pickle
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from ..messages import Grammar

if TYPE_CHECKING:
    from ...guided.grammar import CompiledGrammar

logger = logging.getLogger(__name__)

MAX_CACHED_BYTES = 64 << 20
"""Of the pickles."""
MAX_CACHED = 256
MAX_TOTAL_BYTES = 512 << 20
"""Of all grammars that are cached or used, about, with all that they have grown by."""
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
        self._alive: weakref.WeakSet[CompiledGrammar] = weakref.WeakSet()
        """Those that are cached or that a request uses."""

    def read(self, grammar: Grammar) -> CompiledGrammar:
        """The grammar, shared by all requests that bring one of the same key; matchers last only as long as somebody
        holds it. Raises ValueError when it is none."""
        known = self._grammars.get(grammar.key)
        if known is not None:
            self._grammars.move_to_end(grammar.key)
            return known[0]
        compiled = _unpickle(grammar.data)
        self._alive.add(compiled)
        # Its parts know each other, so they would otherwise wait for the garbage collector.
        weakref.finalize(compiled, compiled.pushdown.__dict__.clear).atexit = False
        self._grammars[grammar.key] = (compiled, len(grammar.data))
        self._num_bytes += len(grammar.data)
        while len(self._grammars) > MAX_CACHED or self._num_bytes > MAX_CACHED_BYTES:
            self._drop_oldest()
        self.trim()
        return compiled

    def num_bytes(self) -> int:
        """About how much memory all grammars take that are cached or used."""
        return sum(grammar.num_bytes() for grammar in self._alive)

    def trim(self) -> None:
        """Keep to `MAX_TOTAL_BYTES`. Called now and then, as grammars grow while they are used.

        Those used last stay longest; those that requests use lose what they can find again. Where even that is not
        enough, the largest may not grow any more, and no new request gets it.
        """
        excess = self.num_bytes() - MAX_TOTAL_BYTES
        for key in list(self._grammars):
            if excess <= 0:
                return
            excess -= self._drop_if_unused(key)
        if excess <= 0:
            return
        for grammar in self._alive:
            grammar.forget()
        if self.num_bytes() > MAX_TOTAL_BYTES:
            largest = max(self._alive, key=lambda grammar: grammar.num_bytes())
            logger.warning("A grammar (%s) may not grow beyond its %d bytes.", largest.spec.kind, largest.num_bytes())
            largest.stop_growing()
            for key in [key for key, (grammar, _) in self._grammars.items() if grammar is largest]:
                self._num_bytes -= self._grammars.pop(key)[1]

    def _drop_oldest(self) -> None:
        _, (_, num_bytes) = self._grammars.popitem(last=False)
        self._num_bytes -= num_bytes

    def _drop_if_unused(self, key: bytes) -> int:
        """Let go of a grammar unless a request uses it; returns how much memory that frees."""
        grammar, num_bytes = self._grammars.pop(key)
        size, alive = grammar.num_bytes(), weakref.ref(grammar)
        del grammar
        used = alive()
        if used is None:
            self._num_bytes -= num_bytes
            return size
        self._grammars[key] = used, num_bytes
        return 0


def _unpickle(data: bytes) -> CompiledGrammar:
    from ...guided.grammar import CompiledGrammar

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
