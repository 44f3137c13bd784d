"""Pooling in the caller's own process: what `LLM.embed`, `encode`, `classify` and `score` do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import torch
from tqdm import tqdm

from ..engine_core.errors import InvalidRequestError, RequestFailedError
from ..engine_core.pooling.pooling_messages import Pooled, PoolingRequest
from ..engine_core.pooling.pooling_params import PoolingParams, PoolingTask
from ..engine_core.serving_core import Core
from ..engine_core.serving_mode import ServingMode
from ..pooling_outputs import PoolingRequestOutput
from ..server.endpoints.vector_format import cosine
from ..server.engine_link.pooling_processor import PoolingInput, PoolingProcessor, Truncation

_CLIENT = b""
"""How the engine core names its one client in process."""


class OfflinePooling:
    """Runs texts through the engine core of an `LLM`."""

    def __init__(self, core: Core, processor: PoolingProcessor, mode: ServingMode, num_labels: int) -> None:
        self._core = core
        self._processor = processor
        self._mode = mode
        self._num_labels = num_labels
        self._num_requests = 0

    def pool(
        self,
        prompts: Sequence[str | list[int]],
        task: PoolingTask | None,
        params: PoolingParams | Sequence[PoolingParams] | None,
        truncate_prompt_tokens: int | None,
        use_tqdm: bool | Callable[..., tqdm[Any]],
    ) -> list[PoolingRequestOutput[torch.Tensor]]:
        """The numbers of each prompt, in order. `task` None: what the model is served for.

        Raises `InvalidRequestError` before anything is computed, and `RequestFailedError`.
        """
        inputs = self._processor.encode_now(prompts, Truncation(limit=truncate_prompt_tokens))
        return self._run(inputs, self._params(len(inputs), task, params), use_tqdm)

    def score(
        self,
        firsts: Sequence[str],
        seconds: Sequence[str],
        params: PoolingParams | None,
        truncate_prompt_tokens: int | None,
        use_tqdm: bool | Callable[..., tqdm[Any]],
    ) -> list[tuple[PoolingRequestOutput[torch.Tensor], float]]:
        """A score for each pair: one text against all others, or as many as they are."""
        if not seconds or len(firsts) not in (1, len(seconds)):
            raise InvalidRequestError(
                "text_1", f"text_1 is one text or as many as text_2, got {len(firsts)} and {len(seconds)}."
            )
        cut = Truncation(limit=truncate_prompt_tokens)
        pairs = list(zip(firsts if len(firsts) > 1 else [*firsts] * len(seconds), seconds, strict=True))
        if self._mode.pooling == "classify":
            if self._num_labels != 1:
                raise InvalidRequestError(
                    None, f"This model tells {self._num_labels} classes apart; a score needs a model with one."
                )
            inputs = self._processor.encode_pairs_now(pairs, cut)
            results = self._run(inputs, self._params(len(inputs), "classify", params), use_tqdm)
            return [(result, float(result.outputs[0])) for result in results]
        texts = list(dict.fromkeys([*firsts, *seconds]))
        inputs = self._processor.encode_now(texts, cut)
        found = dict(zip(texts, self._run(inputs, self._params(len(inputs), "embed", params), use_tqdm), strict=True))
        scored = []
        for first, second in pairs:
            score = cosine(found[first].outputs.tolist(), found[second].outputs.tolist())
            tokens = [*found[first].prompt_token_ids, *found[second].prompt_token_ids]
            scored.append((PoolingRequestOutput(found[second].request_id, found[second].outputs, tokens), score))
        return scored

    def _params(
        self, count: int, task: PoolingTask | None, given: PoolingParams | Sequence[PoolingParams] | None
    ) -> list[PoolingParams]:
        """Complete parameters for each prompt. Raises `InvalidRequestError` for what the model does not answer."""
        if isinstance(given, PoolingParams) or given is None:
            given = [given or PoolingParams()] * count
        if len(given) != count:
            raise InvalidRequestError("pooling_params", f"There are {count} prompts, but {len(given)} pooling_params.")
        tasks = self._mode.pooling_tasks
        complete = []
        for params in given:
            wanted = task or params.task or next(iter(tasks), "embed")
            if wanted not in tasks:
                raise InvalidRequestError(
                    "task",
                    f"{self._mode.architecture} does not answer the task {wanted}"
                    + (f", but {', '.join(tasks)}." if tasks else '; make the LLM with task="embedding".'),
                )
            if params.dimensions is not None:
                self._processor.check_dimensions(params.dimensions)
            complete.append(msgspec.structs.replace(params, task=wanted))
        return complete

    def _run(
        self, inputs: list[PoolingInput], params: list[PoolingParams], use_tqdm: bool | Callable[..., tqdm[Any]]
    ) -> list[PoolingRequestOutput[torch.Tensor]]:
        keys = range(self._num_requests, self._num_requests + len(inputs))
        self._num_requests += len(inputs)
        pooled: dict[int, Pooled] = {}
        make = use_tqdm if callable(use_tqdm) else tqdm
        with make(total=len(inputs), desc="Processed texts", dynamic_ncols=True, disable=use_tqdm is False) as bar:
            try:
                for key, given, param in zip(keys, inputs, params, strict=True):
                    self._core.add_request(
                        PoolingRequest(
                            key=key,
                            prompt_token_ids=given.token_ids,
                            token_type_ids=given.token_type_ids,
                            params=param,
                        ),
                        _CLIENT,
                    )
                while self._core.has_unfinished():
                    for output in self._core.step().get(_CLIENT, ()):
                        if output.pooled is None:
                            raise RequestFailedError(output.error or "The engine gave no answer for a text.")
                        pooled[output.key] = output.pooled
                        bar.update()
            finally:
                # Nothing is left of texts that an error or Ctrl-C cut short.
                self._core.abort(_CLIENT, keys)
        return [
            PoolingRequestOutput(str(key), _tensor(pooled[key]), given.token_ids)
            for key, given in zip(keys, inputs, strict=True)
        ]


def single_texts(name: str, given: Any) -> list[str]:
    """One text or several. Raises `InvalidRequestError`."""
    texts: list[str] = []
    for item in [given] if isinstance(given, str | Mapping) else given:
        text = item.get("prompt") if isinstance(item, Mapping) else item
        if not isinstance(text, str):
            raise InvalidRequestError(name, f"{name} must be a string or a list of strings.")
        texts.append(text)
    return texts


def _tensor(pooled: Pooled) -> torch.Tensor:
    return torch.frombuffer(bytearray(pooled.data), dtype=torch.float32).view(pooled.shape)
