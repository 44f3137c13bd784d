"""Runs the model over a step's flat batch of tokens and samples. Owns every tensor: weights, KV cache, logits.

A step is one forward over the tokens of all scheduled requests, laid end to end: decode tokens, prompt chunks and
recomputed tokens alike. Only the rows that something is asked of go through the vocabulary projection.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

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
from .model_loader import load_model
from .sampler import Sampler

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
        self._make_cache(config, loaded.dtype, progress)
        threads = self.device.threads
        self._compiled = compile_decoder(self._model, threads, self.max_model_len) if self.device.is_cpu else None
        self._groups = {layer.num_heads // layer.num_kv_heads for layer in self._attention.geometry.values()}
        self._sampler = Sampler(self.vocab_size, config.max_num_seqs, self.device, config.logprobs_mode)
        self._guided = GuidedStep(self.vocab_size, config.max_num_seqs)
        self._rows: dict[Request, int] = {}
        self._free_rows = list(range(config.max_num_seqs - 1, -1, -1))
        max_blocks = -(-self.max_model_len // self.block_size)
        self._block_tables = np.zeros((config.max_num_seqs, max_blocks), np.int32)
        self._num_table_blocks = [0] * config.max_num_seqs
        self._warm_up(min(config.max_num_batched_tokens, self.max_model_len), progress)

    @property
    def live(self) -> Collection[Request]:
        """The sequences that have a row."""
        return self._rows.keys()

    def execute(self, scheduled: list[ScheduledRequest]) -> list[RequestResult]:
        """Run one step: one result for each scheduled request, in the same order."""
        with torch.inference_mode():
            rows = [self._row(item) for item in scheduled]
            self._copy_blocks([item.copied_block for item in scheduled if item.copied_block is not None])
            logits = self._forward(scheduled, rows)
            return self._results(scheduled, rows, logits)

    def forget(self, requests: Iterable[Request]) -> None:
        """Drop what is kept for requests that finished, were aborted or preempted; unknown ones are passed over."""
        for request in requests:
            row = self._rows.pop(request, None)
            if row is not None:
                self._num_table_blocks[row] = 0
                self._free_rows.append(row)
                self._sampler.remove(row)

    def _row(self, item: ScheduledRequest) -> int:
        """The request's row, with its block table brought up to date."""
        request = item.request
        row = self._rows.get(request)
        if row is None:
            row = self._free_rows[-1]
            self._sampler.add(row, request)  # first: where memory runs out, it is called again
            self._rows[request] = self._free_rows.pop()
        known, blocks = self._num_table_blocks[row], request.block_ids
        if item.copied_block is not None:
            known = 0  # a block that the table has was replaced
        if known != len(blocks):
            self._block_tables[row, known : len(blocks)] = blocks[known:]
            self._num_table_blocks[row] = len(blocks)
        return row

    def _copy_blocks(self, copies: list[tuple[int, int]]) -> None:
        """Copy keys and values of all layers from blocks to others; none of the others is copied from."""
        if not copies:
            return
        sources, targets = torch.tensor(copies, device=self.device.torch_device).T
        for keys, values in self._attention.caches():
            keys[targets] = keys[sources]
            values[targets] = values[sources]

    def _forward(self, scheduled: list[ScheduledRequest], rows: list[int]) -> torch.Tensor:
        """Logits float32 of the wanted tokens: first, request by request, those of prompt logprobs, then the sampled
        ones (see `_wanted_tokens`).
        """
        query_lens = np.array([item.num_tokens for item in scheduled], np.int32)
        context_lens = np.array([item.request.num_computed_tokens for item in scheduled], np.int32)
        token_ids: list[int] = []
        for item in scheduled:
            start = item.request.num_computed_tokens
            token_ids += item.request.token_ids[start : start + item.num_new_tokens]
            token_ids += item.drafts
        widest = -(-int((query_lens + context_lens).max()) // self.block_size)
        tables = np.ascontiguousarray(self._block_tables[rows, :widest])
        batch = self._batch(query_lens, context_lens, tables)
        return self._run(token_ids, query_lens, context_lens, batch, _wanted_tokens(scheduled, query_lens))

    def _batch(self, query_lens: np.ndarray, context_lens: np.ndarray, tables: np.ndarray) -> AttentionBatch:
        return make_batch(query_lens, context_lens, tables, self.block_size, max(self._groups))

    def _run(
        self,
        token_ids: list[int],
        query_lens: np.ndarray,
        context_lens: np.ndarray,
        batch: AttentionBatch,
        wanted: list[int],
    ) -> torch.Tensor:
        """One forward over the flat tokens; logits float32 [len(wanted), vocab_size] of the wanted ones."""
        device = self.device.torch_device
        starts = np.repeat(context_lens - batch.query_start[:-1], query_lens)
        flat_positions = starts + np.arange(len(token_ids))
        if self._compiled is not None:
            return self._compiled.logits(token_ids, flat_positions, batch, wanted)
        positions = torch.from_numpy(flat_positions).to(device)
        ids = torch.tensor(token_ids, device=device)
        everything = len(wanted) == len(token_ids) and wanted == list(range(len(token_ids)))
        # A step of prompt chunks alone wants nothing; one row is computed then, since the layers know no empty input.
        keep = 0 if everything else torch.tensor(wanted or [0], device=device)
        self._attention.set_batch(batch)
        self.device.prepare(len(token_ids))
        output = self._model(input_ids=ids[None], position_ids=positions[None], use_cache=False, logits_to_keep=keep)
        return self.device.to_float32(output.logits[0])

    def _results(self, scheduled: list[ScheduledRequest], rows: list[int], logits: torch.Tensor) -> list[RequestResult]:
        results = [RequestResult([]) for _ in scheduled]
        # A request whose next tokens are guessed stands there once more for each of them.
        sampling = [i for i, item in enumerate(scheduled) if _samples(item) for _ in range(1 + len(item.drafts))]
        # Before anything else: the device may still be computing the logits, and what follows waits for them.
        masks = self._masks([scheduled[i].request for i in sampling])
        first = 0
        for item, result in zip(scheduled, results, strict=True):
            targets = _prompt_targets(item)
            if targets:
                result.prompt_logprobs = self._prompt_logprobs(logits[first : first + len(targets)], item, targets)
                first += len(targets)
        if sampling:
            self._choose(logits[first:], scheduled, rows, sampling, masks, results)
        return results

    def _masks(self, requests: list[Request]) -> StepMasks | None:
        """See `GuidedStep.prepare`; None where no request has a grammar."""
        if all(request.guide is None for request in requests):
            return None
        return self._guided.prepare(requests)

    def _choose(
        self,
        logits: torch.Tensor,
        scheduled: list[ScheduledRequest],
        rows: list[int],
        sampling: list[int],
        masks: StepMasks | None,
        results: list[RequestResult],
    ) -> None:
        """Put the next tokens of the requests numbered `sampling` into their results; a row of logits for each."""
        allowed = None
        if masks is not None:
            ready: list[int] = []
            for k, move in enumerate(masks.moves):
                if move is None or move.is_ready:
                    ready.append(k)
                else:
                    _take_move(results[sampling[k]], move)
            if not ready:
                return
            allowed = AllowedTokens(masks.words, np.array([masks.row[k] for k in ready]))
            if len(ready) < len(sampling):
                logits, sampling = logits[ready], [sampling[k] for k in ready]
        if any(scheduled[i].request.beams is not None for i in sampling):
            logits, sampling, allowed = self._find_candidates(logits, scheduled, rows, sampling, allowed, results)
            if not sampling:
                return
        requests = [scheduled[i].request for i in sampling]
        ahead = _ahead(scheduled, sampling)
        sampled = self._sampler.sample(logits, requests, [rows[i] for i in sampling], allowed, ahead)
        for k, (i, choice) in enumerate(zip(sampling, sampled, strict=True)):
            if ahead is not None and ahead[k] and not _was_guessed(scheduled[i], results[i], ahead[k]):
                continue
            if choice.token_id >= 0:
                results[i].token_ids.append(choice.token_id)
                if choice.logprobs is not None:
                    results[i].logprobs = [*(results[i].logprobs or ()), choice.logprobs]
            elif scheduled[i].request.guide is None:
                results[i].error = _why_no_token(scheduled[i].request)
        if allowed is not None:
            moves = self._guided.follow(requests, [choice.token_id for choice in sampled])
            for i, move in zip(sampling, moves, strict=True):
                if move is not None:
                    _take_move(results[i], move)

    def _find_candidates(
        self,
        logits: torch.Tensor,
        scheduled: list[ScheduledRequest],
        rows: list[int],
        sampling: list[int],
        allowed: AllowedTokens | None,
        results: list[RequestResult],
    ) -> tuple[torch.Tensor, list[int], AllowedTokens | None]:
        """Put what may follow each beam into its result; what is left of logits, `sampling` and masks for `_choose`."""
        is_beam = [scheduled[i].request.beams is not None for i in sampling]
        theirs = [k for k, beam in enumerate(is_beam) if beam]
        others = [k for k, beam in enumerate(is_beam) if not beam]
        numbers = [sampling[k] for k in theirs]
        found = self._sampler.candidates(
            logits if not others else logits[theirs],
            [scheduled[i].request for i in numbers],
            [rows[i] for i in numbers],
            _of_rows(allowed, theirs),
        )
        for i, candidates in zip(numbers, found, strict=True):
            results[i].candidates = candidates
            request = scheduled[i].request
            if candidates.token_ids:
                continue
            if request.guide is not None:
                results[i].is_complete = request.guide.without_a_token().is_complete
            elif (why := _why_no_token(request)) != NO_TOKEN_LEFT:
                results[i].error = why
            # Otherwise this beam leads nowhere, and others may go on.
        return logits[others], [sampling[k] for k in others], _of_rows(allowed, others)

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

    def _warm_up(self, longest: int, progress: Callable[[str], None]) -> None:
        """Let every kernel be compiled and every weight be touched once; what is written to the cache is never read."""
        started = time.monotonic()
        with torch.inference_mode():
            for num_tokens in (min(longest, self.num_blocks * self.block_size, 64), 1):
                lens = np.array([num_tokens], np.int32)
                table = np.arange(-(-num_tokens // self.block_size), dtype=np.int32)[None]
                batch = self._batch(lens, np.zeros(1, np.int32), table)
                self._run([0] * num_tokens, lens, np.zeros(1, np.int32), batch, [num_tokens - 1])
        progress(f"Warmed up in {time.monotonic() - started:.1f} s.")


def _context_length(model_dir: str) -> int:
    return context_length(json.loads((Path(model_dir) / "config.json").read_text(encoding="utf-8")))


def _why_no_token(request: Request) -> str:
    """What is wrong with a request without a grammar for which no token could be chosen."""
    if request.params.allowed_token_ids or request.message.bad_words_token_ids:
        return NO_TOKEN_LEFT
    return "The model gave no finite logits for this request."


def _take_move(result: RequestResult, move: Move) -> None:
    """What a guide says, behind what was sampled."""
    result.token_ids += move.token_ids
    result.is_complete = move.is_complete
    result.error = move.error


def _of_rows(allowed: AllowedTokens | None, rows: list[int]) -> AllowedTokens | None:
    """The masks of some rows; None where none of them has one."""
    if allowed is None or not (allowed.row[rows] >= 0).any():
        return None
    return AllowedTokens(allowed.words, allowed.row[rows])


def _samples(item: ScheduledRequest) -> bool:
    """Whether the step computes the sequence to its end, so that the next token can be chosen."""
    request = item.request
    return request.num_computed_tokens + item.num_new_tokens == request.num_tokens


def _prompt_targets(item: ScheduledRequest) -> list[int]:
    """The prompt tokens that follow the step's tokens, when their logprobs are asked for."""
    request = item.request
    if request.params.prompt_logprobs is None:
        return []
    first = request.num_computed_tokens + 1
    return request.token_ids[first : min(first + item.num_new_tokens, request.num_prompt_tokens)]


def _wanted_tokens(scheduled: list[ScheduledRequest], query_lens: np.ndarray) -> list[int]:
    """Flat numbers of the tokens whose logits are needed: those of prompt logprobs, then those that sample."""
    ends = np.cumsum(query_lens).tolist()
    scored: list[int] = []
    for item, end in zip(scheduled, ends, strict=True):
        start = end - item.num_tokens
        scored += range(start, start + len(_prompt_targets(item)))
    sampled: list[int] = []
    for item, end in zip(scheduled, ends, strict=True):
        if _samples(item):
            sampled += range(end - 1 - len(item.drafts), end)
    return scored + sampled


def _ahead(scheduled: list[ScheduledRequest], sampling: list[int]) -> list[int] | None:
    """How many guesses stand before the place of each choice; None where nothing is guessed."""
    if not any(scheduled[i].drafts for i in sampling):
        return None
    ahead: list[int] = []
    for k, i in enumerate(sampling):
        ahead.append(ahead[-1] + 1 if k and sampling[k - 1] == i else 0)
    return ahead


def _was_guessed(item: ScheduledRequest, result: RequestResult, ahead: int) -> bool:
    """Whether the first `ahead` guesses are what was chosen, so that the choice behind them counts."""
    return len(result.token_ids) == ahead and result.token_ids[-1] == item.drafts[ahead - 1]
