"""An engine core that pools, alone or beside generation: what the engine's loop turns when embeddings are served.

Has the methods of `EngineCore` and hands each request to the half that it is for. When both have work, a turn is a step
of each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

from .config import EngineConfig
from .engine import EngineCore, build_engine_core
from .errors import UnsupportedModelError
from .host_runtime import tune_openmp
from .messages import EngineOutput, EngineReady, EngineRequest, EngineStats
from .pooling.pooling_core import PoolingCore
from .pooling.pooling_messages import PoolingRequest
from .scheduling.scheduler import ClientOutputs
from .serving_mode import serving_mode

logger = logging.getLogger(__name__)


def build_core(config: EngineConfig, progress: Callable[[str], None] = logger.info) -> Core:
    """Load the model and make the core for what it is served for. `progress` gets a line for what takes long.

    Raises `UnsupportedModelError` when the model cannot be served rightly.
    """
    if not Path(config.model, "config.json").is_file():
        raise UnsupportedModelError(f"{config.model} is not the directory of a model: it has no config.json.")
    mode = serving_mode(config.model, task=config.task, runner=config.runner, convert=config.convert)
    if mode.pooling is None:
        return build_engine_core(config, progress)
    tune_openmp()
    # Here and not above: they bring torch, which whoever only imports this module does not want to wait for.
    from .model.model_runner import ModelRunner
    from .pooling.pooling_loader import load_pooling_runner, share_with_generation

    if not mode.generates:
        return ServingCore(PoolingCore(load_pooling_runner(config, mode.pooling, progress), config, mode.pooling_tasks))
    runner = ModelRunner(config, progress)
    shared = share_with_generation(config, runner.loaded, runner.device, runner.max_model_len, progress)
    return ServingCore(PoolingCore(shared, config, mode.pooling_tasks), EngineCore(runner, config))


class ServingCore:
    """Serves requests of several clients; the keys of a client are those of both halves."""

    def __init__(self, pooling: PoolingCore, generation: EngineCore | None = None) -> None:
        self._pooling = pooling
        self._generation = generation
        self._answered: ClientOutputs = {}
        self.max_model_len = pooling.max_model_len if generation is None else generation.max_model_len

    def describe(self) -> EngineReady:
        """What a front-end must know of this engine."""
        if self._generation is not None:
            return self._generation.describe()
        pooling = self._pooling
        return EngineReady(
            max_model_len=pooling.max_model_len,
            vocab_size=pooling.vocab_size,
            num_blocks=0,
            block_size=0,
            dtype=pooling.dtype,
            enable_prefix_caching=False,
        )

    def add_request(self, message: EngineRequest | PoolingRequest, client: bytes = b"") -> None:
        """Queue a request. One that cannot be served is answered with an error by the next step."""
        if isinstance(message, PoolingRequest):
            self._pooling.add_request(message, client)
        elif self._generation is not None:
            self._generation.add_request(message, client)
        else:
            error = EngineOutput(message.key, [], "error", error="This model is served for pooling alone.")
            self._answered.setdefault(client, []).append(error)

    def prepare_guided_decoding(self, when_done: Callable[[], object] = lambda: None) -> None:
        """See `EngineCore.prepare_guided_decoding`."""
        if self._generation is not None:
            self._generation.prepare_guided_decoding(when_done)

    def abort(self, client: bytes, keys: Iterable[int]) -> None:
        """Forget requests; nothing more comes of them. Unknown keys are passed over."""
        keys = list(keys)
        self._pooling.abort(client, keys)
        if self._generation is not None:
            self._generation.abort(client, keys)

    def abort_client(self, client: bytes) -> list[int]:
        """Forget all requests of a client; their keys."""
        keys = self._pooling.abort_client(client)
        return keys if self._generation is None else keys + self._generation.abort_client(client)

    def has_unfinished(self) -> bool:
        """Whether a step would bring anything."""
        generates = self._generation is not None and self._generation.has_unfinished()
        return generates or self._pooling.has_unfinished() or bool(self._answered)

    def step(self) -> ClientOutputs:
        """A step of each half that has work; what to tell each client."""
        outputs, self._answered = self._answered, {}
        for half in (self._generation, self._pooling):
            if half is not None and half.has_unfinished():
                for client, client_outputs in half.step().items():
                    outputs.setdefault(client, []).extend(client_outputs)
        return outputs

    def check(self) -> None:
        """See `EngineCore.check`. Texts that are pooled leave nothing behind."""
        if self._generation is not None:
            self._generation.check()

    def stats(self) -> EngineStats:
        stats = EngineStats() if self._generation is None else self._generation.stats()
        stats.num_waiting += self._pooling.num_waiting
        stats.num_steps += self._pooling.num_steps
        stats.num_step_tokens += self._pooling.num_step_tokens
        return stats

    def reset_prefix_cache(self) -> None:
        """Forget every cached prefix that no running request holds."""
        if self._generation is not None:
            self._generation.reset_prefix_cache()


Core: TypeAlias = EngineCore | ServingCore
"""What the engine's loop and the offline API turn."""
