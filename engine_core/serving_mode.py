"""What a model is served for: text generation, pooling (embeddings, classes, scores), or both.

Decided from its config.json, the files of sentence-transformers and the flags `--task`, `--runner` and `--convert`.
Front-end and engine must say the same, so it stands here, torch-free.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import UnsupportedModelError
from .model_files import read_json
from .pooling.pooling_params import PoolingTask

TaskFlag = Literal["auto", "generate", "embedding", "embed", "score", "classify"]
RunnerFlag = Literal["auto", "generate", "pooling"]
ConvertFlag = Literal["auto", "none", "embed", "classify"]

PoolingKind = Literal["embed", "classify", "token_classify"]
"""What the model's last layer gives: vectors, classes of a text, classes of each token."""


@dataclass(frozen=True)
class ServingMode:
    """What requests a model answers."""

    architecture: str
    generates: bool
    pooling: PoolingKind | None

    @property
    def pooling_tasks(self) -> tuple[PoolingTask, ...]:
        """The pooling tasks that are answered; the first is the default."""
        if self.pooling == "embed":
            return ("embed", "token_embed")
        return () if self.pooling is None else (self.pooling,)


def serving_mode(
    model_dir: str | os.PathLike[str],
    *,
    task: TaskFlag = "auto",
    runner: RunnerFlag = "auto",
    convert: ConvertFlag = "auto",
) -> ServingMode:
    """The mode of the model in a directory.

    A language model generates; with `task="embedding"` it embeds beside that, with `runner="pooling"` instead. What
    has a modules.json of sentence-transformers, and what has no head for language, pools. Raises
    `UnsupportedModelError` when the flags ask for what the model has no layer for.
    """
    directory = Path(model_dir)
    config = read_json(directory / "config.json")
    architecture: str = (config.get("architectures") or [config.get("model_type", "unknown")])[0]
    embeds = task in ("embedding", "embed", "score") or convert == "embed"
    classifies = task == "classify" or convert == "classify"
    if runner == "pooling" and task == "generate":
        raise UnsupportedModelError("--runner pooling and --task generate contradict each other.")
    head = _head(architecture)
    if head != "generate" and (task == "generate" or runner == "generate"):
        raise UnsupportedModelError(
            f"{architecture} has no head for language: it cannot generate. It is served for pooling without --task "
            "generate and --runner generate."
        )
    if head in ("classify", "token_classify"):
        as_embedder = task in ("embedding", "embed") or convert == "embed"
        return ServingMode(architecture, False, "embed" if as_embedder else head)
    if classifies:
        raise UnsupportedModelError(
            f"{architecture} has no classification head, so it cannot classify; models whose architecture ends in "
            "ForSequenceClassification can."
        )
    if head == "embed":
        return ServingMode(architecture, False, "embed")
    is_embedder = (directory / "modules.json").is_file() and task != "generate"
    pools = embeds or is_embedder or runner == "pooling"
    generates = runner == "generate" or not (is_embedder or runner == "pooling")
    if generates and runner == "generate" and not embeds:
        pools = False
    return ServingMode(architecture, generates, "embed" if pools else None)


def _head(architecture: str) -> Literal["generate", "embed", "classify", "token_classify"]:
    """What the last layer of an architecture is for; what is not known is left to the loader of language models."""
    if architecture.endswith("ForSequenceClassification"):
        return "classify"
    if architecture.endswith("ForTokenClassification"):
        return "token_classify"
    is_base = architecture.endswith("Model") and not architecture.endswith("LMHeadModel")
    return "embed" if is_base or architecture.endswith(("ForMaskedLM", "ForPreTraining")) else "generate"
