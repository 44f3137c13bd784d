"""The offline API: `LLM`, the engine core in the caller's own process, without server or sockets.

Prompts go through the same input processor, engine core and output processor as requests to the server: the same
request with the same seed brings the same tokens.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from tqdm import tqdm

from .engine_core.config import Dtype, EngineConfig, LoadFormat, SchedulingPolicy
from .engine_core.errors import InvalidRequestError, RequestFailedError
from .engine_core.guided_params import backend_options
from .engine_core.messages import EngineRequest, Grammar, TokenLogprobs
from .engine_core.pooling_config import PoolingConfig, load_pooling_config
from .engine_core.pooling_params import PoolingParams, PoolingTask
from .engine_core.sampling_params import SamplingParams
from .engine_core.serving_core import build_core
from .engine_core.serving_mode import ConvertFlag, RunnerFlag, TaskFlag, serving_mode
from .engine_core.tokenizer import Tokenizer, load_tokenizer
from .guided.errors import GrammarError
from .offline_pooling import OfflinePooling, single_texts
from .outputs import CompletionOutput, Logprob, PositionLogprobs, RequestMetrics, RequestOutput
from .pooling_outputs import (
    ClassificationOutput,
    EmbeddingOutput,
    PoolingOutput,
    PoolingRequestOutput,
    ScoringOutput,
)
from .prompt_input import PromptInput, prompt_list
from .server.chat_template import ChatTemplate, ContentFormat, load_chat_template
from .server.constraint import params_constraint
from .server.grammar_worker import compile_constraint
from .server.input_processor import DEFAULT_MAX_LOGPROBS, InputProcessor, Prompt
from .server.model_info import load_model_info, resolve_model
from .server.output_processor import OutputProcessor, RequestState, SampleDelta, merge_deltas
from .server.pooling_processor import PoolingProcessor

Message: TypeAlias = dict[str, Any]
T = TypeVar("T")

_CLIENT = b""
"""How the engine core names its one client in process."""


class LLM:
    """A model that generates offline.

    Arguments are those of vLLM's `LLM`; one that is not listed is a TypeError, never ignored.
    """

    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None = None,
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        task: TaskFlag = "auto",
        runner: RunnerFlag = "auto",
        convert: ConvertFlag = "auto",
        pooler_config: Mapping[str, Any] | None = None,
        override_pooler_config: Mapping[str, Any] | None = None,
        dtype: Dtype = "auto",
        load_format: LoadFormat = "auto",
        seed: int = 0,
        max_model_len: int | None = None,
        max_num_seqs: int = 256,
        max_num_batched_tokens: int = 2048,
        block_size: int = 16,
        enable_prefix_caching: bool = True,
        scheduling_policy: SchedulingPolicy = "fcfs",
        kv_cache_memory_bytes: int | None = None,
        num_gpu_blocks_override: int | None = None,
        gpu_memory_utilization: float = 0.92,
        num_threads: int | None = None,
        chat_template: str | None = None,
        chat_template_content_format: ContentFormat = "auto",
        generation_config: str = "auto",
        max_logprobs: int = DEFAULT_MAX_LOGPROBS,
        guided_decoding_backend: str = "auto",
        jump_ahead: bool = True,
        enforce_eager: bool = False,
        swap_space: float = 0,
        disable_log_stats: bool = True,
    ) -> None:
        """Load a model: a directory in Hugging Face form, or a hub name that is in the local cache.

        seed: of the requests that have none of their own, so that a script brings the same each time it runs.
        chat_template: path or text of a Jinja2 template, instead of the model's.
        generation_config: where the default sampling parameters are: "auto" (the model's), "vllm" (none), a folder.
        task, runner, convert: what the model is served for, as the server's flags of these names say it.
        pooler_config, or override_pooler_config: how vectors are made, as --pooler-config says it.
        guided_decoding_backend: any name that vLLM knows; there is one compiler. Its options hold where the parameters
        name no backend.
        jump_ahead: append tokens that a grammar leaves no choice about without sampling them.
        enforce_eager, swap_space, disable_log_stats: taken for the sake of existing scripts, without effect: nothing is
        compiled, preempted requests are computed again instead of being swapped out, and no statistics are logged.

        Raises ValueError for what cannot be loaded, `UnsupportedModelError` for a model that is not supported.
        """
        if trust_remote_code:
            raise ValueError("trust_remote_code is not supported: code that comes with a model is never run.")
        if tensor_parallel_size != 1:
            raise ValueError(f"tensor_parallel_size must be 1, got {tensor_parallel_size}: more is not supported.")
        backend_options("guided_decoding_backend", guided_decoding_backend)
        model_dir = resolve_model(model, revision)
        tokenizer_dir = model_dir if tokenizer is None else resolve_model(tokenizer, tokenizer_revision)
        self._tokenizer = load_tokenizer(tokenizer_dir)
        self._model = load_model_info(
            model_dir,
            max_model_len=max_model_len,
            generation_config=generation_config,
            tokenizer_eos_token_id=self._tokenizer.eos_token_id,
        )
        self._mode = serving_mode(model_dir, task=task, runner=runner, convert=convert)
        pooler_config = {**(override_pooler_config or {}), **(pooler_config or {})}
        template = load_chat_template(chat_template)
        self._chat_template = ChatTemplate(self._tokenizer, template, chat_template_content_format)
        seeds = random.Random(seed)
        self._input_processor = InputProcessor(
            self._model, self._tokenizer, max_logprobs=max_logprobs, make_seed=lambda: seeds.getrandbits(63)
        )
        self._output_processor = OutputProcessor(self._tokenizer)
        self._core = build_core(
            EngineConfig(
                model=model_dir,
                tokenizer=tokenizer_dir,
                dtype=dtype,
                max_model_len=self._model.max_model_len,
                load_format=load_format,
                seed=seed,
                block_size=block_size,
                kv_cache_memory_bytes=kv_cache_memory_bytes,
                num_blocks=num_gpu_blocks_override,
                gpu_memory_utilization=gpu_memory_utilization,
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=max_num_batched_tokens,
                enable_prefix_caching=enable_prefix_caching,
                scheduling_policy=scheduling_policy,
                jump_ahead=jump_ahead,
                task=task,
                runner=runner,
                convert=convert,
                pooler_config=pooler_config,
                num_threads=num_threads,
            )
        )
        self._input_processor.max_model_len = self._core.max_model_len
        pooling = PoolingConfig() if self._mode.pooling is None else load_pooling_config(model_dir, pooler_config)
        processor = PoolingProcessor(
            self._tokenizer,
            pooling,
            lambda: self._core.max_model_len,
            self._model.vocab_size or self._tokenizer.vocab_size,
        )
        self._pooling = OfflinePooling(self._core, processor, self._mode, len(pooling.labels))
        self._default_backend = guided_decoding_backend
        self._grammars: dict[bytes, Grammar] = {}
        """Compiled ones by content; few, since they come from one program."""
        self._num_keys = 0
        self._num_requests = 0

    def generate(
        self,
        prompts: PromptInput | Sequence[PromptInput],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool | Callable[..., tqdm[Any]] = True,
        priority: Sequence[int] | None = None,
    ) -> list[RequestOutput]:
        """Answer prompts; one output a prompt, in their order.

        `sampling_params` is for all prompts or one for each; None takes the model's defaults. `use_tqdm` shows a bar,
        or makes one with tqdm's arguments. `priority`: one a prompt, lower first, under the priority policy.
        Raises `InvalidRequestError` (a ValueError) before anything is generated, and `RequestFailedError`.
        """
        inputs = prompt_list(prompts)
        params = self._params_for(len(inputs), sampling_params)
        encoded = [
            self._input_processor.encode_prompt_now(given, truncate_prompt_tokens=param.truncate_prompt_tokens)
            for given, param in zip(inputs, params, strict=True)
        ]
        return self._run(encoded, params, use_tqdm, priority)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool | Callable[..., tqdm[Any]] = True,
        *,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: None = None,
        documents: list[dict[str, Any]] | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Answer a conversation, or each of a list of conversations, as `generate` does their prompts.

        To go on with the final message, set `continue_final_message` and clear `add_generation_prompt`.
        """
        if tools is not None:
            raise InvalidRequestError("tools", "Tool calling is not supported yet (tools).")
        if not messages:
            raise InvalidRequestError("messages", "messages must not be empty.")
        conversations: Any = [messages] if isinstance(messages[0], Mapping) else messages
        params = self._params_for(len(conversations), sampling_params)
        encoded = []
        for conversation, param in zip(conversations, params, strict=True):
            text = self._chat_template.render(
                list(conversation),
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                documents=documents,
                chat_template=chat_template,
                chat_template_kwargs=chat_template_kwargs,
            )
            encoded.append(
                self._input_processor.encode_prompt_now(
                    text, add_special_tokens=False, truncate_prompt_tokens=param.truncate_prompt_tokens
                )
            )
        return self._run(encoded, params, use_tqdm, None)

    def encode(
        self,
        prompts: PromptInput | Sequence[PromptInput],
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        *,
        pooling_task: PoolingTask | None = None,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: bool | Callable[..., tqdm[Any]] = True,
    ) -> list[PoolingRequestOutput[PoolingOutput]]:
        """The numbers that the model makes of each prompt, as tensors; of what it is served for, or of `pooling_task`.

        `truncate_prompt_tokens`: the longest prompt, -1 for what the model takes; None: a longer one is an error.
        Raises `InvalidRequestError` before anything is computed, and `RequestFailedError`.
        """
        results = self._pooling.pool(
            prompt_list(prompts), pooling_task, pooling_params, truncate_prompt_tokens, use_tqdm
        )
        return [_pooled_output(result, PoolingOutput(result.outputs)) for result in results]

    def embed(
        self,
        prompts: PromptInput | Sequence[PromptInput],
        *,
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: bool | Callable[..., tqdm[Any]] = True,
    ) -> list[PoolingRequestOutput[EmbeddingOutput]]:
        """The vector of each prompt. Arguments and errors as of `encode`."""
        results = self._pooling.pool(prompt_list(prompts), "embed", pooling_params, truncate_prompt_tokens, use_tqdm)
        return [_pooled_output(result, EmbeddingOutput(result.outputs.tolist())) for result in results]

    def classify(
        self,
        prompts: PromptInput | Sequence[PromptInput],
        *,
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: bool | Callable[..., tqdm[Any]] = True,
    ) -> list[PoolingRequestOutput[ClassificationOutput]]:
        """The probabilities of each prompt's classes. Arguments and errors as of `encode`."""
        results = self._pooling.pool(prompt_list(prompts), "classify", pooling_params, truncate_prompt_tokens, use_tqdm)
        return [_pooled_output(result, ClassificationOutput(result.outputs.tolist())) for result in results]

    def score(
        self,
        text_1: str | Sequence[str],
        text_2: str | Sequence[str],
        *,
        pooling_params: PoolingParams | None = None,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: bool | Callable[..., tqdm[Any]] = True,
    ) -> list[PoolingRequestOutput[ScoringOutput]]:
        """How well each text of `text_2` goes with its fellow in `text_1`, or with the only text there.

        By the score of a cross-encoder, or by the cosine of the vectors. Other arguments and errors as of `encode`.
        """
        results = self._pooling.score(
            single_texts("text_1", text_1),
            single_texts("text_2", text_2),
            pooling_params,
            truncate_prompt_tokens,
            use_tqdm,
        )
        return [_pooled_output(result, ScoringOutput(score)) for result, score in results]

    def get_tokenizer(self) -> Tokenizer:
        """The tokenizer: `encode(text)` and `decode(token_ids)`."""
        return self._tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """What `generate` uses when it is given none: the model's generation config over the library's defaults."""
        return SamplingParams(**self._model.default_sampling)

    def _params_for(
        self, num_prompts: int, given: SamplingParams | Sequence[SamplingParams] | None
    ) -> list[SamplingParams]:
        if given is None:
            given = self.get_default_sampling_params()
        if isinstance(given, SamplingParams):
            return [given] * num_prompts
        if len(given) != num_prompts:
            raise InvalidRequestError(
                "sampling_params", f"There are {num_prompts} prompts, but {len(given)} sampling_params."
            )
        return list(given)

    def _run(
        self,
        prompts: list[Prompt],
        params: list[SamplingParams],
        use_tqdm: bool | Callable[..., tqdm[Any]],
        priority: Sequence[int] | None,
    ) -> list[RequestOutput]:
        """Generate the answers to all prompts at once."""
        if not self._mode.generates:
            raise InvalidRequestError(
                None, f"{self._mode.architecture} is not served for generation here: use embed, encode or classify."
            )
        if priority is not None and len(priority) != len(prompts):
            raise InvalidRequestError("priority", f"There are {len(prompts)} prompts, but {len(priority)} priorities.")
        prepared: list[list[EngineRequest]] = []
        for i, (prompt, param) in enumerate(zip(prompts, params, strict=True)):
            requests = self._input_processor.requests(
                prompt,
                param,
                first_key=self._num_keys,
                priority=0 if priority is None else priority[i],
                grammar=self._grammar(param),
            )
            self._num_keys += len(requests)
            prepared.append(requests)
        jobs: dict[RequestState, _Job] = {}
        with _progress_bar(use_tqdm, len(prompts)) as bar:
            try:
                for prompt, param, requests in zip(prompts, params, prepared, strict=True):
                    state = self._output_processor.add(requests, param)
                    jobs[state] = _Job(str(self._num_requests), prompt, state, requests[0].arrival_time)
                    self._num_requests += 1
                    for request in requests:
                        self._core.add_request(request, _CLIENT)
                self._step_until_finished(jobs, bar)
            finally:
                # Nothing is left of requests that an error or Ctrl-C cut short.
                for state in jobs:
                    self._core.abort(_CLIENT, self._output_processor.remove(state))
        return [job.output(self._tokenizer) for job in jobs.values()]

    def _grammar(self, params: SamplingParams) -> Grammar | None:
        """What the answers must follow. Raises `InvalidRequestError`.

        Compiled in this process, without limits: it is the caller's own.
        """
        constraint = params_constraint(params, self._default_backend)
        if constraint is None:
            return None
        self._input_processor.check_constraint(constraint)
        key = constraint.content_key()
        if key not in self._grammars:
            try:
                self._grammars[key] = Grammar(key, compile_constraint(constraint))
            except GrammarError as error:
                raise InvalidRequestError(constraint.param, f"{constraint.param}: {error}") from None
        return self._grammars[key]

    def _step_until_finished(self, jobs: Mapping[RequestState, _Job], bar: tqdm[Any]) -> None:
        processor = self._output_processor
        speed = _Speed()
        while self._core.has_unfinished():
            for output in self._core.step().get(_CLIENT, ()):
                result = processor.process(output)
                if result is None:
                    continue
                state, deltas = result
                if state.error is not None:
                    raise RequestFailedError(state.error)
                job = jobs[state]
                job.add(deltas)
                if state.finished:
                    job.metrics.finished_time = time.time()
                    speed.add(state)
                    bar.set_postfix_str(str(speed), refresh=False)
                    bar.update()
            aborts = processor.take_aborts()
            if aborts:
                self._core.abort(_CLIENT, aborts)


@dataclass(slots=True)
class _Job:
    """A prompt whose answers are being put together."""

    request_id: str
    prompt: Prompt
    state: RequestState
    arrival_time: float
    deltas: dict[int, list[SampleDelta]] = field(default_factory=dict)
    """By answer."""
    metrics: RequestMetrics = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = RequestMetrics(self.arrival_time)

    def add(self, deltas: list[SampleDelta]) -> None:
        if deltas and self.metrics.first_token_time is None:
            self.metrics.first_token_time = time.time()
        for delta in deltas:
            self.deltas.setdefault(delta.index, []).append(delta)

    def output(self, tokenizer: Tokenizer) -> RequestOutput:
        """The finished answers, in their order."""
        state = self.state
        self.metrics.time_in_queue = state.queue_seconds
        prompt_logprobs: list[PositionLogprobs | None] | None = None
        if state.prompt_logprobs is not None:
            prompt_logprobs = [
                None,
                *(_by_token_id(position, tokenizer) for position in state.prompt_logprobs),
            ]
        return RequestOutput(
            request_id=self.request_id,
            prompt=self.prompt.text,
            prompt_token_ids=self.prompt.token_ids,
            prompt_logprobs=prompt_logprobs,
            outputs=[_completion(merge_deltas(deltas), tokenizer) for _, deltas in sorted(self.deltas.items())],
            finished=True,
            metrics=self.metrics,
            num_cached_tokens=state.num_cached_tokens,
        )


class _Speed:
    """Tokens a second since it was made, for the progress bar."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._num_prompt_tokens = 0
        self._num_output_tokens = 0

    def add(self, state: RequestState) -> None:
        self._num_prompt_tokens += state.num_prompt_tokens
        self._num_output_tokens += state.num_output_tokens

    def __str__(self) -> str:
        seconds = time.perf_counter() - self._start
        return (
            f"est. speed input: {self._num_prompt_tokens / seconds:.2f} toks/s, "
            f"output: {self._num_output_tokens / seconds:.2f} toks/s"
        )


def _progress_bar(use_tqdm: bool | Callable[..., tqdm[Any]], total: int) -> tqdm[Any]:
    make = use_tqdm if callable(use_tqdm) else tqdm
    return make(total=total, desc="Processed prompts", dynamic_ncols=True, disable=use_tqdm is False)


def _completion(delta: SampleDelta, tokenizer: Tokenizer) -> CompletionOutput:
    return CompletionOutput(
        index=delta.index,
        text=delta.text,
        token_ids=delta.token_ids,
        cumulative_logprob=delta.cumulative_logprob,
        logprobs=None if delta.logprobs is None else [_by_token_id(position, tokenizer) for position in delta.logprobs],
        finish_reason=delta.finish_reason,
        stop_reason=delta.stop_reason,
    )


def _by_token_id(position: TokenLogprobs, tokenizer: Tokenizer) -> PositionLogprobs:
    """The chosen token first, then the most likely ones; those count their ranks up from 1."""
    chosen = position.token_ids[0]
    entries = {chosen: Logprob(position.logprobs[0], position.rank, tokenizer.token_text(chosen))}
    for rank, (token_id, logprob) in enumerate(zip(position.token_ids[1:], position.logprobs[1:], strict=True), 1):
        if token_id not in entries:
            entries[token_id] = Logprob(logprob, rank, tokenizer.token_text(token_id))
    return entries


def _pooled_output(result: PoolingRequestOutput[Any], outputs: T) -> PoolingRequestOutput[T]:
    return PoolingRequestOutput(result.request_id, outputs, result.prompt_token_ids)
