"""The engine core: requests go in, each step brings tokens out. Synchronous and without a socket.

The engine process turns it in its busy loop (`engine_process`), the offline API in its own process. One step
is schedule → run the model → update.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from .config import EngineConfig
from .constraints.guided_decoding import GuidedDecoding
from .errors import InvariantError, UnsupportedModelError
from .host_runtime import tune_openmp
from .memory_shortage import OUT_OF_MEMORY, run_in_parts
from .messages import EngineOutput, EngineReady, EngineRequest, EngineStats
from .pooling.pooling_messages import PoolingRequest
from .sampling_params import MAX_SAMPLES
from .scheduling.beam_group import BeamGroup
from .scheduling.beam_limits import beam_search_problem
from .scheduling.beam_stops import StopStrings
from .scheduling.invariants import violations
from .scheduling.prompt_lookup import PromptLookup, may_be_guessed
from .scheduling.request import Request
from .scheduling.scheduler import ClientOutputs, Scheduler
from .scheduling.step import RequestResult, Runner, ScheduledRequest

logger = logging.getLogger(__name__)

CHECK_STEPS = 32
"""Steps between two looks at whether the accounts of requests and blocks are in order: with 32 running sequences and
65,536 blocks a look takes some 0.7 ms of CPU time, 0.15% of what 32 steps of a model of 20M parameters take.
"""


def build_engine_core(config: EngineConfig, progress: Callable[[str], None] = logger.info) -> EngineCore:
    """Load the model and make the core around it. `progress` gets a line for each thing that takes long.

    Raises `UnsupportedModelError` when the model cannot be served rightly.
    """
    if not Path(config.model, "config.json").is_file():
        raise UnsupportedModelError(f"{config.model} is not the directory of a model: it has no config.json.")
    tune_openmp()
    # Here and not above: it brings torch, which whoever only imports this module does not want to wait for.
    from .model.model_runner import ModelRunner

    return EngineCore(ModelRunner(config, progress), config)


class EngineCore:
    """Serves requests of several clients with one model.

    Nothing that a request holds or causes raises: what is wrong with it comes back as its output, with the
    finish reason "error".
    """

    def __init__(self, runner: Runner, config: EngineConfig) -> None:
        self._runner = runner
        self._enable_prefix_caching = config.enable_prefix_caching
        self._max_beam_width = config.max_num_seqs
        num_slots = runner.num_blocks * runner.block_size
        self.max_model_len = min(runner.max_model_len, num_slots)
        if self.max_model_len < runner.max_model_len:
            logger.warning(
                "The KV cache holds %d tokens: max_model_len is lowered from %d to %d.",
                num_slots,
                runner.max_model_len,
                self.max_model_len,
            )
        self._scheduler = Scheduler(
            config,
            num_blocks=runner.num_blocks,
            block_size=runner.block_size,
            max_model_len=self.max_model_len,
            max_num_batched_tokens=(
                runner.default_batched_tokens
                if config.max_num_batched_tokens is None
                else config.max_num_batched_tokens
            ),
            num_lookahead_tokens=runner.num_lookahead_tokens,
        )
        self._guided = GuidedDecoding(config.tokenizer or config.model, runner.vocab_size, jump_ahead=config.jump_ahead)
        self._prompt_lookup = config.prompt_lookup
        self._num_requests = 0
        self._num_changes = 0
        """Steps, aborts and the like since the accounts were checked."""
        self._answered: ClientOutputs = {}
        """Outputs of requests that ended without a step, to go out with the next one."""

    def describe(self) -> EngineReady:
        """What a front-end must know of this engine."""
        return EngineReady(
            max_model_len=self.max_model_len,
            vocab_size=self._runner.vocab_size,
            num_blocks=self._runner.num_blocks,
            block_size=self._runner.block_size,
            dtype=self._runner.dtype,
            max_beam_width=self._max_beam_width,
            enable_prefix_caching=self._enable_prefix_caching,
        )

    def add_request(self, message: EngineRequest | PoolingRequest, client: bytes = b"") -> None:
        """Queue a request. One that cannot be served is answered with an error by the next step."""
        if isinstance(message, PoolingRequest):
            error = "This model is served for generation alone."
            self._answer(client, EngineOutput(message.key, [], "error", error=error))
            return
        error = self._error_in(message, client)
        if error is not None:
            self._answer(client, EngineOutput(message.key, [], "error", error=error))
        elif message.output_token_ids and self._is_complete(message):
            self._answer(client, EngineOutput(message.key, [], "length"))
        else:
            self._queue(message, client)

    def prepare_guided_decoding(self, when_done: Callable[[], object] = lambda: None) -> None:
        """Make what guided requests need, in the background; without it the first of them waits for that.

        when_done: called behind it, in the background.
        """
        self._guided.prepare(when_done)

    def abort(self, client: bytes, keys: Iterable[int]) -> None:
        """Forget requests; nothing more comes of them. Unknown keys are passed over."""
        self._scheduler.abort(client, keys)
        self._forget_released()
        self._num_changes += 1

    def abort_client(self, client: bytes) -> list[int]:
        """Forget all requests of a client; their keys."""
        keys = self._scheduler.abort_client(client)
        self._forget_released()
        self._num_changes += 1
        return keys

    def has_unfinished(self) -> bool:
        """Whether a step would bring anything."""
        return bool(self._answered) or self._scheduler.has_unfinished()

    def step(self) -> ClientOutputs:
        """Compute the next tokens of some requests; what to tell each client.

        Raises `InvariantError` when the engine is not to be used any more: its accounts contradict themselves.
        """
        outputs, self._answered = self._answered, {}
        scheduled = self._scheduler.schedule()
        if scheduled:
            results = self._execute(scheduled)
            if results is None:
                step_outputs = self._scheduler.fail(scheduled, "The engine failed to compute this request.")
            else:
                step_outputs = self._scheduler.update(scheduled, results)
            self._forget_released()
            self._num_changes += 1
            if self._num_changes >= CHECK_STEPS:
                self.check(all_names=False)
            for client, client_outputs in step_outputs.items():
                outputs.setdefault(client, []).extend(client_outputs)
        return outputs

    def check(self, *, all_names: bool = True) -> None:
        """Raise `InvariantError` when the accounts contradict themselves. Nothing to do where nothing has happened
        since the last time. all_names: of the prefix cache; to be looked at when there is nothing else to do.
        """
        if self._num_changes:
            self._num_changes = 0
            found = violations(self._scheduler.accounts(self._runner.live), all_names=all_names)
            if found:
                raise InvariantError("; ".join(found))

    def stats(self) -> EngineStats:
        stats = self._scheduler.stats()
        stats.num_forced_tokens = self._guided.num_forced_tokens
        stats.num_late_masks = self._guided.num_late_masks
        return stats

    def reset_prefix_cache(self) -> None:
        """Forget every cached prefix that no running request holds."""
        self._scheduler.reset_prefix_cache()
        self._num_changes += 1

    def _queue(self, message: EngineRequest, client: bytes) -> None:
        try:
            guide = self._guided.guide(message)
            stop_strings = self._beam_stops(message)
        except ValueError as error:
            self._answer(client, EngineOutput(message.key, [], "error", error=str(error)))
            return
        self._num_requests += 1
        request = Request.from_message(message, client, self._num_requests)
        request.guide = guide
        if self._prompt_lookup is not None and may_be_guessed(message):
            request.lookup = PromptLookup(self._prompt_lookup)
        if message.params.use_beam_search:
            max_tokens = self._max_output_tokens(message)
            request.beams = BeamGroup(request, max_tokens=max_tokens, stop_strings=stop_strings)
        self._scheduler.add(request)

    def _beam_stops(self, message: EngineRequest) -> StopStrings | None:
        """What ends a beam beside tokens. Raises ValueError where the tokenizer does not allow to tell."""
        strings = message.params.stop_strings
        if not (message.params.use_beam_search and strings):
            return None
        return StopStrings(strings, self._guided.wait_for_vocabulary().token_bytes)

    def _execute(self, scheduled: list[ScheduledRequest]) -> list[RequestResult] | None:
        """Run the model; None when it failed. A request for which the memory does not suffice fails alone."""
        try:
            self._forget_released()
            results = run_in_parts(self._runner.execute, scheduled, lambda _: RequestResult([], error=OUT_OF_MEMORY))
            if len(results) != len(scheduled):
                raise RuntimeError(f"{len(scheduled)} requests were scheduled, {len(results)} results came back.")
            _fail_readers(scheduled, results, self._runner.block_size)
        except Exception:
            logger.exception("A step of %d requests failed; they are ended, the others go on.", len(scheduled))
            return None
        return results

    def _answer(self, client: bytes, output: EngineOutput) -> None:
        self._answered.setdefault(client, []).append(output)

    def _forget_released(self) -> None:
        released = self._scheduler.take_released()
        if released:
            self._runner.forget(released)

    def _error_in(self, message: EngineRequest, client: bytes) -> str | None:
        """Why a request cannot be served. The front-end checks more, and earlier; here is what would do harm."""
        if self._scheduler.has(client, message.key):
            return f"A request with the key {message.key} is already running."
        if not message.prompt_token_ids:
            return "The prompt is empty."
        num_tokens = len(message.prompt_token_ids)
        # The last token of a full context is never fed back, but there must be room for it.
        num_needed = num_tokens + (message.params.max_tokens != 0)
        if num_needed > self.max_model_len:
            return f"The prompt has {num_tokens} tokens; with the output, max_model_len is {self.max_model_len}."
        if message.params.use_beam_search:
            problem = beam_search_problem(
                self.describe(),
                width=message.params.num_samples,
                num_prompt_tokens=num_tokens,
                max_tokens=self._max_output_tokens(message),
            )
            if problem is not None:
                return problem
        for token_ids in _lists_of_token_ids(message):
            if token_ids and not (min(token_ids) >= 0 and max(token_ids) < self._runner.vocab_size):
                return f"A token id is outside of the vocabulary of {self._runner.vocab_size}."
        if not all(message.bad_words_token_ids):
            return "A bad word has no tokens."
        if not 0 <= message.sample_index < MAX_SAMPLES:
            return f"The sample index {message.sample_index} is not below {MAX_SAMPLES}."
        return None

    def _max_output_tokens(self, message: EngineRequest) -> int:
        """Tokens that an answer may have, up to the end of the context."""
        room = self.max_model_len - len(message.prompt_token_ids)
        return room if message.params.max_tokens is None else min(message.params.max_tokens, room)

    def _is_complete(self, message: EngineRequest) -> bool:
        """Whether the tokens that another engine generated are all that was asked for."""
        num_output_tokens = len(message.output_token_ids)
        max_tokens = message.params.max_tokens
        return (max_tokens is not None and num_output_tokens >= max_tokens) or len(
            message.prompt_token_ids
        ) + num_output_tokens >= self.max_model_len


def _lists_of_token_ids(message: EngineRequest) -> Iterator[Collection[int]]:
    """All that logits are looked up by."""
    params = message.params
    yield from (message.prompt_token_ids, message.output_token_ids, *message.bad_words_token_ids)
    yield from (params.stop_token_ids or (), params.allowed_token_ids or (), params.logit_bias or ())
    if params.min_tokens:
        yield message.eos_token_ids  # which a model may have beyond its vocabulary, as long as nobody looks them up


def _fail_readers(scheduled: list[ScheduledRequest], results: list[RequestResult], block_size: int) -> None:
    """Fail those as well that have read a block which a failed request before them was to fill."""
    missing: set[int] = set()
    for work, result in zip(scheduled, results, strict=True):
        request = work.request
        if missing and result.error is None and not missing.isdisjoint(request.block_ids):
            result.error = OUT_OF_MEMORY
        if result.error == OUT_OF_MEMORY:
            missing.update(request.block_ids[request.num_computed_tokens // block_size :])
