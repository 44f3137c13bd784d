"""How a model's output is pooled, from its config.json and the files of sentence-transformers beside it.

modules.json lists what follows the transformer: a pooling module with a config.json of its own, perhaps dense layers,
perhaps normalisation. Without it a vector is the state of the first token (encoders) or of the last (decoders),
normalised. Torch-free: the front-end reads lengths and labels here, the engine the rest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ..context_length import text_config_of
from ..errors import UnsupportedModelError
from ..model_files import read_json

PoolingMode = Literal["cls", "lasttoken", "mean", "max", "mean_sqrt_len_tokens", "weightedmean"]
"""The first token, the last, the mean, the largest value, the sum over the root of the length, a mean that weighs
later tokens more.
"""
Activation = Literal["sigmoid", "softmax", "identity"]

_OLD_MODE_KEYS: dict[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_FLAG_MODES: dict[str, PoolingMode] = {"CLS": "cls", "LAST": "lasttoken", "MEAN": "mean", "MAX": "max"}
_FLAG_KEYS = ("pooling_type", "seq_pooling_type", "normalize", "use_activation")


@dataclass(frozen=True)
class PoolingConfig:
    """What happens to the states of the last layer, and what the front-end must know of it."""

    modes: tuple[PoolingMode, ...] = ()
    """Their vectors are put end to end; empty: the default of the kind of model."""
    normalize: bool = True
    dense: tuple[str, ...] = ()
    """Folders of dense layers behind the pooling, in order."""
    max_seq_length: int | None = None
    """Longest text that the model was trained for, where that is less than its context."""
    do_lower_case: bool = False
    """Whether texts are put into lower case before the tokenizer sees them."""
    is_matryoshka: bool = False
    matryoshka_dimensions: tuple[int, ...] = ()
    """The sizes that vectors may be cut to; empty: any."""
    vector_size: int | None = None
    """Size of an uncut vector; None: the files do not say."""
    labels: dict[int, str] = field(default_factory=dict)
    """Names of the classes, by their number."""
    activation: Activation = "softmax"
    """What makes probabilities of a classifier's output."""


def load_pooling_config(model_dir: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> PoolingConfig:
    """Read the configuration; `overrides` is what `--pooler-config` says.

    Raises `UnsupportedModelError` for a module that is not known, ValueError for wrong overrides.
    """
    directory = Path(model_dir)
    model = text_config_of(read_json(directory / "config.json"))
    sentence_bert = _sentence_bert_config(directory)
    dimensions = model.get("matryoshka_dimensions") or ()
    max_seq_length = sentence_bert.get("max_seq_length")
    config = PoolingConfig(
        max_seq_length=max_seq_length if isinstance(max_seq_length, int) else None,
        do_lower_case=bool(sentence_bert.get("do_lower_case")),
        is_matryoshka=bool(model.get("is_matryoshka") or dimensions),
        matryoshka_dimensions=tuple(dimensions),
        labels=_labels(model),
        activation=_activation(model),
    )
    config = _overridden(_with_modules(config, directory), overrides or {})
    return replace(config, vector_size=_vector_size(config, model))


def position_offset(model: Mapping[str, Any]) -> int:
    """How many of a model's position embeddings no token ever gets: RoBERTa and its kin number from the padding on."""
    model_type = str(model.get("model_type", ""))
    if model_type == "mpnet":
        return 2  # whatever its config says of padding
    if model_type in ("camembert", "longformer", "ibert", "data2vec-text", "esm") or "roberta" in model_type:
        return int(model.get("pad_token_id") or 0) + 1
    return 0


def _with_modules(config: PoolingConfig, directory: Path) -> PoolingConfig:
    path = directory / "modules.json"
    if not path.is_file():
        return config
    modules = json.loads(path.read_text(encoding="utf-8"))
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
    dense: list[str] = []
    modes: tuple[PoolingMode, ...] = ()
    for position, (kind, module) in enumerate(zip(kinds, modules, strict=True)):
        folder = directory / module.get("path", "")
        if kind == "Transformer" and position == 0 and folder == directory:
            continue
        if kind == "Pooling" and position == 1:
            modes = _modes(read_json(folder / "config.json"))
        elif kind == "Dense" and modes and "Normalize" not in kinds[:position]:
            dense.append(str(folder))
        elif kind != "Normalize" or not modes or position != len(kinds) - 1:
            raise UnsupportedModelError(
                f"modules.json lists {', '.join(kinds)}; what is served is a Transformer in the model's own folder, "
                "Pooling, any number of Dense, and Normalize at the end."
            )
    return replace(config, modes=modes, dense=tuple(dense), normalize="Normalize" in kinds)


def _modes(pooling: dict[str, Any]) -> tuple[PoolingMode, ...]:
    """The modes of a pooling module's config, in its newer or older form."""
    given = pooling.get("pooling_mode")
    if given is None:
        return tuple(mode for key, mode in _OLD_MODE_KEYS.items() if pooling.get(key)) or ("mean",)
    modes = tuple(given) if isinstance(given, list) else (given,)
    unknown = [mode for mode in modes if mode not in get_args(PoolingMode)]
    if unknown:
        raise UnsupportedModelError(
            f"The pooling mode {unknown[0]!r} is not one of {', '.join(get_args(PoolingMode))}."
        )
    return cast("tuple[PoolingMode, ...]", modes)


def _overridden(config: PoolingConfig, overrides: Mapping[str, Any]) -> PoolingConfig:
    unknown = sorted(set(overrides) - set(_FLAG_KEYS))
    if unknown:
        raise ValueError(f"--pooler-config takes {', '.join(_FLAG_KEYS)}; it does not take {', '.join(unknown)}.")
    mode = overrides.get("seq_pooling_type") or overrides.get("pooling_type")
    if mode is not None:
        if str(mode).upper() not in _FLAG_MODES:
            raise ValueError(f"--pooler-config: the pooling type is one of {', '.join(_FLAG_MODES)}, got {mode!r}.")
        config = replace(config, modes=(_FLAG_MODES[str(mode).upper()],))
    for key in ("normalize", "use_activation"):
        value = overrides.get(key)
        if value is not None:
            if not isinstance(value, bool):
                raise ValueError(f"--pooler-config: {key} is true or false, got {value!r}.")
            config = replace(config, normalize=value, activation=config.activation if value else "identity")
    return config


def _vector_size(config: PoolingConfig, model: dict[str, Any]) -> int | None:
    if config.dense:
        return read_json(Path(config.dense[-1]) / "config.json").get("out_features")
    names = ("word_embed_proj_dim", "hidden_size", "n_embd", "dim", "d_model")
    size = next((model[name] for name in names if isinstance(model.get(name), int)), None)
    return None if size is None else size * max(1, len(config.modes))


def _sentence_bert_config(directory: Path) -> dict[str, Any]:
    names = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
    paths = [directory / f"sentence_{name}_config.json" for name in names]
    return next((read_json(path) for path in paths if path.is_file()), {})


def _labels(model: dict[str, Any]) -> dict[int, str]:
    given = model.get("id2label")
    if isinstance(given, dict) and given:
        return {int(number): str(label) for number, label in given.items()}
    return {number: f"LABEL_{number}" for number in range(int(model.get("num_labels") or 2))}


def _activation(model: dict[str, Any]) -> Activation:
    """What the config says of the activation; else sigmoid for one score and softmax for classes."""
    own = model.get("sentence_transformers")
    name = (own.get("activation_fn") if isinstance(own, dict) else None) or model.get(
        "sbert_ce_default_activation_function"
    )
    if name is not None:
        short = str(name).rsplit(".", 1)[-1].lower()
        if short not in get_args(Activation):
            raise UnsupportedModelError(f"The activation {name!r} of config.json is not known.")
        return cast("Activation", short)
    problem = model.get("problem_type")
    if problem == "regression":
        return "identity"
    if problem == "multi_label_classification" or len(_labels(model)) == 1:
        return "sigmoid"
    return "softmax"
