"""Checks the arguments of `LLM`: their values, and those of vLLM's `LLM` that ours has no use for."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from ..engine_core.config import EngineConfig
from ..server.command_line.flag_compatibility import FOREIGN_FLAGS, RefusedFlagError, judge

logger = logging.getLogger(__name__)

_OF_THE_SERVER = {
    "served_model_name": "outputs do not name the model.",
    "disable_log_requests": "requests are not logged offline.",
    "enable_log_requests": "requests are not logged offline.",
    "max_context_len_to_capture": "nothing is compiled or captured ahead.",
    "disable_async_output_proc": "outputs are processed between the steps.",
}
"""Taken without an effect, beside what the server's table of flags has."""

_AT_LEAST_1 = (
    *("max_num_seqs", "max_num_batched_tokens", "num_gpu_blocks_override", "kv_cache_memory_bytes", "num_threads"),
    "max_model_len",
)


def checked_config(**values: Any) -> EngineConfig:
    """The engine's configuration. Raises ValueError for a value of the wrong type, or out of range."""
    for name in _AT_LEAST_1:
        if values.get(name) is not None and values[name] < 1:
            raise ValueError(f"{name} must be at least 1, got {values[name]}.")
    if not 0 < values["gpu_memory_utilization"] <= 1:
        raise ValueError(
            f"gpu_memory_utilization must be above 0 and at most 1, got {values['gpu_memory_utilization']}."
        )
    values["num_blocks"] = values.pop("num_gpu_blocks_override")
    try:
        return msgspec.convert(values, EngineConfig)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        name = where.rstrip("`")
        hint = get_type_hints(EngineConfig).get(name)
        if get_origin(hint) is Literal:
            check_choice(name, values[name], hint)
        raise ValueError(f"{name}: {what[:1].lower()}{what[1:]}.") from None


def check_choice(name: str, value: str, literal: Any) -> None:
    """Raise ValueError unless `value` is one of the literal type's."""
    if value not in get_args(literal):
        raise ValueError(f"{name} must be one of {', '.join(get_args(literal))}, got {value!r}.")


def check_foreign_arguments(arguments: Mapping[str, Any], known: Collection[str]) -> None:
    """Log what has no effect; None counts as not given.

    Raises ValueError for what cannot be honoured, and TypeError, naming the nearest of `known`, for what nobody knows.
    """
    for name, value in arguments.items():
        flag = name.replace("_", "-")
        if name not in _OF_THE_SERVER and flag not in FOREIGN_FLAGS:
            nearest = difflib.get_close_matches(
                name, [*known, *(other.replace("-", "_") for other in FOREIGN_FLAGS)], n=1
            )
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            raise TypeError(f"LLM() has no argument {name!r}.{hint}")
        if value is None:
            continue
        if name in _OF_THE_SERVER:
            logger.warning("%s has no effect: %s", name, _OF_THE_SERVER[name])
            continue
        try:
            for notice in judge(flag, [value], shown=name):
                logger.warning("%s", notice)
        except RefusedFlagError as error:
            raise ValueError(str(error)) from None
