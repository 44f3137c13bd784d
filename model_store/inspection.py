"""What speaks against serving a model: `zqserve models check`, and the last line of `zqserve models show`.

Findings are of two kinds: a problem stops the server at its start, a note is good to know. The engine has the last
word: it runs one token before it serves and refuses a model that would answer wrongly.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engine_core.context_length import text_config_of
from ..engine_core.errors import InvalidRequestError, UnsupportedModelError
from ..engine_core.model_files import read_json
from ..engine_core.sampling_params import SamplingParams
from ..engine_core.serving_mode import serving_mode
from ..engine_core.tokenizer import load_tokenizer
from ..server.engine_link.model_info import load_model_info
from ..server.prompts.chat_template import ChatTemplate
from .cache import kind_name
from .known_architectures import is_known
from .weights import read_header, torch_files, weight_files, weight_map


@dataclass(frozen=True)
class Finding:
    """Something about a model."""

    text: str
    stops: bool
    """Whether it cannot be served with it."""


def inspect(directory: Path) -> list[Finding]:
    """Everything that speaks against the model, problems first; empty when nothing does."""
    if not directory.is_dir():
        return [Finding(f"{directory} is no folder.", stops=True)]
    findings = [*_config(directory), *_weights(directory), *_tokenizer(directory)]
    return sorted(findings, key=lambda finding: not finding.stops)


def _config(directory: Path) -> Iterator[Finding]:
    try:
        config = read_json(directory / "config.json")
        if not config:
            yield Finding("There is no config.json.", stops=True)
            return
        mode = serving_mode(directory)
        info = load_model_info(directory)
        SamplingParams(**info.default_sampling)
    except InvalidRequestError as error:
        yield Finding(f"generation_config.json: {error}", stops=True)
        return
    except (ValueError, UnsupportedModelError) as error:
        yield Finding(str(error), stops=True)
        return
    kind = kind_name(mode)
    if config.get("is_encoder_decoder"):
        yield Finding(f"{mode.architecture} is an encoder-decoder model; only decoder models are served.", stops=True)
    elif not is_known(str(config.get("model_type")), kind):
        code = " It brings code of its own, which is never run." if config.get("auto_map") else ""
        yield Finding(
            f"transformers has no code to {kind.replace('_', ' ')} with models of the type "
            f"{config.get('model_type')!r} ({mode.architecture}).{code}",
            stops=True,
        )
    yield from _of_the_text_part(text_config_of(config))
    if mode.generates and not info.eos_token_ids and not _tokenizer_ends(directory):
        yield Finding("Neither config nor tokenizer names an end-of-sequence token: answers end by length.", False)


def _of_the_text_part(config: dict[str, Any]) -> Iterator[Finding]:
    quantization = config.get("quantization_config")
    if isinstance(quantization, dict):
        method = quantization.get("quant_method", "of an unknown method")
        yield Finding(f"The weights are quantised ({method}): transformers must be able to load them.", stops=False)
    chunk = config.get("attention_chunk_size")
    if isinstance(chunk, int):
        yield Finding(f"It attends in chunks of {chunk} tokens: serve it with --max-model-len {chunk}.", stops=False)


def _weights(directory: Path) -> Iterator[Finding]:
    try:
        files = list(weight_files(directory))
        where = weight_map(directory)
        for path in files:
            tensors = read_header(path)
            lacking = [name for name, file in where.items() if file == path.name and name not in tensors]
            if lacking:
                yield Finding(f"{path.name} lacks {len(lacking)} tensors of the index, such as {lacking[0]}.", True)
    except (OSError, ValueError) as error:
        yield Finding(str(error), stops=True)
        return
    if files:
        return
    if torch_files(directory):
        yield Finding("The weights are PyTorch files; safetensors load faster.", stops=False)
    else:
        yield Finding(
            "There are no weights, neither safetensors nor PyTorch files (--load-format dummy needs none).", True
        )


def _tokenizer(directory: Path) -> Iterator[Finding]:
    for link in directory.rglob("*"):
        if link.is_symlink() and not link.exists():
            yield Finding(f"{link.name} points to {os.readlink(link)}, which is missing: fetch the model again.", True)
    try:
        tokenizer = load_tokenizer(directory)
    except ValueError as error:
        yield Finding(str(error), stops=True)
        return
    if not tokenizer.chat_templates:
        yield Finding("There is no chat template: chat requests need --chat-template.", stops=False)
    for name, template in tokenizer.chat_templates.items():
        try:
            ChatTemplate(tokenizer, template)
        except ValueError as error:
            yield Finding(f"Chat template {name!r}: {error}", stops=False)


def _tokenizer_ends(directory: Path) -> bool:
    try:
        return load_tokenizer(directory).eos_token_id is not None
    except ValueError:
        return False
