"""The forms in which the offline API takes prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from .engine_core.errors import InvalidRequestError

PromptInput: TypeAlias = str | Sequence[int] | Mapping[str, Any]
"""A text, token ids, `{"prompt": text}` or `{"prompt_token_ids": ids}`."""


def prompt_list(prompts: Any) -> list[str | list[int]]:
    """The prompts of any accepted form, each a text or token ids."""
    if isinstance(prompts, str | Mapping):
        return [_one_prompt(prompts)]
    if not isinstance(prompts, Sequence):
        raise InvalidRequestError("prompts", f"prompts must be a string, token ids or a list, got {type(prompts)}.")
    if prompts and all(isinstance(item, int) for item in prompts):
        return [list(prompts)]
    return [_one_prompt(prompt) for prompt in prompts]


def _one_prompt(prompt: Any) -> str | list[int]:
    if isinstance(prompt, Mapping):
        known = [name for name in ("prompt_token_ids", "prompt") if prompt.get(name) is not None]
        others = sorted(set(prompt) - {"prompt", "prompt_token_ids"})
        if not known or others:
            raise InvalidRequestError(
                "prompts",
                f"A prompt has prompt or prompt_token_ids, got {', '.join(map(repr, prompt)) or 'nothing'}.",
            )
        prompt = prompt[known[0]]
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, Sequence) and all(isinstance(token_id, int) for token_id in prompt):
        return list(prompt)
    raise InvalidRequestError("prompts", "A prompt must be a string or a list of token ids.")
