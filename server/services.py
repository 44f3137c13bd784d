"""What the endpoints of one application share; made once at start, passed to each of them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from ..engine_core.guided_params import backend_options
from ..engine_core.pooling.pooling_config import PoolingConfig, load_pooling_config
from ..engine_core.serving_mode import ServingMode, serving_mode
from ..engine_core.tokenizer import Tokenizer, load_tokenizer
from .admission.admission import Admission
from .admission.drain import Drain
from .config import ServerConfig
from .constraints.grammar_compiler import GrammarCompiler
from .engine_link.engine_client import EngineClient
from .engine_link.input_processor import InputProcessor
from .engine_link.model_info import ModelInfo, load_model_info, overridden_sampling, resolve_tokenizer
from .engine_link.output_processor import OutputProcessor
from .engine_link.pooling_processor import PoolingProcessor
from .engine_link.quarantine import Quarantine
from .http.api_keys import KeyRing
from .http.errors import ApiError
from .http.metrics import Metrics, WorkerFigures
from .prompts.chat_template import ChatTemplate, load_chat_template
from .prompts.template_renderer import TemplateRenderer
from .server_folder import ServerFolder
from .server_status import EnginePhase, ServerStatus
from .tools.tool_settings import ToolSettings, load_tool_settings

RESTART_WAIT_SECONDS = 30.0
"""How long a new request waits for an engine that is being restarted, before it is told to come back."""


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
    tools: ToolSettings
    input_processor: InputProcessor
    pooling_processor: PoolingProcessor
    engine: EngineClient
    status: ServerStatus
    """What the launcher says of the server."""
    drain: Drain
    keys: KeyRing
    """Who may call."""
    admission: Admission
    grammar_compiler: GrammarCompiler
    template_renderer: TemplateRenderer
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
        """The name to answer with, whichever was asked for. Raises `ApiError` 404 for one that is not served."""
        if name and name not in self.config.model_names:
            raise ApiError(404, f"The model {name[:200]!r} is not served here.", param="model")
        return self.model_name

    async def check_engine(self) -> None:
        """Raise `ApiError` 503 while the engine cannot take requests; one that is being restarted is waited for."""
        if self.engine.ready is None and self._engine_will_be_back():
            await self.engine.wait_until_ready(RESTART_WAIT_SECONDS)
        reason = self.engine_problem()
        if reason is not None:
            raise ApiError(503, reason, headers={"retry-after": "1"})

    def engine_problem(self) -> str | None:
        """Why the engine cannot take requests now; None when it can."""
        if self.status.engine_phase == EnginePhase.LOST:
            return "The engine cannot be restarted; the server is shutting down."
        if self.engine.ready is not None:
            return None if self.engine.alive() else "The engine does not answer."
        if self._engine_will_be_back():
            return "The engine stopped and is being restarted; running requests will go on."
        return "The model is still loading."

    def figures(self) -> WorkerFigures:
        """What this worker holds now; belongs to its event loop."""
        return WorkerFigures(
            tasks=len(asyncio.all_tasks()),
            open_requests=self.drain.num_active,
            queued_requests=self.admission.num_requests,
            live_requests=self.engine.num_live,
            compilations=self.grammar_compiler.num_jobs,
        )

    def _engine_will_be_back(self) -> bool:
        """Whether there was an engine, seen by this worker or by the launcher alone."""
        phase = self.status.engine_phase
        return phase in (EnginePhase.SERVING, EnginePhase.RESTARTING) or (
            phase == EnginePhase.LOADING and self.engine.has_served
        )

    def problem(self) -> str | None:
        """Why no new request should come here; None when it should."""
        return "The server is shutting down." if self.drain.has_begun else self.engine_problem()


def load_services(config: ServerConfig, model_dir: str, folder: ServerFolder, status: ServerStatus) -> Services:
    """Read the model's directory and make the parts; the engine client is not started yet.

    Raises ValueError or OSError with a message for whoever starts the server.
    """
    backend_options("--guided-decoding-backend", config.guided_decoding_backend)
    tokenizer_dir = resolve_tokenizer(
        config.model, config.tokenizer, config.tokenizer_revision or config.revision, config.download_dir
    )
    tokenizer = load_tokenizer(tokenizer_dir or model_dir)
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
    metrics = Metrics(config.model_names[0], lambda: engine.stats, status)
    engine = EngineClient(
        folder.engine_address,
        input_processor,
        OutputProcessor(tokenizer),
        Quarantine(folder.quarantine),
        engine_timeout=config.engine_timeout,
        is_only_front_end=config.workers == 1,
        count_resumed=metrics.requests_resumed.inc,
        count_dropped=metrics.messages_dropped.inc,
    )
    chat_template = ChatTemplate(
        tokenizer, load_chat_template(config.chat_template), config.chat_template_content_format
    )
    return Services(
        config=config,
        model=model,
        mode=mode,
        pooling_config=pooling_config,
        default_sampling=overridden_sampling(model, config.override_generation_config),
        tokenizer=tokenizer,
        chat_template=chat_template,
        tools=load_tool_settings(
            config.tool_call_parser,
            enable_auto=config.enable_auto_tool_choice,
            exclude_tools_when_none=config.exclude_tools_when_tool_choice_none,
            template=chat_template.text_for_tools(),
            tokenizer=tokenizer,
        ),
        input_processor=input_processor,
        pooling_processor=PoolingProcessor(
            tokenizer, pooling_config, lambda: input_processor.max_model_len, model.vocab_size or tokenizer.vocab_size
        ),
        engine=engine,
        status=status,
        drain=Drain(status, engine, config.drain_timeout),
        keys=KeyRing(config.api_key, config.api_keys_file),
        admission=Admission(
            max_requests=config.max_queued_requests,
            max_tokens=config.max_queued_tokens,
            num_workers=config.workers,
            count_refused=metrics.requests_refused.inc,
        ),
        grammar_compiler=GrammarCompiler(
            timeout=config.grammar_timeout,
            memory=config.grammar_memory,
            observe_seconds=metrics.grammar_compile_seconds.observe,
        ),
        template_renderer=TemplateRenderer(),
        metrics=metrics,
    )
