"""Which models transformers has code for, read from its source: importing it would take seconds and bring torch."""

from __future__ import annotations

import ast
import functools
import importlib.util
from pathlib import Path

_MODULE = Path("models", "auto", "modeling_auto.py")
_TABLES = {
    "generate": ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",),
    "embed": ("MODEL_MAPPING_NAMES",),
    "classify": ("MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",),
    "token_classify": ("MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",),
}
"""By what a model is served for: the tables that the loader's classes look it up in."""


def is_known(model_type: str, kind: str) -> bool:
    """Whether transformers can make a model of this `model_type` for what it is served for."""
    return any(model_type in _table(name) for name in _TABLES.get(kind, ()))


@functools.cache
def _table(name: str) -> frozenset[str]:
    """The model types of one of transformers' tables."""
    for node in _source().body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return frozenset(
                entry.elts[0].value
                for entry in ast.walk(node)
                if isinstance(entry, ast.Tuple) and entry.elts and isinstance(entry.elts[0], ast.Constant)
                if isinstance(entry.elts[0].value, str)
            )
    return frozenset()


@functools.cache
def _source() -> ast.Module:
    spec = importlib.util.find_spec("transformers")
    assert spec is not None
    assert spec.submodule_search_locations
    return ast.parse((Path(spec.submodule_search_locations[0]) / _MODULE).read_text(encoding="utf-8"))
