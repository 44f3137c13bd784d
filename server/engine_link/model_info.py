"""What the front-end reads from a model's directory: length of the context, end-of-sequence tokens, default sampling.

No torch and no transformers: the files are JSON. The launcher resolves a model's name here too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...engine_core.context_length import context_length, text_config_of
from ...engine_core.model_files import read_json
from ...engine_core.sampling_params import SamplingParams

SAMPLING_KEYS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "max_new_tokens": "max_tokens",
}
"""Fields of a generation config that are defaults of requests, and their names in `SamplingParams`."""


@dataclass(frozen=True)
class ModelInfo:
    """What the front-end must know of a model."""

    path: str
    architecture: str
    max_model_len: int
    """Longest prompt plus output, in tokens."""
    eos_token_ids: list[int]
    vocab_size: int
    """Rows of the embedding; may be more than the tokenizer's tokens."""
    default_sampling: dict[str, Any]
    """Fields of `SamplingParams` that the model's generation config sets; `max_tokens` there caps every request."""


def load_model_info(
    model_dir: str | os.PathLike[str],
    *,
    max_model_len: int | None = None,
    generation_config: str = "auto",
    tokenizer_eos_token_id: int | None = None,
) -> ModelInfo:
    """Read config.json and generation_config.json.

    `max_model_len` may lower the model's own limit. `generation_config` is "auto" (the model's), "vllm" (no default
    sampling parameters) or a folder that has a generation_config.json. Raises ValueError with a clear message.
    """
    directory = Path(model_dir)
    if not (directory / "config.json").is_file():
        raise ValueError(f"There is no config.json in {directory}: it is no model in Hugging Face form.")
    config = read_json(directory / "config.json")
    merged = text_config_of(config)
    own_generation = read_json(directory / "generation_config.json")
    eos_token_ids = dict.fromkeys(
        (
            *_token_ids(own_generation.get("eos_token_id")),
            *_token_ids(merged.get("eos_token_id")),
            *_token_ids(tokenizer_eos_token_id),
        )
    )
    architectures = config.get("architectures") or [config.get("model_type", "unknown")]
    return ModelInfo(
        path=str(directory),
        architecture=architectures[0],
        max_model_len=_limited(context_length(config), max_model_len),
        eos_token_ids=list(eos_token_ids),
        vocab_size=int(merged.get("vocab_size") or 0),
        default_sampling=_default_sampling(own_generation, generation_config),
    )


def resolve_model(name_or_path: str, revision: str | None = None, cache_dir: str | Path | None = None) -> str:
    """The directory of a model: a local one, or that of a hub name in the local cache of Hugging Face.

    `cache_dir` is another cache than the one that HF_HUB_CACHE, HF_HOME or the home directory say. Nothing is
    downloaded. Raises ValueError for a name that is neither.
    """
    if Path(name_or_path).is_dir():
        return name_or_path
    # Here and not above: it takes a tenth of a second that a local directory does not need.
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(name_or_path, revision=revision, cache_dir=cache_dir, local_files_only=True)
    except (OSError, ValueError):
        at = f" at revision {revision}" if revision else ""
        raise ValueError(
            f"{name_or_path!r} is neither a directory nor a model in the local Hugging Face cache{at}. "
            f"With a network, `zqserve models pull {name_or_path}` fetches it."
        ) from None


def resolve_tokenizer(
    model: str,
    tokenizer: str | None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
) -> str | None:
    """The directory of the tokenizer; None where it is that of the model.

    `revision` is that of the tokenizer. Without a tokenizer of its own, the model's at that revision, where the model
    is a hub name. Raises ValueError as `resolve_model` does.
    """
    if tokenizer is None and (revision is None or Path(model).is_dir()):
        return None
    return resolve_model(tokenizer or model, revision, cache_dir)


def overridden_sampling(model: ModelInfo, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The model's default sampling with what `override_generation_config` says over it, as fields of `SamplingParams`.

    Raises ValueError: a mistake shall stop the start, not every request.
    """
    unknown = sorted(set(overrides) - set(SAMPLING_KEYS))
    if unknown:
        raise ValueError(
            f"override_generation_config takes {', '.join(SAMPLING_KEYS)}; it does not take {', '.join(unknown)}."
        )
    defaults = dict(model.default_sampling)
    for name, value in overrides.items():
        defaults[SAMPLING_KEYS[name]] = value
    SamplingParams(**defaults)
    return defaults


def _limited(model_limit: int, max_model_len: int | None) -> int:
    if max_model_len is None:
        return model_limit
    if not 1 <= max_model_len <= model_limit:
        raise ValueError(
            f"max_model_len {max_model_len} is not between 1 and {model_limit}, "
            "the longest context that the model was made for."
        )
    return max_model_len


def _token_ids(value: Any) -> list[int]:
    """A token id, a list of them, or none."""
    values = value if isinstance(value, list) else [value]
    return [token_id for token_id in values if isinstance(token_id, int)]


def _default_sampling(own: dict[str, Any], generation_config: str) -> dict[str, Any]:
    if generation_config == "vllm":
        return {}
    if generation_config != "auto":
        path = Path(generation_config) / "generation_config.json"
        if not path.is_file():
            raise ValueError(f"generation_config is 'auto', 'vllm' or a folder; there is no {path}.")
        own = read_json(path)
    return {name: own[key] for key, name in SAMPLING_KEYS.items() if own.get(key) is not None}
