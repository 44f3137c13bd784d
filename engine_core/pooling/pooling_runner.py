"""Runs the texts of a pooling step through the model and makes the answers of its output.

The counterpart of `model_runner` for what does not generate: `PoolingCore` hands it whole texts and gets an answer for
each. `pooling_loader` makes it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .pooler import Pooler, normalized
from .pooling_config import Activation, PoolingConfig
from .pooling_messages import Pooled, PoolingRequest
from .pooling_params import PoolingParams
from .text_group import PooledModel, TextGroup, group_by_length

NOT_FINITE = "The model gave no finite numbers for this text."


class PoolingRunner:
    """One model that pools, on one device."""

    def __init__(
        self,
        model: PooledModel,
        pooler: Pooler | None,
        config: PoolingConfig,
        *,
        device: torch.device,
        max_model_len: int,
        vocab_size: int,
        dtype: str,
    ) -> None:
        """`pooler` makes vectors of the model's states; None: the model has a head that classifies."""
        self.max_model_len = max_model_len
        self.vocab_size = vocab_size
        self.dtype = dtype
        self._model = model
        self._pooler = pooler
        self._config = config
        self._device = device

    def execute(self, requests: Sequence[PoolingRequest]) -> list[Pooled | str]:
        """Run one step: an answer for each request, in the same order, or why there is none."""
        answers: list[Pooled | str] = [NOT_FINITE] * len(requests)
        with torch.inference_mode():
            for group, output in self._model.run(group_by_length(requests, self._device)):
                params = [requests[number].params for number in group.numbers]
                results = self._classified(output, params) if self._pooler is None else self._embedded(output, params)
                for number, result in zip(group.numbers, results, strict=True):
                    answers[number] = _answer(result)
        return answers

    def warm_up(self, num_tokens: int) -> None:
        """Let every kernel be compiled and every weight be touched once."""
        with torch.inference_mode():
            for length in (min(num_tokens, 64), 1):
                list(self._model.run([TextGroup([0], torch.zeros(1, length, dtype=torch.long, device=self._device))]))

    def _embedded(self, states: torch.Tensor, params: list[PoolingParams]) -> list[torch.Tensor]:
        """states [count, length, hidden_size] to a vector each, or to one a token."""
        assert self._pooler is not None
        results: list[torch.Tensor] = []
        pooled = self._pooler.vectors(states) if any(param.task == "embed" for param in params) else None
        plain = pooled is not None and all(param == params[0] for param in params)
        if pooled is not None and plain:
            return list(self._finished(pooled, params[0]).cpu())
        for index, param in enumerate(params):
            vectors = states[index].float() if pooled is None or param.task == "token_embed" else pooled[index]
            results.append(self._finished(vectors, param).cpu())
        return results

    def _finished(self, vectors: torch.Tensor, params: PoolingParams) -> torch.Tensor:
        """Vectors [..., size] cut and normalised as asked."""
        if params.dimensions is not None:
            vectors = vectors[..., : params.dimensions]
        wanted = self._config.normalize if params.use_activation is None else params.use_activation
        return normalized(vectors) if wanted else vectors

    def _classified(self, logits: torch.Tensor, params: list[PoolingParams]) -> list[torch.Tensor]:
        """logits [count, ..., num_labels] to probabilities."""
        logits = logits.float().cpu()
        probabilities = _activated(logits, self._config.activation)
        return [
            row if param.use_activation is False else active
            for row, active, param in zip(logits, probabilities, params, strict=True)
        ]


def _activated(logits: torch.Tensor, activation: Activation) -> torch.Tensor:
    if activation == "softmax":
        return logits.softmax(-1)
    return logits.sigmoid() if activation == "sigmoid" else logits


def _answer(result: torch.Tensor) -> Pooled | str:
    if not bool(torch.isfinite(result).all()):
        return NOT_FINITE
    return Pooled(result.contiguous().numpy().astype("<f4", copy=False).tobytes(), list(result.shape))
