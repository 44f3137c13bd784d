"""From the states of the last layer to the vectors of an embedding model: pooling, dense layers, normalisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import normalize

from ..errors import UnsupportedModelError
from ..model_files import read_json
from .pooling_config import PoolingConfig, PoolingMode

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "Tanh": nn.Tanh,
    "Identity": nn.Identity,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "Sigmoid": nn.Sigmoid,
}


class Pooler:
    """Pools as a `PoolingConfig` says; float32 from the states on."""

    def __init__(self, config: PoolingConfig, default_mode: PoolingMode, device: torch.device) -> None:
        """Raises `UnsupportedModelError` for a dense layer that is not known."""
        self._modes = config.modes or (default_mode,)
        self._dense = nn.Sequential(*(_load_dense(Path(folder)) for folder in config.dense)).to(device)
        self._dense.requires_grad_(False)

    def vectors(self, states: torch.Tensor) -> torch.Tensor:
        """Vectors [count, size] of texts whose states are [count, length, hidden_size]; not normalised."""
        states = states.float()
        pooled = [_pool(states, mode) for mode in self._modes]
        return self._dense(pooled[0] if len(pooled) == 1 else torch.cat(pooled, -1))


def normalized(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors of length 1."""
    return normalize(vectors, dim=-1)


def _pool(states: torch.Tensor, mode: PoolingMode) -> torch.Tensor:
    length = states.shape[1]
    if mode == "cls":
        return states[:, 0]
    if mode == "lasttoken":
        return states[:, -1]
    if mode == "max":
        return states.amax(1)
    if mode == "weightedmean":
        weights = torch.arange(1, length + 1, dtype=torch.float32, device=states.device)
        return (states * (weights / weights.sum())[:, None]).sum(1)
    return states.sum(1) / (length if mode == "mean" else length**0.5)


def _load_dense(folder: Path) -> nn.Sequential:
    """A dense module of sentence-transformers."""
    config = read_json(folder / "config.json")
    name = str(config.get("activation_function") or "Identity").rsplit(".", 1)[-1]
    if name not in _ACTIVATIONS or config.get("use_residual") or not _plain_names(config):
        raise UnsupportedModelError(f"The dense layer in {folder.name} has an activation or inputs that are not known.")
    linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    weights_file = folder / "model.safetensors"
    weights: dict[str, Any] = (
        load_file(weights_file)
        if weights_file.is_file()
        else torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    )
    linear.load_state_dict({key.removeprefix("linear."): value.float() for key, value in weights.items()})
    return nn.Sequential(linear, _ACTIVATIONS[name]())


def _plain_names(config: dict[str, Any]) -> bool:
    """Whether the layer reads and writes the vector of the text."""
    own = "sentence_embedding"
    return all((config.get(key) or own) == own for key in ("module_input_name", "module_output_name"))
