"""How long the context of a model is, from its config.json. Torch-free: front-end and engine must say the same."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

logger = logging.getLogger(__name__)

ASSUMED_LENGTH = 2048
LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "n_ctx",
    "seq_length",
    "max_sequence_length",
    "model_max_length",
)
"""Where the configs of various models say how long their context is; the first one found counts."""

ROPE_TYPES_WITH_FULL_LENGTH = frozenset({"default", "llama3", "longrope", "su", "proportional"})
"""Kinds of rotary scaling of which `max_position_embeddings` is the scaled length already."""


def context_length(config: dict[str, Any]) -> int:
    """The longest sequence that the model was made for, in tokens, extended as its rotary scaling says."""
    config = text_config_of(config)
    length = next((config[key] for key in LENGTH_KEYS if isinstance(config.get(key), int)), None)
    if length is None:
        logger.warning("config.json does not say how long the context is; %d is assumed.", ASSUMED_LENGTH)
        return ASSUMED_LENGTH
    for scaling in _rope_scalings(config):
        kind = scaling.get("rope_type") or scaling.get("type") or "default"
        factor = scaling.get("factor") or 1.0
        if kind in ROPE_TYPES_WITH_FULL_LENGTH:
            continue
        if kind == "yarn":
            original = scaling.get("original_max_position_embeddings")
            return max(length, int(original * factor)) if original else length
        return int(length * factor)
    return length


def text_config_of(config: dict[str, Any]) -> dict[str, Any]:
    """The config with what its text part says on top; the two are one where the model knows text only."""
    part = next((config[key] for key in ("text_config", "llm_config") if isinstance(config.get(key), dict)), {})
    return {**config, **part}


def _rope_scalings(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rotary parameters: one object, or one for each type of layer."""
    parameters = config.get("rope_parameters") or config.get("rope_scaling")
    if isinstance(parameters, dict):
        nested = [value for value in parameters.values() if isinstance(value, dict)]
        yield from nested or [parameters]
