"""Runs the model over a step's flat batch of tokens and samples. Owns every tensor: weights, KV cache, logits.

A step is one forward over the tokens of all scheduled requests, laid end to end: decode tokens, prompt chunks and
recomputed tokens alike. Only the rows that something is asked of go through the vocabulary projection.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...kernels.attention_batch import AttentionBatch, make_batch
from ...kernels.sampling import AllowedTokens
from ..config import EngineConfig
from ..constraints.guided_decoding import Move
from ..constraints.guided_step import GuidedStep, StepMasks
from ..context_length import context_length
from ..errors import NO_TOKEN_LEFT
from ..messages import TokenLogprobs
from ..scheduling.request import Request
from ..scheduling.step import RequestResult, ScheduledRequest
from . import kv_cache
from .compiled_decoder import compile_decoder
from .device import open_device
from .input_batch import InputBatch
from .model_loader import load_model
from .sampler import RowsToSample, Sampler

if TYPE_CHECKING:  # what they need is imported where there is a GPU
    from ...kernels.triton.request_state import RequestState
    from .decode_ahead import DecodeAhead, RunningStep

logger = logging.getLogger(__name__)


class ModelRunner:
    """One model on one device."""

    def __init__(self, config: EngineConfig, progress: Callable[[str], None] = logger.info) -> None:
        """Load the model, make the cache and run once, so that the first request waits for nothing.

        Raises `UnsupportedModelError` when the model cannot be served rightly, ValueError when the cache has no room.
        """
        self.max_model_len = config.max_model_len or _context_length(config.model)
        self.device = open_device(config, self.max_model_len)
        loaded = load_model(config, self.device, self.max_model_len, progress)
        self.loaded = loaded
        """What `pooling_loader` shares with this runner, together with `device`."""
        self._model = loaded.model
        self._attention = loaded.attention
        self.dtype = str(loaded.dtype).removeprefix("torch.")
        self.vocab_size = self._logits_width()
        self.block_size = config.block_size
        # Before the cache, which takes the memory that is left.
        state = None if self.device.is_cpu else self._make_request_state(config)
        self._make_cache(config, loaded.dtype, progress)
        threads = self.device.threads
        self._compiled = compile_decoder(self._model, threads, self.max_model_len) if self.device.is_cpu else None
        self._group_size = max(layer.num_heads // layer.num_kv_heads for layer in self._attention.geometry.values())
        self._sampler = Sampler(self.vocab_size, config.max_num_seqs, self.device, config.logprobs_mode)
        self._guided = GuidedStep(self.vocab_size, config.max_num_seqs)
        self._batch = InputBatch(
            max_num_seqs=config.max_num_seqs,
            max_blocks=-(-self.max_model_len // self.block_size),
            block_size=self.block_size,
            group_size=self._group_size,
        )
        self._to_sample = self._sampler.gather([], [])
        """The rows of the batch that sample."""
        self.default_batched_tokens = self.device.default_batched_tokens
        self._warm_up(progress)
        self._ahead = None if state is None else self._make_ahead(config, state, progress)
        self.num_ahead = 0
        """Tokens that were drawn by a step begun before the host asked for it."""

    @property
    def num_lookahead_tokens(self) -> int:
        """See `step.Runner`."""
        return 0 if self._ahead is None else 1

    @property
    def live(self) -> Collection[Request]:
        """The sequences that have a row."""
        return self._batch.live

    def execute(self, scheduled: list[ScheduledRequest]) -> list[RequestResult]:
        """Run one step: one result for each scheduled request, in the same order."""
        with torch.inference_mode():
            return self._compute(scheduled) if self._ahead is None else self._execute_ahead(scheduled, self._ahead)

    def forget(self, requests: Iterable[Request]) -> None:
        """Drop what is kept for requests that finished, were aborted or preempted; unknown ones are passed over."""
        for request in requests:
            row = self._batch.remove(request)
            if row is not None:
                self._sampler.remove(row)
            if self._ahead is not None:
                self._ahead.forget(request)

    def _compute(self, scheduled: list[ScheduledRequest]) -> list[RequestResult]:
        """A step of which nothing is begun; waits for the device."""
        if not self._batch.advance(scheduled):
            self._build_batch(scheduled)
        return self._results(scheduled, self._forward())

    def _execute_ahead(self, scheduled: list[ScheduledRequest], ahead: DecodeAhead) -> list[RequestResult]:
        """A step of which a part may be running already; begins with the next one before it waits for that."""
        running = ahead.running
        rows = [None if running is None else running.row_of(item) for item in scheduled]
        rest = [item for item, row in zip(scheduled, rows, strict=True) if row is None]
        computed = iter(self._compute(rest) if rest else ())
        results = [next(computed) if row is None else RequestResult([]) for row in rows]
        by_host, by_device = ([], []) if running is None else running.parted(rows)
        if running is not None and by_host:
            self._draw_by_host(running, [scheduled[i] for i in by_host], [results[i] for i in by_host])
        ahead.begin(ahead.going_on(scheduled, rows, results), self._batch.row_of, self._sampler.parameters)
        ahead.work()
        if running is not None and by_device:
            self.num_ahead += len(by_device)
            tokens = running.tokens()
            requests = [scheduled[i].request for i in by_device]
            drawn = [tokens[row] for i in by_device if (row := rows[i]) is not None]
            moves = self._guided.follow(requests, drawn)
            for i, token_id, move in zip(by_device, drawn, moves, strict=True):
                _take_drawn(scheduled[i].request, results[i], token_id, None, move)
        return results

    def _draw_by_host(
        self, running: RunningStep, scheduled: list[ScheduledRequest], results: list[RequestResult]
    ) -> None:
        """Put tokens into the results of sequences whose logits a running step computes."""
        requests = [item.request for item in scheduled]
        rows = [row for item in scheduled if (row := running.row_of(item)) is not None]
        masks = self._guided.prepare(requests) if any(request.guide is not None for request in requests) else None
        asked = self._sampler.gather(requests, [self._batch.row_of(request) for request in requests])
        positions = np.array([request.num_tokens - 1 for request in requests], np.int64)
        numbers = _ready(masks, range(len(requests)), results)
        for number, token_id, logprobs, move in self._draw(running.logits(rows), asked, positions, masks, numbers):
            _take_drawn(requests[number], results[number], token_id, logprobs, move)

    def _build_batch(self, scheduled: list[ScheduledRequest]) -> None:
        """Lay out a step that is not like the one before."""
        batch = self._batch
        for item in scheduled:
            if item.request not in batch.live:
                self._sampler.add(batch.next_row, item.request)  # first: where memory runs out, it is called again
                batch.add(item.request)
        self._copy_blocks([item.copied_block for item in scheduled if item.copied_block is not None])
        batch.build(scheduled)
        self._to_sample = self._sampler.gather(batch.requests, batch.rows)

    def _copy_blocks(self, copies: list[tuple[int, int]]) -> None:
        """Copy keys and values of all layers from blocks to others; none of the others is copied from."""
        if not copies:
            return
        sources, targets = torch.tensor(copies, device=self.device.torch_device).T
        for keys, values in self._attention.caches():
            keys[targets] = keys[sources]
            values[targets] = values[sources]

    def _forward(self) -> torch.Tensor:
        """Logits float32 of the batch's wanted tokens."""
        batch = self._batch
        return self._run(batch.token_ids, batch.positions, batch.attention, batch.wanted)

    def _run(
        self, token_ids: np.ndarray, positions: np.ndarray, attention: AttentionBatch, wanted: np.ndarray
    ) -> torch.Tensor:
        """One forward over flat tokens; logits float32 [len(wanted), vocab_size] of the wanted ones."""
        if self._compiled is not None:
            return self._compiled.logits(token_ids, positions, attention, wanted)
        device = self.device.torch_device
        ids, position_ids = torch.from_numpy(token_ids).to(device), torch.from_numpy(positions).to(device)
        everything = np.array_equal(wanted, np.arange(len(token_ids)))
        # A step of prompt chunks alone wants nothing; one row is computed then, since the layers know no empty input.
        keep = 0 if everything else torch.from_numpy(wanted if len(wanted) else np.zeros(1, np.int64)).to(device)
        self._attention.set_batch(attention)
        self.device.prepare(len(token_ids))
        output = self._model(input_ids=ids[None], position_ids=position_ids[None], use_cache=False, logits_to_keep=keep)
        return self.device.to_float32(output.logits[0])

    def _results(self, scheduled: list[ScheduledRequest], logits: torch.Tensor) -> list[RequestResult]:
        batch = self._batch
        results = [RequestResult([]) for _ in scheduled]
        # Before anything else: the device may still be computing the logits, and what follows waits for them.
        masks = self._guided.prepare(batch.requests) if batch.has_guides else None
        first = 0
        for number, targets in batch.prompt_targets:
            scores = self._prompt_logprobs(logits[first : first + len(targets)], scheduled[number], targets)
            results[number].prompt_logprobs = scores
            first += len(targets)
        if batch.sampling:
            self._choose(logits[first:] if first else logits, scheduled, masks, results)
        return results

    def _choose(
        self,
        logits: torch.Tensor,
        scheduled: list[ScheduledRequest],
        masks: StepMasks | None,
        results: list[RequestResult],
    ) -> None:
        """Put the next tokens of the batch's sampling requests into their results; a row of logits for each."""
        batch, asked = self._batch, self._to_sample
        numbers = _ready(masks, batch.sampling, results)
        if batch.has_beams:
            theirs = [k for k in numbers if asked.requests[k].beams is not None]
            self._find_candidates(logits, theirs, _of_rows(_allowed(masks), theirs), results)
            numbers = [k for k in numbers if asked.requests[k].beams is None]
        drawn = self._draw(logits, asked, batch.sampled_positions, masks, numbers)
        for number, token_id, logprobs, move in drawn:
            i = batch.sampling[number]
            ahead = 0 if batch.ahead is None else batch.ahead[number]
            if not ahead or _was_guessed(scheduled[i], results[i], ahead):
                _take_drawn(scheduled[i].request, results[i], token_id, logprobs, move)

    def _draw(
        self,
        logits: torch.Tensor,
        asked: RowsToSample,
        positions: np.ndarray,
        masks: StepMasks | None,
        numbers: Sequence[int],
    ) -> Iterator[tuple[int, int, TokenLogprobs | None, Move | None]]:
        """Choose a token for the rows of these numbers and tell their guides: number, token, its logprobs, and what the
        guide says.
        """
        if not numbers:
            return
        allowed = _allowed(masks)
        if len(numbers) < len(asked.requests):
            logits, positions, allowed = logits[numbers], positions[numbers], _of_rows(allowed, numbers)
            asked = self._sampler.gather([asked.requests[k] for k in numbers], [asked.rows[k] for k in numbers])
        sampled = self._sampler.sample(logits, asked, positions, allowed)
        moves = repeat(None) if allowed is None else self._guided.follow(asked.requests, sampled.token_ids)
        for k, (number, token_id, move) in enumerate(zip(numbers, sampled.token_ids, moves, strict=False)):
            yield number, token_id, sampled.logprobs.get(k), move

    def _find_candidates(
        self, logits: torch.Tensor, numbers: list[int], allowed: AllowedTokens | None, results: list[RequestResult]
    ) -> None:
        """Put what may follow each beam into its result; `numbers` are those of the beams among the sampling rows."""
        if not numbers:
            return
        batch = self._batch
        beams = [batch.requests[k] for k in numbers]
        theirs = logits if len(numbers) == len(logits) else logits[numbers]
        found = self._sampler.candidates(theirs, beams, [batch.rows[k] for k in numbers], allowed)
        for number, request, candidates in zip(numbers, beams, found, strict=True):
            result = results[batch.sampling[number]]
            result.candidates = candidates
            if candidates.token_ids:
                continue
            if request.guide is not None:
                result.is_complete = request.guide.without_a_token().is_complete
            elif (why := _why_no_token(request)) != NO_TOKEN_LEFT:
                result.error = why
            # Otherwise this beam leads nowhere, and others may go on.

    def _prompt_logprobs(self, logits: torch.Tensor, item: ScheduledRequest, targets: list[int]) -> list[TokenLogprobs]:
        count = item.request.params.prompt_logprobs or 0
        return self._sampler.logprobs(logits, targets, [count] * len(targets))

    def _make_cache(self, config: EngineConfig, dtype: torch.dtype, progress: Callable[[str], None]) -> None:
        geometry = self._attention.geometry
        stored = kv_cache.cache_dtype(dtype, self.device)
        per_block = kv_cache.block_bytes(geometry, self.block_size, stored)
        self.num_blocks = kv_cache.num_blocks(config, self.device, per_block, self.max_model_len)
        caches = kv_cache.make_caches(geometry, self.num_blocks, self.block_size, stored, self.device)
        self._attention.set_caches(caches)
        progress(
            f"KV cache: {self.num_blocks} blocks of {self.block_size} tokens, "
            f"{self.num_blocks * per_block / 2**20:.0f} MiB."
        )

    def _logits_width(self) -> int:
        """Entries of a row of logits; some models pad them beyond the tokenizer's vocabulary."""
        head = self._model.get_output_embeddings()
        return head.out_features if head is not None else self._model.config.get_text_config().vocab_size

    def _warm_up(self, progress: Callable[[str], None]) -> None:
        """Let every kernel be compiled and every weight be touched once; what is written to the cache is never read."""
        started = time.monotonic()
        with torch.inference_mode():
            for num_tokens in (min(self.max_model_len, self.num_blocks * self.block_size, 64), 1):
                lens, contexts = np.array([num_tokens], np.int32), np.zeros(1, np.int32)
                table = np.arange(-(-num_tokens // self.block_size), dtype=np.int32)[None]
                attention = make_batch(lens, contexts, table, self.block_size, self._group_size)
                self._run(np.zeros(num_tokens, np.int64), np.arange(num_tokens), attention, np.array([num_tokens - 1]))
        progress(f"Warmed up in {time.monotonic() - started:.1f} s.")

    def _make_request_state(self, config: EngineConfig) -> RequestState:
        """Room on the device for what running requests ask for of their tokens."""
        from ...kernels.triton.request_state import RequestState
        from .device_automata import MAX_STATES

        return RequestState.empty(config.max_num_seqs, self.vocab_size, MAX_STATES, self.device.torch_device)

    def _make_ahead(
        self, config: EngineConfig, state: RequestState, progress: Callable[[str], None]
    ) -> DecodeAhead | None:
        """None where steps of this model cannot be recorded: it waits for the device in between."""
        from .decode_ahead import DecodeAhead
        from .device_automata import DeviceAutomata
        from .device_rows import DeviceRows

        started = time.monotonic()
        with torch.inference_mode():
            ahead = DecodeAhead(
                self._model,
                self._attention,
                DeviceRows(state, DeviceAutomata(state)),
                max_num_seqs=config.max_num_seqs,
                max_model_len=self.max_model_len,
                block_size=self.block_size,
                device=self.device.torch_device,
                use_graphs=not config.enforce_eager,
            )
            try:
                ahead.prepare()
            except RuntimeError as error:
                progress(f"The model's decode steps cannot be recorded, so each waits for the one before: {error}")
                return None
        progress(f"Decode steps prepared in {time.monotonic() - started:.1f} s.")
        return ahead


def _context_length(model_dir: str) -> int:
    return context_length(json.loads((Path(model_dir) / "config.json").read_text(encoding="utf-8")))


def _why_no_token(request: Request) -> str:
    """What is wrong with a request without a grammar for which no token could be chosen."""
    if request.params.allowed_token_ids or request.message.bad_words_token_ids:
        return NO_TOKEN_LEFT
    return "The model gave no finite logits for this request."


def _ready(masks: StepMasks | None, places: Sequence[int], results: Sequence[RequestResult]) -> Sequence[int]:
    """The numbers of the rows for which a token can be drawn; what guides say instead goes into the results, which
    stand at `places`.
    """
    if masks is None:
        return range(len(places))
    for place, move in zip(places, masks.moves, strict=True):
        if move is not None and not move.is_ready:
            _take_move(results[place], move)
    return [number for number, move in enumerate(masks.moves) if move is None or move.is_ready]


def _allowed(masks: StepMasks | None) -> AllowedTokens | None:
    return None if masks is None else AllowedTokens(masks.words, np.array(masks.row))


def _take_drawn(
    request: Request, result: RequestResult, token_id: int, logprobs: TokenLogprobs | None, move: Move | None
) -> None:
    """A token, -1 for none, and what its request's guide says then."""
    if token_id >= 0:
        result.token_ids.append(token_id)
        if logprobs is not None:
            result.logprobs = [*(result.logprobs or ()), logprobs]
    elif request.guide is None:
        result.error = _why_no_token(request)
    if move is not None:
        _take_move(result, move)


def _take_move(result: RequestResult, move: Move) -> None:
    """What a guide says, behind what was sampled."""
    result.token_ids += move.token_ids
    result.is_complete = move.is_complete
    result.error = move.error


def _of_rows(allowed: AllowedTokens | None, rows: Sequence[int]) -> AllowedTokens | None:
    """The masks of some rows; None where none of them has one."""
    if allowed is None or not (allowed.row[rows] >= 0).any():
        return None
    return AllowedTokens(allowed.words, allowed.row[rows])


def _was_guessed(item: ScheduledRequest, result: RequestResult, ahead: int) -> bool:
    """Whether the first `ahead` guesses are what was chosen, so that the choice behind them counts."""
    return len(result.token_ids) == ahead and result.token_ids[-1] == item.drafts[ahead - 1]
