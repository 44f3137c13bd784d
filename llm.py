"""The offline API: `LLM`, the engine core in the caller's own process, without server or sockets.

Prompts go through the same input processor, engine core and output processor as requests to the server: the same
request with the same seed brings the same tokens.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from tqdm import tqdm

from .engine_core.config import (
    Dtype,
    LoadFormat,
    LogprobsFlag,
    Quantization,
    SchedulingPolicy,
    logprobs_mode_of,
)
from .engine_core.errors import InvalidRequestError, RequestFailedError
from .engine_core.guided_params import backend_options
from .engine_core.messages import EngineRequest, Grammar
from .engine_core.pooling.pooling_config import PoolingConfig, load_pooling_config
from .engine_core.pooling.pooling_params import PoolingParams, PoolingTask
from .engine_core.sampling_params import SamplingParams
from .engine_core.serving_core import build_core
from .engine_core.serving_mode import ConvertFlag, RunnerFlag, TaskFlag, serving_mode
from .engine_core.tokenizer import load_tokenizer
from .guided.errors import GrammarError
from .offline.arguments import check_choice, check_foreign_arguments, checked_config
from .offline.beam_search import BeamSearchOutput, BeamSearchParams, beam_search_output
from .offline.job import Job, Speed, progress_bar
from .offline.pooling import OfflinePooling, single_texts
from .offline.tokenizer import OfflineTokenizer
from .outputs import RequestOutput
from .pooling_outputs import (
    ClassificationOutput,
    EmbeddingOutput,
    PoolingOutput,
    PoolingRequestOutput,
    ScoringOutput,
)
from .prompt_input import PromptInput, prompt_list
from .server.command_line.speculative_config import prompt_lookup_of
from .server.constraints.constraint import params_constraint
from .server.constraints.grammar_worker import compile_constraint
from .server.engine_link.input_processor import DEFAULT_MAX_LOGPROBS, InputProcessor, Prompt
from .server.engine_link.model_info import load_model_info, overridden_sampling, resolve_model, resolve_tokenizer
from .server.engine_link.output_processor import OutputProcessor, RequestState
from .server.engine_link.pooling_processor import PoolingProcessor
from .server.prompts.chat_template import ChatTemplate, ContentFormat, load_chat_template
from .server.tools.tool_definitions import read_tools

Message: TypeAlias = dict[str, Any]
AnswerParams: TypeAlias = SamplingParams | BeamSearchParams
T = TypeVar("T")

_CLIENT = b""
"""How the engine core names its one client in process."""


class LLM:
    """A model that generates offline.

    Arguments are those of vLLM's `LLM`; none is ignored in silence.
    """

    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None = None,
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        download_dir: str | Path | None = None,
        task: TaskFlag = "auto",
        runner: RunnerFlag = "auto",
        convert: ConvertFlag = "auto",
        pooler_config: Mapping[str, Any] | None = None,
        override_pooler_config: Mapping[str, Any] | None = None,
        dtype: Dtype | torch.dtype = "auto",
        quantization: Quantization | None = None,
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
        override_generation_config: Mapping[str, Any] | None = None,
        max_logprobs: int = DEFAULT_MAX_LOGPROBS,
        logprobs_mode: LogprobsFlag = "raw",
        guided_decoding_backend: str = "auto",
        enforce_eager: bool = False,
        jump_ahead: bool = True,
        speculative_config: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> None:
        """Load a model: a directory in Hugging Face form, or a hub name that is in the local cache.

        seed: of the requests that have none of their own, so that a script brings the same each time it runs.
        chat_template: path or text of a Jinja2 template, instead of the model's.
        quantization: "int8" rounds the weights of linear layers when they are loaded, on a CPU.
        download_dir: another Hugging Face cache than HF_HUB_CACHE to look a name up in; nothing is downloaded.
        generation_config: where the default sampling parameters are: "auto" (the model's), "vllm" (none), a folder;
        override_generation_config goes over them.
        logprobs_mode: "raw", the model's own, or "processed", of what the tokens were drawn from.
        task, runner, convert: what the model is served for, as the server's flags of these names say it.
        pooler_config, or override_pooler_config: how vectors are made, as --pooler-config says it.
        guided_decoding_backend: any name that vLLM knows; there is one compiler. Its options hold where the parameters
        name no backend.
        enforce_eager: on a GPU, launch each decode step anew instead of playing it as a recorded graph.
        jump_ahead: append tokens that a grammar leaves no choice about without sampling them.
        speculative_config: guess next tokens from the text itself, as --speculative-config says it.
        others: arguments of vLLM that have no use here, such as swap_space. What would change the answers is
        refused, the rest is taken with a warning in the log.

        Raises TypeError for an argument that nobody knows, ValueError for what cannot be honoured or loaded, and
        `UnsupportedModelError` for a model that is not supported.
        """
        check_foreign_arguments(others, known=LLM.__init__.__kwdefaults__ or ())
        check_choice("chat_template_content_format", chat_template_content_format, ContentFormat)
        check_choice("logprobs_mode", logprobs_mode, LogprobsFlag)
        backend_options("guided_decoding_backend", guided_decoding_backend)
        model_dir = resolve_model(model, revision, download_dir)
        tokenizer_dir = resolve_tokenizer(model, tokenizer, tokenizer_revision or revision, download_dir) or model_dir
        self._tokenizer = load_tokenizer(tokenizer_dir)
        self._model = load_model_info(
            model_dir,
            max_model_len=max_model_len,
            generation_config=generation_config,
            tokenizer_eos_token_id=self._tokenizer.eos_token_id,
        )
        self._mode = serving_mode(model_dir, task=task, runner=runner, convert=convert)
        self._default_sampling = overridden_sampling(self._model, override_generation_config or {})
        pooler_config = {**(override_pooler_config or {}), **(pooler_config or {})}
        template = load_chat_template(chat_template)
        self._chat_template = ChatTemplate(self._tokenizer, template, chat_template_content_format)
        seeds = random.Random(seed)
        self._input_processor = InputProcessor(
            self._model, self._tokenizer, max_logprobs=max_logprobs, make_seed=lambda: seeds.getrandbits(63)
        )
        self._output_processor = OutputProcessor(self._tokenizer)
        self._core = build_core(
            checked_config(
                model=model_dir,
                tokenizer=tokenizer_dir,
                dtype=str(dtype).removeprefix("torch."),
                max_model_len=self._model.max_model_len,
                quantization=quantization or "none",
                load_format=load_format,
                seed=seed,
                block_size=block_size,
                kv_cache_memory_bytes=kv_cache_memory_bytes,
                num_gpu_blocks_override=num_gpu_blocks_override,
                gpu_memory_utilization=gpu_memory_utilization,
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=max_num_batched_tokens,
                enable_prefix_caching=enable_prefix_caching,
                scheduling_policy=scheduling_policy,
                logprobs_mode=logprobs_mode_of(logprobs_mode),
                enforce_eager=enforce_eager,
                jump_ahead=jump_ahead,
                prompt_lookup=prompt_lookup_of(speculative_config),
                task=task,
                runner=runner,
                convert=convert,
                pooler_config=pooler_config,
                num_threads=num_threads,
            )
        )
        self._input_processor.meet(self._core.describe())
        pooling = PoolingConfig() if self._mode.pooling is None else load_pooling_config(model_dir, pooler_config)
        processor = PoolingProcessor(
            self._tokenizer,
            pooling,
            lambda: self._core.max_model_len,
            self._model.vocab_size or self._tokenizer.vocab_size,
        )
        self._pooling = OfflinePooling(self._core, processor, self._mode, len(pooling.labels))
        self._default_backend = guided_decoding_backend
        self._max_logprobs = max_logprobs
        self._grammars: dict[bytes, Grammar] = {}
        """Compiled ones by content; few, since they come from one program."""
        self._num_keys = 0
        self._num_requests = 0

    def generate(
        self,
        prompts: PromptInput | Sequence[PromptInput],
        sampling_params: AnswerParams | Sequence[AnswerParams] | None = None,
        *,
        use_tqdm: bool | Callable[..., tqdm[Any]] = True,
        lora_request: None = None,
        priority: Sequence[int] | None = None,
    ) -> list[RequestOutput]:
        """Answer prompts; one output a prompt, in their order.

        `sampling_params` is for all prompts or one for each; None takes the model's defaults. With `BeamSearchParams`
        the answers of an output are those of a search, the best first. `use_tqdm` shows a bar, or makes one with
        tqdm's arguments. `priority`: one a prompt, lower first, under the priority policy.
        Raises `InvalidRequestError` (a ValueError) before anything is generated, and `RequestFailedError`.
        """
        _refuse_adapters(lora_request)
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
        sampling_params: AnswerParams | Sequence[AnswerParams] | None = None,
        use_tqdm: bool | Callable[..., tqdm[Any]] = True,
        lora_request: None = None,
        chat_template: str | None = None,
        chat_template_content_format: ContentFormat = "auto",
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: list[dict[str, Any]] | None = None,
        documents: list[dict[str, Any]] | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Answer a conversation, or each of a list of conversations, as `generate` does their prompts.

        To go on with the final message, set `continue_final_message` and clear `add_generation_prompt`.
        `tools`, in the form of the OpenAI API, are shown to the template. Calls of them come as the model writes them,
        in the text; `parse_tool_calls` of `zqserve.server.tools.formats` finds them there.
        """
        if tools is not None:
            read_tools(tools)
        _refuse_adapters(lora_request)
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
                tools=tools,
                documents=documents,
                chat_template=chat_template,
                content_format=chat_template_content_format,
                chat_template_kwargs=chat_template_kwargs,
            )
            encoded.append(
                self._input_processor.encode_prompt_now(
                    text, add_special_tokens=False, truncate_prompt_tokens=param.truncate_prompt_tokens
                )
            )
        return self._run(encoded, params, use_tqdm, None)

    def beam_search(
        self,
        prompts: PromptInput | Sequence[PromptInput],
        params: BeamSearchParams,
        *,
        use_tqdm: bool | Callable[..., tqdm[Any]] = False,
    ) -> list[BeamSearchOutput]:
        """Find the likeliest answers to prompts; one output a prompt, in their order. Errors as of `generate`."""
        encoded = [self._input_processor.encode_prompt_now(given) for given in prompt_list(prompts)]
        searches = [params.sampling_params(self._max_logprobs)] * len(encoded)
        outputs = self._run(encoded, searches, use_tqdm, None)
        return [beam_search_output(output, params, self._tokenizer, self._model.eos_token_ids) for output in outputs]

    def encode(
        self,
        prompts: PromptInput | Sequence[PromptInput],
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        *,
        pooling_task: PoolingTask | None = None,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: bool | Callable[..., tqdm[Any]] = True,
        lora_request: None = None,
    ) -> list[PoolingRequestOutput[PoolingOutput]]:
        """The numbers that the model makes of each prompt, as tensors; of what it is served for, or of `pooling_task`.

        `truncate_prompt_tokens`: the longest prompt, -1 for what the model takes; None: a longer one is an error.
        Raises `InvalidRequestError` before anything is computed, and `RequestFailedError`.
        """
        _refuse_adapters(lora_request)
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
        lora_request: None = None,
    ) -> list[PoolingRequestOutput[EmbeddingOutput]]:
        """The vector of each prompt. Arguments and errors as of `encode`."""
        _refuse_adapters(lora_request)
        results = self._pooling.pool(prompt_list(prompts), "embed", pooling_params, truncate_prompt_tokens, use_tqdm)
        return [_pooled_output(result, EmbeddingOutput(result.outputs.tolist())) for result in results]

    def classify(
        self,
        prompts: PromptInput | Sequence[PromptInput],
        *,
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: bool | Callable[..., tqdm[Any]] = True,
        lora_request: None = None,
    ) -> list[PoolingRequestOutput[ClassificationOutput]]:
        """The probabilities of each prompt's classes. Arguments and errors as of `encode`."""
        _refuse_adapters(lora_request)
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
        lora_request: None = None,
    ) -> list[PoolingRequestOutput[ScoringOutput]]:
        """How well each text of `text_2` goes with its fellow in `text_1`, or with the only text there.

        By the score of a cross-encoder, or by the cosine of the vectors. Other arguments and errors as of `encode`.
        """
        _refuse_adapters(lora_request)
        results = self._pooling.score(
            single_texts("text_1", text_1),
            single_texts("text_2", text_2),
            pooling_params,
            truncate_prompt_tokens,
            use_tqdm,
        )
        return [_pooled_output(result, ScoringOutput(score)) for result, score in results]

    def get_tokenizer(self) -> OfflineTokenizer:
        """The tokenizer, called as those of transformers: `encode`, `decode`, `apply_chat_template`."""
        return OfflineTokenizer(self._tokenizer, self._chat_template)

    def get_default_sampling_params(self) -> SamplingParams:
        """What `generate` uses when it is given none: the model's generation config over the library's defaults."""
        return SamplingParams(**self._default_sampling)

    def _params_for(
        self, num_prompts: int, given: AnswerParams | Sequence[AnswerParams] | None
    ) -> list[SamplingParams]:
        if given is None:
            given = self.get_default_sampling_params()
        if isinstance(given, AnswerParams):
            given = [given] * num_prompts
        if len(given) != num_prompts:
            raise InvalidRequestError(
                "sampling_params", f"There are {num_prompts} prompts, but {len(given)} sampling_params."
            )
        return [
            param if isinstance(param, SamplingParams) else param.sampling_params(0).clone(logprobs=None)
            for param in given
        ]

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
        jobs: dict[RequestState, Job] = {}
        with progress_bar(use_tqdm, len(prompts)) as bar:
            try:
                for prompt, param, requests in zip(prompts, params, prepared, strict=True):
                    state = self._output_processor.add(requests, param)
                    jobs[state] = Job(str(self._num_requests), prompt, state, requests[0].arrival_time)
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

    def _step_until_finished(self, jobs: Mapping[RequestState, Job], bar: tqdm[Any]) -> None:
        processor = self._output_processor
        speed = Speed()
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


def _refuse_adapters(lora_request: Any) -> None:
    if lora_request is not None:
        raise InvalidRequestError(
            "lora_request", "lora_request is not supported: merge the adapter into the weights and load the result."
        )


def _pooled_output(result: PoolingRequestOutput[Any], outputs: T) -> PoolingRequestOutput[T]:
    return PoolingRequestOutput(result.request_id, outputs, result.prompt_token_ids)
