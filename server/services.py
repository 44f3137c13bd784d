"""What the endpoints of one application share; made once at start, passed to each of them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ..engine_core.guided_params import backend_options
from ..engine_core.pooling_config import PoolingConfig, load_pooling_config
from ..engine_core.sampling_params import SamplingParams
from ..engine_core.serving_mode import ServingMode, serving_mode
from ..engine_core.tokenizer import Tokenizer, load_tokenizer
from .chat_template import ChatTemplate, load_chat_template
from .config import ServerConfig
from .engine_client import EngineClient
from .errors import ApiError
from .grammar_compiler import GrammarCompiler
from .input_processor import InputProcessor
from .metrics import Metrics
from .model_info import ModelInfo, load_model_info, resolve_model
from .output_processor import OutputProcessor
from .pooling_processor import PoolingProcessor


@dataclass(frozen=True, kw_only=True)
class Services:
    """The parts that answer requests."""

    config: ServerConfig
    model: ModelInfo
    mode: ServingMode
    """Which requests the model answers."""
    pooling_config: PoolingConfig
    """How its output is pooled, where it is."""
    default_sampling: dict[str, Any]
    """Of the model's generation config, with what the command line puts over it."""
    tokenizer: Tokenizer
    chat_template: ChatTemplate
    input_processor: InputProcessor
    pooling_processor: PoolingProcessor
    engine: EngineClient
    grammar_compiler: GrammarCompiler
    metrics: Metrics
    created: int = field(default_factory=lambda: int(time.time()))
    """When the server started, in Unix seconds."""

    @property
    def model_name(self) -> str:
        """The name that stands in answers."""
        return self.config.model_names[0]

    @property
    def max_model_len(self) -> int:
        """Longest prompt plus output in tokens; the engine may have lowered what the model allows."""
        return self.input_processor.max_model_len

    def tokens_as_ids(self, asked: bool | None) -> bool:
        """Whether logprobs name tokens by their ids: as the request says, else as the server is told."""
        return self.config.return_tokens_as_token_ids if asked is None else asked

    def check_model(self, name: str | None) -> str:
        """The name to answer with: the one that was asked for. Raises `ApiError` 404 for one that is not
        served.
        """
        if not name:
            return self.model_name
        if name not in self.config.model_names:
            raise ApiError(404, f"The model {name[:200]!r} is not served here.", param="model")
        return name

    def check_engine(self) -> None:
        """Raise `ApiError` 503 while the engine cannot take requests."""
        reason = self.engine_problem()
        if reason is not None:
            raise ApiError(503, reason, headers={"retry-after": "1"})

    def engine_problem(self) -> str | None:
        """Why the engine cannot take requests now; None when it can."""
        if self.engine.ready is None:
            return "The model is still loading."
        if not self.engine.alive():
            return "The engine does not answer."
        return None


def load_services(config: ServerConfig, model_dir: str, engine_address: str) -> Services:
    """Read the model's directory and make the parts; the engine client is not started yet.

    Raises ValueError or OSError with a message for whoever starts the server.
    """
    backend_options("--guided-decoding-backend", config.guided_decoding_backend)
    tokenizer_dir = model_dir if config.tokenizer is None else resolve_model(config.tokenizer, config.revision)
    tokenizer = load_tokenizer(tokenizer_dir)
    model = load_model_info(
        model_dir,
        max_model_len=config.max_model_len,
        generation_config=config.generation_config,
        tokenizer_eos_token_id=tokenizer.eos_token_id,
    )
    mode = serving_mode(model_dir, task=config.task, runner=config.runner, convert=config.convert)
    pooling_config = PoolingConfig()
    if mode.pooling is not None:
        pooling_config = load_pooling_config(model_dir, config.pooler_config)
    input_processor = InputProcessor(model, tokenizer, max_logprobs=config.max_logprobs)
    engine = EngineClient(engine_address, input_processor, OutputProcessor(tokenizer))
    template = load_chat_template(config.chat_template)
    metrics = Metrics(config.model_names[0], lambda: engine.stats)
    return Services(
        config=config,
        model=model,
        mode=mode,
        pooling_config=pooling_config,
        default_sampling=_default_sampling(model, config.override_generation_config),
        tokenizer=tokenizer,
        chat_template=ChatTemplate(tokenizer, template, config.chat_template_content_format),
        input_processor=input_processor,
        pooling_processor=PoolingProcessor(
            tokenizer, pooling_config, lambda: input_processor.max_model_len, model.vocab_size or tokenizer.vocab_size
        ),
        engine=engine,
        grammar_compiler=GrammarCompiler(
            timeout=config.grammar_timeout,
            memory=config.grammar_memory,
            observe_seconds=metrics.grammar_compile_seconds.observe,
        ),
        metrics=metrics,
    )


_OVERRIDABLE = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens")


def _default_sampling(model: ModelInfo, overrides: dict[str, Any]) -> dict[str, Any]:
    """The model's default sampling with `overrides` over it. Raises ValueError."""
    unknown = sorted(set(overrides) - set(_OVERRIDABLE))
    if unknown:
        raise ValueError(
            f"--override-generation-config takes {', '.join(_OVERRIDABLE)}; it does not take {', '.join(unknown)}."
        )
    defaults = dict(model.default_sampling)
    for name, value in overrides.items():
        defaults["max_tokens" if name == "max_new_tokens" else name] = value
    SamplingParams(**defaults)  # a mistake shall stop the start, not every request
    return defaults
