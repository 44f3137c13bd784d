"""The typed configuration of the server: one frozen dataclass, of which the command line, its help and the
configuration file are views.

`cli.py` fills it, `launcher.py` passes it to the front-end workers and, cut down to `EngineConfig`, to the
engine. An attribute's docstring is its help text. A flag is here only when it does something.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter, Token, validators

from ..engine_core.config import DEFAULT_MAX_NUM_BATCHED_TOKENS, Dtype, EngineConfig, LoadFormat, SchedulingPolicy
from ..engine_core.serving_mode import ConvertFlag, RunnerFlag, TaskFlag

ContentFormat = Literal["auto", "string", "openai"]
LogLevel = Literal["debug", "info", "warning", "error"]

_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}


def human_size(text: str) -> int:
    """`8k` is 8,000 and `8K` is 8,192, as in vLLM; the same for m/M and g/G; `1.5k` is fine.

    Raises ValueError for anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgG]?)", text.strip())
    if match is None:
        raise ValueError(f"expected a size such as 4096, 8k or 4G, got {text!r}")
    return int(float(match[1]) * _SUFFIXES[match[2]]) if "." in match[1] else int(match[1]) * _SUFFIXES[match[2]]


def _size(_: Any, tokens: Sequence[Token]) -> int:
    size = human_size(tokens[0].value)
    if size < 1:
        raise ValueError("must be at least 1")
    return size


def _size_or_auto(_: Any, tokens: Sequence[Token]) -> int | None:
    return None if tokens[0].value.lower() in ("auto", "-1", "none") else _size(_, tokens)


def _strings(_: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    """Values as given one after another, or as a JSON list."""
    values: list[str] = []
    for token in tokens:
        if not token.value.startswith("["):
            values.append(token.value)
            continue
        items = json.loads(token.value)
        if not all(isinstance(item, str) for item in items):
            raise ValueError("expected a list of strings")
        values += items
    return tuple(values)


def _json_object(_: Any, tokens: Sequence[Token]) -> dict[str, Any]:
    value = json.loads(tokens[0].value)
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    return value


_MODEL = Group("Model", sort_key=1)
_SERVER = Group("Server", sort_key=2)
_ENGINE = Group("Engine", sort_key=3)
_REQUESTS = Group("Requests", sort_key=4)
_LOGGING = Group("Logging", sort_key=5)

_STRINGS = Parameter(
    converter=_strings,
    consume_multiple=True,
    negative=(),
    n_tokens=1,
    accepts_keys=False,
    show_default=" ".join,
)
_SIZE = Parameter(converter=_size, n_tokens=1)
_SIZE_OR_AUTO = Parameter(converter=_size_or_auto, n_tokens=1, allow_leading_hyphen=True, show_default=lambda _: "auto")
_JSON = Parameter(converter=_json_object, n_tokens=1, accepts_keys=False, negative=(), show_default=False)
_POSITIVE = Parameter(validator=validators.Number(gte=1))


@Parameter(name="*")
@dataclass(frozen=True)
class ServerConfig:
    """Everything that the server can be told at its start."""

    model: Annotated[str, Parameter(group=_MODEL)]
    """Directory of a model in Hugging Face form, or a hub name that is in the local cache."""
    _: KW_ONLY
    served_model_name: Annotated[tuple[str, ...], _STRINGS, Parameter(group=_MODEL, show_default=False)] = ()
    """Names that requests may use; the first one stands in the answers. Default: what --model says."""
    tokenizer: Annotated[str | None, Parameter(group=_MODEL)] = None
    """Directory or hub name of the tokenizer, where it is not with the model."""
    revision: Annotated[str | None, Parameter(group=_MODEL)] = None
    """Branch, tag or commit of a hub name."""
    dtype: Annotated[Dtype, Parameter(group=_MODEL)] = "auto"
    """Type of the weights and of the cache; auto: what the model was saved in."""
    load_format: Annotated[LoadFormat, Parameter(group=_MODEL)] = "auto"
    """auto: safetensors, else PyTorch files; dummy: random weights, no files read."""
    max_model_len: Annotated[int | None, _SIZE_OR_AUTO, Parameter(group=_MODEL)] = None
    """Longest prompt plus output in tokens: 8192, 8k, 1M, or auto (-1): what the model was made for."""
    task: Annotated[TaskFlag, Parameter(group=_MODEL)] = "auto"
    """embedding (or embed, score): a language model serves embeddings beside generation; auto: what the model is
    made for.
    """
    runner: Annotated[RunnerFlag, Parameter(group=_MODEL)] = "auto"
    """pooling: embeddings, scores and classes alone; a language model then needs no KV cache."""
    convert: Annotated[ConvertFlag, Parameter(group=_MODEL)] = "auto"
    """embed: serve a classifier as an embedding model. The other values say what is done anyway, or are refused."""
    pooler_config: Annotated[dict[str, Any], _JSON, Parameter(group=_MODEL, alias="--override-pooler-config")] = field(
        default_factory=dict
    )
    """How vectors are made, as a JSON object over the model's own: pooling_type (CLS, LAST, MEAN, MAX), normalize."""
    generation_config: Annotated[str, Parameter(group=_MODEL)] = "auto"
    """Source of default sampling parameters: auto (generation_config.json of the model), vllm (none), a
    folder.
    """
    override_generation_config: Annotated[dict[str, Any], _JSON, Parameter(group=_MODEL)] = field(default_factory=dict)
    """Default sampling parameters as a JSON object, over those of the generation config."""

    host: Annotated[str, Parameter(group=_SERVER)] = "0.0.0.0"
    """Address to listen on; the default is every interface."""
    port: Annotated[int, Parameter(group=_SERVER, validator=validators.Number(gte=1, lte=65535))] = 8000
    """Port to listen on."""
    uds: Annotated[Path | None, Parameter(group=_SERVER)] = None
    """Path of a Unix domain socket to listen on instead of host and port."""
    workers: Annotated[int, _POSITIVE, Parameter(group=_SERVER)] = 1
    """Front-end processes; one carries some thousands of tokens a second."""
    api_key: Annotated[
        tuple[str, ...],
        _STRINGS,
        Parameter(group=_SERVER, env_var=("ZQSERVE_API_KEY", "VLLM_API_KEY"), show_default=False),
    ] = ()
    """Keys that a client may show as "Authorization: Bearer KEY"; without one everybody is let in."""
    guard_metrics: Annotated[bool, Parameter(group=_SERVER)] = True
    """Whether /metrics needs the key too. Without --api-key nothing is guarded."""
    root_path: Annotated[str, Parameter(group=_SERVER, show_default=False)] = ""
    """Path prefix under which a proxy serves this server."""
    allowed_origins: Annotated[tuple[str, ...], _STRINGS, Parameter(group=_SERVER, show_default=False)] = ()
    """Origins whose web pages may call the server (CORS), as words or a JSON list; "*": every one."""
    allowed_methods: Annotated[tuple[str, ...], _STRINGS, Parameter(group=_SERVER)] = ("*",)
    """Methods that CORS allows."""
    allowed_headers: Annotated[tuple[str, ...], _STRINGS, Parameter(group=_SERVER)] = ("*",)
    """Request headers that CORS allows."""
    allow_credentials: Annotated[bool, Parameter(group=_SERVER)] = False
    """Whether CORS allows credentials."""
    max_body_size: Annotated[int, _SIZE, Parameter(group=_SERVER, show_default=lambda _: "32M")] = 32 * 2**20
    """Largest request body in bytes; a longer one is answered 413 before it is read whole."""
    shutdown_timeout: Annotated[int, _POSITIVE, Parameter(group=_SERVER)] = 30
    """Seconds that running requests have to end after SIGTERM or SIGINT before they are cut off."""
    config: Annotated[Path | None, Parameter(group=_SERVER)] = None
    """YAML file of flags without their dashes. Command line wins over environment, environment over file."""

    kv_cache_memory: Annotated[
        int | None,
        _SIZE,
        Parameter(group=_ENGINE, alias="--kv-cache-memory-bytes", show_default=lambda _: "from free memory"),
    ] = None
    """Size of the KV cache in bytes, or such as 4G."""
    num_gpu_blocks_override: Annotated[int | None, _POSITIVE, Parameter(group=_ENGINE)] = None
    """Number of blocks of the KV cache, whatever the memory says."""
    block_size: Annotated[int, Parameter(group=_ENGINE, validator=validators.Number(gte=16, modulo=16))] = 16
    """Tokens of a block of the KV cache, a multiple of 16."""
    gpu_memory_utilization: Annotated[float, Parameter(group=_ENGINE, validator=validators.Number(gt=0, lte=1))] = 0.92
    """Share of a GPU's memory that weights, cache and workspace may take."""
    max_num_seqs: Annotated[int, _POSITIVE, Parameter(group=_ENGINE)] = 256
    """Requests that run at once."""
    max_num_batched_tokens: Annotated[int, _SIZE, Parameter(group=_ENGINE)] = DEFAULT_MAX_NUM_BATCHED_TOKENS
    """Token budget of a step."""
    enable_prefix_caching: Annotated[bool, Parameter(group=_ENGINE)] = True
    """Whether requests share the cache of a common prefix."""
    scheduling_policy: Annotated[SchedulingPolicy, Parameter(group=_ENGINE)] = "fcfs"
    """fcfs: in order of arrival; priority: a lower "priority" of the request first."""
    device: Annotated[Literal["auto", "cpu", "cuda"], Parameter(group=_ENGINE)] = "auto"
    """Where the model runs."""
    jump_ahead: Annotated[bool, Parameter(group=_ENGINE)] = True
    """Whether tokens that a grammar leaves no choice about are appended without being sampled."""
    num_threads: Annotated[int | None, _POSITIVE, Parameter(group=_ENGINE, show_default=lambda _: "one a core")] = None
    """Threads of the CPU kernels."""
    seed: Annotated[int, Parameter(group=_ENGINE)] = 0
    """Seed of the weights that --load-format dummy makes up."""

    chat_template: Annotated[str | None, Parameter(group=_REQUESTS)] = None
    """Path or text of a Jinja2 chat template, instead of the model's own."""
    chat_template_content_format: Annotated[ContentFormat, Parameter(group=_REQUESTS)] = "auto"
    """What the template sees as message content: a string, or a list of parts as in the OpenAI API."""
    trust_request_chat_template: Annotated[bool, Parameter(group=_REQUESTS)] = True
    """Whether a request may bring its own chat_template (it runs in a sandbox)."""
    response_role: Annotated[str, Parameter(group=_REQUESTS)] = "assistant"
    """Role of the answer in chat completions."""
    max_logprobs: Annotated[
        int, Parameter(group=_REQUESTS, allow_leading_hyphen=True, validator=validators.Number(gte=-1))
    ] = 20
    """Most logprobs a request may ask for; -1: up to the whole vocabulary."""
    return_tokens_as_token_ids: Annotated[bool, Parameter(group=_REQUESTS)] = False
    """Whether tokens in logprobs are written as token_id:N where a request does not say."""
    score_format: Annotated[Literal["auto", "float", "list"], Parameter(group=_REQUESTS)] = "auto"
    """Form of a score: a number, or a list of one; auto: a list from /v1/score, a number from /score."""
    enable_prompt_tokens_details: Annotated[bool, Parameter(group=_REQUESTS)] = False
    """Whether usage says how many prompt tokens came from the prefix cache."""
    guided_decoding_backend: Annotated[str, Parameter(group=_REQUESTS)] = "auto"
    """Any name that vLLM knows means the one compiler; its options hold where a request names no backend:
    NAME:disable-any-whitespace, NAME:no-additional-properties, NAME:any-property-order.
    """
    grammar_timeout: Annotated[float, Parameter(group=_REQUESTS, validator=validators.Number(gt=0))] = 10.0
    """Seconds that a schema, a pattern or a grammar may take to compile; more is answered 400."""
    grammar_memory: Annotated[int, _SIZE, Parameter(group=_REQUESTS, show_default=lambda _: "1G")] = 2**30
    """Bytes that compiling one may take, or such as 512M; more is answered 400."""

    log_level: Annotated[LogLevel, Parameter(group=_LOGGING, alias="--uvicorn-log-level")] = "info"
    """Least severe messages that are logged."""
    log_requests: Annotated[
        bool, Parameter(group=_LOGGING, name="--enable-log-requests", negative="--disable-log-requests")
    ] = True
    """Whether every finished request gets a line: id, model, counts, times; never its text."""
    log_prompts: Annotated[bool, Parameter(group=_LOGGING)] = False
    """Whether that line also shows the beginning of the prompt."""
    max_log_len: Annotated[int, _POSITIVE, Parameter(group=_LOGGING)] = 200
    """Most characters of the prompt that --log-prompts shows."""
    access_log: Annotated[bool, Parameter(group=_LOGGING)] = False
    """Whether every HTTP request gets a line."""

    @property
    def model_names(self) -> tuple[str, ...]:
        """The names that requests may use; the first one is written into the answers."""
        return self.served_model_name or (self.model,)

    def engine_config(self, model_dir: str, tokenizer_dir: str | None = None) -> EngineConfig:
        """The engine's share, for the model found at `model_dir`; `tokenizer_dir` where that is another folder."""
        return EngineConfig(
            model=model_dir,
            tokenizer=tokenizer_dir,
            dtype=self.dtype,
            max_model_len=self.max_model_len,
            load_format=self.load_format,
            seed=self.seed,
            device=self.device,
            block_size=self.block_size,
            kv_cache_memory_bytes=self.kv_cache_memory,
            num_blocks=self.num_gpu_blocks_override,
            gpu_memory_utilization=self.gpu_memory_utilization,
            max_num_seqs=self.max_num_seqs,
            max_num_batched_tokens=self.max_num_batched_tokens,
            enable_prefix_caching=self.enable_prefix_caching,
            scheduling_policy=self.scheduling_policy,
            jump_ahead=self.jump_ahead,
            task=self.task,
            runner=self.runner,
            convert=self.convert,
            pooler_config=self.pooler_config,
            num_threads=self.num_threads,
        )
