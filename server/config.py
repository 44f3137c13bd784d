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
from typing import Annotated, Any, Literal, get_args

from cyclopts import Group, Parameter, Token, validators

from ..engine_core.config import (
    Dtype,
    EngineConfig,
    LoadFormat,
    LogprobsFlag,
    Quantization,
    SchedulingPolicy,
    logprobs_mode_of,
)
from ..engine_core.serving_mode import ConvertFlag, RunnerFlag, TaskFlag
from .command_line.speculative_config import prompt_lookup_of
from .command_line.structured_outputs_config import backend_of_config

ContentFormat = Literal["auto", "string", "openai"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]

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


def _check_speculation(_: Any, config: dict[str, Any]) -> None:
    prompt_lookup_of(config)


def _words(_: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    """Values as given one after another, with commas between them, or as a JSON list."""
    values = _strings(_, tokens)
    return tuple(word.strip() for value in values for word in value.split(",") if word.strip())


def _log_level(_: Any, tokens: Sequence[Token]) -> str:
    """uvicorn's "trace" is our "debug"."""
    level = tokens[0].value.lower()
    if level not in ("trace", *get_args(LogLevel)):
        raise ValueError(f"expected one of {', '.join(get_args(LogLevel))}, got {level!r}")
    return "debug" if level == "trace" else level


def _json_object(_: Any, tokens: Sequence[Token]) -> dict[str, Any]:
    value = json.loads(tokens[0].value)
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    return value


def _backend(_: Any, tokens: Sequence[Token]) -> str:
    return backend_of_config(tokens[0].value)


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
_WORDS = Parameter(converter=_words, consume_multiple=True, negative=(), n_tokens=1, accepts_keys=False)
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
    tokenizer_revision: Annotated[str | None, Parameter(group=_MODEL)] = None
    """Branch, tag or commit of the tokenizer; default: what --revision says."""
    revision: Annotated[str | None, Parameter(group=_MODEL)] = None
    """Branch, tag or commit of a hub name."""
    download_dir: Annotated[Path | None, Parameter(group=_MODEL, show_default=lambda _: "HF_HUB_CACHE")] = None
    """Hugging Face cache in which hub names are looked up; `zqserve models pull` fills it. Nothing is downloaded."""
    dtype: Annotated[Dtype, Parameter(group=_MODEL)] = "auto"
    """Type of the weights and of the cache; auto: what the model was saved in."""
    quantization: Annotated[Quantization, Parameter(group=_MODEL, alias="-q")] = "none"
    """int8: linear layers' weights are rounded when they are loaded, for half their memory and about twice the speed
    of small batches, on a CPU.
    """
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
    workers: Annotated[int, _POSITIVE, Parameter(group=_SERVER, alias="--api-server-count")] = 1
    """Front-end processes; one carries some thousands of tokens a second."""
    api_key: Annotated[
        tuple[str, ...],
        _STRINGS,
        Parameter(group=_SERVER, env_var=("ZQSERVE_API_KEY", "VLLM_API_KEY"), show_default=False),
    ] = ()
    """Keys that a client may show as "Authorization: Bearer KEY"; without one everybody is let in."""
    guard_metrics: Annotated[bool, Parameter(group=_SERVER)] = True
    """Whether /metrics needs the key too. Without --api-key nothing is guarded."""
    disable_fastapi_docs: Annotated[bool, Parameter(group=_SERVER, negative=())] = False
    """Leave out /docs and /openapi.json."""
    guard_docs: Annotated[bool, Parameter(group=_SERVER)] = True
    """Whether /docs and /openapi.json need the key too; a browser can open the page only without."""
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
    middleware: Annotated[tuple[str, ...], _STRINGS, Parameter(group=_SERVER, show_default=False)] = ()
    """ASGI middleware of yours, as module.name: a class, or an async function (request, call_next)."""
    ssl_certfile: Annotated[Path | None, Parameter(group=_SERVER)] = None
    """Certificate chain (PEM); with it the server speaks HTTPS."""
    ssl_keyfile: Annotated[Path | None, Parameter(group=_SERVER, show_default=lambda _: "in --ssl-certfile")] = None
    """Private key of the certificate (PEM)."""
    ssl_ca_certs: Annotated[Path | None, Parameter(group=_SERVER)] = None
    """Authorities (PEM) whose certificates clients may show; see --ssl-cert-reqs."""
    ssl_cert_reqs: Annotated[Literal[0, 2], Parameter(group=_SERVER)] = 0
    """2: every client must show a certificate; 0: none is asked for. The 1 of Python's ssl is not supported."""
    enable_ssl_refresh: Annotated[bool, Parameter(group=_SERVER)] = False
    """Whether the workers are replaced, one after another, when a TLS file changes; open requests end first."""
    dev_endpoints: Annotated[bool, Parameter(group=_SERVER)] = False
    """Whether POST /reset_prefix_cache and GET /server_info answer."""
    max_body_size: Annotated[int, _SIZE, Parameter(group=_SERVER, show_default=lambda _: "32M")] = 32 * 2**20
    """Largest request body in bytes; a longer one is answered 413 before it is read whole."""
    body_timeout: Annotated[float, Parameter(group=_SERVER, validator=validators.Number(gt=0))] = 60.0
    """Seconds that a client may take to send the body of a request before it is answered 408."""
    api_keys_file: Annotated[Path | None, Parameter(group=_SERVER)] = None
    """YAML or JSON file of more keys, each with limits, in the form that docs/deployment.md shows; read again when it
    changes.
    """
    max_queued_requests: Annotated[int, _POSITIVE, Parameter(group=_SERVER, alias="--max-num-queued-reqs")] = 1024
    """Requests that may wait for the engine to begin with them; one more is answered 503 at once."""
    max_queued_tokens: Annotated[
        int, _SIZE, Parameter(group=_SERVER, alias="--max-num-queued-tokens", show_default=lambda _: "4M")
    ] = 4 * 2**20
    """Tokens of prompts that may wait, once for each answer; beyond that 503. What waits alone may be longer."""
    max_queue_time: Annotated[float, Parameter(group=_SERVER, validator=validators.Number(gte=0))] = 0.0
    """Seconds that a request may wait for the engine to begin with it before it is answered 503; 0: no limit."""
    request_timeout: Annotated[float, Parameter(group=_SERVER, validator=validators.Number(gte=0))] = 0.0
    """Seconds that a request may take as a whole before it is answered 504, or its stream ends with an error; 0: no
    limit.
    """
    send_timeout: Annotated[float, Parameter(group=_SERVER, validator=validators.Number(gt=0))] = 60.0
    """Seconds that a client may leave what was sent unread before its request is aborted; its connection ends later."""
    drain_timeout: Annotated[int, _POSITIVE, Parameter(group=_SERVER, alias="--shutdown-timeout")] = 30
    """Seconds that running requests have to end after SIGTERM or SIGINT before they are cut off; new ones get 503."""
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
    max_num_batched_tokens: Annotated[int | None, _SIZE_OR_AUTO, Parameter(group=_ENGINE)] = None
    """Token budget of a step. A small one makes those that run wait less for prompts, a large one costs less in all.
    auto: 256 on a CPU, 4096 on a GPU."""
    enable_prefix_caching: Annotated[bool, Parameter(group=_ENGINE)] = True
    """Whether requests share the cache of a common prefix."""
    scheduling_policy: Annotated[SchedulingPolicy, Parameter(group=_ENGINE)] = "fcfs"
    """fcfs: in order of arrival; priority: a lower "priority" of the request first."""
    device: Annotated[Literal["auto", "cpu", "cuda"], Parameter(group=_ENGINE)] = "auto"
    """Where the model runs."""
    enforce_eager: Annotated[bool, Parameter(group=_ENGINE)] = False
    """On a GPU, launch each decode step anew instead of playing a recorded graph: starts faster, decodes slower."""
    jump_ahead: Annotated[bool, Parameter(group=_ENGINE)] = True
    """Whether tokens that a grammar leaves no choice about are appended without being sampled."""
    speculative_config: Annotated[dict[str, Any], _JSON, Parameter(group=_ENGINE, validator=_check_speculation)] = (
        field(default_factory=dict)
    )
    """Guess next tokens from the text itself and verify several in a step; the answers stay the same. A JSON object:
    {"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_max": 4, "prompt_lookup_min": 2,
    "disable_by_batch_size": 16}.
    """
    num_threads: Annotated[int | None, _POSITIVE, Parameter(group=_ENGINE, show_default=lambda _: "one a core")] = None
    """Threads of the CPU kernels."""
    engine_timeout: Annotated[float, Parameter(group=_ENGINE, validator=validators.Number(gt=0))] = 120.0
    """Seconds without a step or a beat after which the engine counts as hung and is replaced; more than its longest
    step.
    """
    max_engine_restarts: Annotated[int, Parameter(group=_ENGINE, validator=validators.Number(gte=0))] = 10
    """Engines that may die within five minutes and be replaced; with one more the server exits."""
    seed: Annotated[int, Parameter(group=_ENGINE)] = 0
    """Seed of the weights that --load-format dummy makes up."""

    chat_template: Annotated[str | None, Parameter(group=_REQUESTS)] = None
    """Path or text of a Jinja2 chat template, instead of the model's own."""
    chat_template_content_format: Annotated[ContentFormat, Parameter(group=_REQUESTS)] = "auto"
    """What the template sees as message content: a string, or a list of parts as in the OpenAI API."""
    trust_request_chat_template: Annotated[bool, Parameter(group=_REQUESTS)] = True
    """Whether a request may bring its own chat_template (it runs in a sandbox)."""
    default_chat_template_kwargs: Annotated[dict[str, Any], _JSON, Parameter(group=_REQUESTS)] = field(
        default_factory=dict
    )
    """Variables of the chat template as a JSON object, under those of the request's chat_template_kwargs."""
    response_role: Annotated[str, Parameter(group=_REQUESTS)] = "assistant"
    """Role of the answer in chat completions."""
    tool_call_parser: Annotated[str | None, Parameter(group=_REQUESTS, show_default=lambda _: "auto")] = None
    """Format of the model's tool calls: hermes, llama3_json, mistral, pythonic, qwen3_xml (qwen3_coder); auto: what the
    chat template shows.
    """
    enable_auto_tool_choice: Annotated[
        bool | None, Parameter(group=_REQUESTS, show_default=lambda _: "where a format is known")
    ] = None
    """Whether the model may decide on tool calls (tool_choice auto); given, the start fails without a known format."""
    exclude_tools_when_tool_choice_none: Annotated[bool, Parameter(group=_REQUESTS)] = False
    """Whether the chat template sees no tools when tool_choice is none."""
    max_logprobs: Annotated[
        int, Parameter(group=_REQUESTS, allow_leading_hyphen=True, validator=validators.Number(gte=-1))
    ] = 20
    """Most logprobs a request may ask for; -1: up to the whole vocabulary."""
    logprobs_mode: Annotated[LogprobsFlag, Parameter(group=_REQUESTS)] = "raw"
    """raw (raw_logprobs): the model's own; processed (processed_logprobs): after penalties, biases, temperature, and
    with what top-k, top-p and min-p leave out at -9999.
    """
    return_tokens_as_token_ids: Annotated[bool, Parameter(group=_REQUESTS)] = False
    """Whether tokens in logprobs are written as token_id:N where a request does not say."""
    score_format: Annotated[Literal["auto", "float", "list"], Parameter(group=_REQUESTS)] = "auto"
    """Form of a score: a number, or a list of one; auto: a list from /v1/score, a number from /score."""
    enable_prompt_tokens_details: Annotated[bool, Parameter(group=_REQUESTS)] = False
    """Whether usage says how many prompt tokens came from the prefix cache."""
    enable_force_include_usage: Annotated[bool, Parameter(group=_REQUESTS)] = False
    """Whether every stream ends with its usage, as with stream_options.include_usage."""
    stream_interval: Annotated[int, _POSITIVE, Parameter(group=_REQUESTS)] = 1
    """Fewest tokens of a stream's event where a request does not say; the last event of an answer may have less."""
    sse_keep_alive_interval: Annotated[float, Parameter(group=_REQUESTS, validator=validators.Number(gte=0))] = 0
    """Seconds without an event after which a stream gets a comment line, so that no proxy cuts it; 0: never."""
    enable_tokenizer_info_endpoint: Annotated[bool, Parameter(group=_REQUESTS)] = False
    """Whether GET /tokenizer_info answers, with the tokenizer's configuration and chat template."""
    guided_decoding_backend: Annotated[
        str,
        Parameter(group=_REQUESTS, alias="--structured-outputs-config", converter=_backend, n_tokens=1),
    ] = "auto"
    """Any name that vLLM knows means the one compiler; its options hold where a request names no backend:
    NAME:disable-any-whitespace, NAME:no-additional-properties, NAME:any-property-order. Or the JSON object of
    vLLM's --structured-outputs-config: {"backend": NAME, "disable_any_whitespace": true}.
    """
    grammar_timeout: Annotated[float, Parameter(group=_REQUESTS, validator=validators.Number(gt=0))] = 10.0
    """Seconds that a schema, a pattern or a grammar may take to compile; more is answered 400."""
    grammar_memory: Annotated[int, _SIZE, Parameter(group=_REQUESTS, show_default=lambda _: "1G")] = 2**30
    """Bytes that compiling one may take, or such as 512M; more is answered 400."""

    log_level: Annotated[
        LogLevel, Parameter(group=_LOGGING, alias="--uvicorn-log-level", converter=_log_level, n_tokens=1)
    ] = "info"
    """Least severe messages that are logged."""
    log_config_file: Annotated[Path | None, Parameter(group=_LOGGING)] = None
    """JSON file for logging.config.dictConfig, in place of --log-level."""
    log_requests: Annotated[
        bool, Parameter(group=_LOGGING, name="--enable-log-requests", negative="--disable-log-requests")
    ] = True
    """Whether every finished request gets a line: id, model, counts, times; never its text."""
    log_prompts: Annotated[bool, Parameter(group=_LOGGING)] = False
    """Whether that line also shows the beginning of the prompt."""
    max_log_len: Annotated[int, _POSITIVE, Parameter(group=_LOGGING)] = 200
    """Most characters of the prompt that --log-prompts shows."""
    access_log: Annotated[
        bool, Parameter(group=_LOGGING, negative=("--no-access-log", "--disable-uvicorn-access-log"))
    ] = False
    """Whether every HTTP request gets a line."""
    disable_access_log_for_endpoints: Annotated[
        tuple[str, ...], _WORDS, Parameter(group=_LOGGING, show_default=False)
    ] = ()
    """Paths that --access-log leaves out, with commas between them: /health,/metrics,/ping."""

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
            quantization=self.quantization,
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
            logprobs_mode=logprobs_mode_of(self.logprobs_mode),
            enforce_eager=self.enforce_eager,
            jump_ahead=self.jump_ahead,
            prompt_lookup=prompt_lookup_of(self.speculative_config),
            task=self.task,
            runner=self.runner,
            convert=self.convert,
            pooler_config=self.pooler_config,
            num_threads=self.num_threads,
        )
