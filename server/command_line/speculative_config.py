"""`--speculative-config`: how next tokens are guessed, in the words of vLLM's JSON object.

Of its methods there is one, `ngram`: guesses from the text itself, see `engine_core/scheduling/prompt_lookup.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ...engine_core.scheduling.prompt_lookup import PromptLookupConfig

DEFAULT_LOOKUP_MAX = 4
DEFAULT_LOOKUP_MIN = 2


class _Config(msgspec.Struct, forbid_unknown_fields=True):
    method: str | None = None
    model: str | None = None
    num_speculative_tokens: int = 5
    prompt_lookup_max: int | None = None
    prompt_lookup_min: int | None = None
    disable_by_batch_size: int = 16
    draft_tensor_parallel_size: int = 1


def prompt_lookup_of(config: Mapping[str, Any] | None) -> PromptLookupConfig | None:
    """What the object asks for; None for an empty one.

    Raises ValueError, naming the key, for what is wrong and for methods that there are not.
    """
    if not config:
        return None
    try:
        read = msgspec.convert(config, _Config)
    except msgspec.ValidationError as error:
        raise ValueError(f"speculative_config: {error}") from None
    method = (read.method or read.model or "").strip("[]")
    if method != "ngram":
        raise ValueError(
            f'speculative_config: method must be "ngram", got {method!r}: tokens are guessed from the text itself, '
            "not by a second model."
        )
    if read.draft_tensor_parallel_size != 1:
        raise ValueError("speculative_config: draft_tensor_parallel_size must be 1: the engine runs on one device.")
    longest = read.prompt_lookup_max or max(read.prompt_lookup_min or 0, DEFAULT_LOOKUP_MAX)
    shortest = read.prompt_lookup_min or min(longest, DEFAULT_LOOKUP_MIN)
    for name, value, least, most in (
        ("num_speculative_tokens", read.num_speculative_tokens, 1, 32),
        ("prompt_lookup_max", longest, 1, 64),
        ("prompt_lookup_min", shortest, 1, longest),
        ("disable_by_batch_size", read.disable_by_batch_size, 1, 2**31),
    ):
        if not least <= value <= most:
            raise ValueError(f"speculative_config: {name} must be from {least} to {most}, got {value}.")
    return PromptLookupConfig(
        num_speculative_tokens=read.num_speculative_tokens,
        prompt_lookup_max=longest,
        prompt_lookup_min=shortest,
        disable_by_batch_size=read.disable_by_batch_size,
    )
