"""Which tokens of which requests the next step computes, and what its results mean for them.

Owns the requests and, through the `KVCacheManager`, the blocks; touches no tensor. There is no prefill or
decode phase: each request has `num_computed_tokens` chasing its number of tokens, and a step has one budget
of tokens.

`schedule()` before a step and `update()` (or `fail()`) after it, with nothing in between.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Collection, Iterable, Sequence
from itertools import chain

from ..config import EngineConfig
from ..errors import NO_TOKEN_LEFT
from ..messages import EngineOutput, EngineStats, FinishReason, TokenLogprobs
from .beam_group import BeamGroup
from .fair_share import Turns
from .invariants import Accounts
from .kv_cache_manager import KVCacheManager
from .request import Request, RequestStatus
from .step import RequestResult, ScheduledRequest, is_fed_one_by_one
from .waiting_queue import WaitingQueue

MAX_SCORED_CHUNK = 128
"""Prompt tokens a step of a request that asks for prompt logprobs: each takes a whole row of logits."""

ClientOutputs = dict[bytes, list[EngineOutput]]


class Scheduler:
    """Continuous batching with chunked prefill, prefix sharing and preemption by recomputation.

    Invariants: a request is running (in `_running`, sorted in the order of the policy) or waiting (in
    `_waiting`), and only a running one holds blocks; the sequence of any request, or those of its beams, fit into the
    pool, so the first of the running can always go on and every request ends. A beam search is one request of several
    sequences, which get their blocks together and are preempted together (`BeamGroup`).
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        num_blocks: int,
        block_size: int,
        max_model_len: int,
        max_num_batched_tokens: int,
        num_lookahead_tokens: int = 0,
    ) -> None:
        for name, number in (
            ("max_num_seqs", config.max_num_seqs),
            ("max_num_batched_tokens", max_num_batched_tokens),
        ):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}.")
        if max_model_len > num_blocks * block_size:
            raise ValueError(f"{num_blocks} blocks of {block_size} tokens cannot hold {max_model_len} tokens.")
        self._max_num_seqs = config.max_num_seqs
        self._max_num_batched_tokens = max_num_batched_tokens
        self._max_model_len = max_model_len
        self._num_lookahead_tokens = num_lookahead_tokens
        self._max_drafting = config.prompt_lookup.disable_by_batch_size if config.prompt_lookup is not None else 0
        self._by_priority = config.scheduling_policy == "priority"
        self._kv_cache = KVCacheManager(num_blocks, block_size, enable_prefix_caching=config.enable_prefix_caching)
        self._requests: dict[bytes, dict[int, Request]] = {}
        self._running: list[Request] = []
        self._waiting = WaitingQueue(self._order)
        self._turns = Turns()
        self._released: list[Request] = []
        self._num_more_sequences = 0
        """How many more sequences than requests are running: those of beam searches."""
        self._prefix_cache_queries = 0
        self._prefix_cache_hits = 0
        self._num_preemptions = 0
        self._num_steps = 0
        self._num_step_tokens = 0
        self._num_drafts = 0
        self._num_draft_tokens = 0
        self._num_accepted_tokens = 0

    def add(self, request: Request) -> None:
        """Queue a request whose key is new to its client and whose sequence can grow within `max_model_len`."""
        self._requests.setdefault(request.client, {})[request.message.key] = request
        request.turn = self._turns.take(self._priority(request), request.message.user)
        self._waiting.push(request)

    def has(self, client: bytes, key: int) -> bool:
        """Whether the client has an unfinished request of that key."""
        return key in self._requests.get(client, ())

    def has_unfinished(self) -> bool:
        return bool(self._requests)

    def abort(self, client: bytes, keys: Iterable[int]) -> None:
        """Forget requests; unknown and finished ones are passed over."""
        requests = self._requests.get(client, {})
        aborted = [requests[key] for key in dict.fromkeys(keys) if key in requests]
        for request in aborted:
            self._remove(request)
        if aborted:
            self._drop_finished()

    def abort_client(self, client: bytes) -> list[int]:
        """Forget all requests of a client; their keys."""
        keys = list(self._requests.get(client, ()))
        self.abort(client, keys)
        return keys

    def schedule(self) -> list[ScheduledRequest]:
        """The work of the next step, in an order in which a request may read what an earlier one writes.

        At most `max_num_batched_tokens` tokens of at most `max_num_seqs` sequences, at least one token of
        each. Empty only when there is no request.
        """
        scheduled: list[ScheduledRequest] = []
        budget = self._max_num_batched_tokens
        running = self._running
        kv_cache = self._kv_cache

        # Running requests first, each its next chunk. Who gets no block takes those of the last in the order,
        # which is not scheduled yet: so what a step has been promised is never taken back.
        index = 0
        while index < len(running) and budget > 0:
            request = running[index]
            if request.beams is not None:
                work = request.beams.work(budget, _longest_chunk(request))
                if not kv_cache.extend_together(work):
                    self._preempt(running.pop())
                    continue
                scheduled += work
                budget -= sum(item.num_new_tokens for item in work)
                index += 1
                continue
            num_new_tokens = len(request.token_ids) - request.num_computed_tokens
            drafts: list[int] = []
            if num_new_tokens > 1:
                num_new_tokens = min(num_new_tokens, budget, _longest_chunk(request))
                if self._num_lookahead_tokens and request.num_computed_tokens >= request.num_prompt_tokens:
                    num_new_tokens = 1 if is_fed_one_by_one(num_new_tokens, len(running)) else num_new_tokens
            elif request.lookup is not None:
                # Every running request behind this one gets a token first.
                drafts = self._draft(request, budget - (len(running) - index))
            ahead = self._num_lookahead_tokens
            if ahead and kv_cache.num_free_blocks <= 2 * len(running):
                ahead = 0  # a block too early is no reason to preempt anybody, now or at the next step
            if not kv_cache.extend(request, num_new_tokens, len(drafts) or ahead):
                self._preempt(running.pop())
                continue
            scheduled.append(ScheduledRequest(request, num_new_tokens, drafts=drafts))
            budget -= num_new_tokens + len(drafts)
            index += 1

        # Waiting requests in order, while there is room. One that does not fit holds up those behind it:
        # overtaking would let small requests starve a large one. One that was preempted just now needs more than
        # is left of the blocks it gave up, so it is not among the admitted.
        now = time.time()
        while budget > 0 and len(running) + self._num_more_sequences < self._max_num_seqs:
            request = self._waiting.first()
            if request is None:
                break
            # One spare block for each running sequence, or the newcomer would be preempted when one grows.
            num_running = num_spare_blocks = len(running) + self._num_more_sequences
            if request.beams is not None:
                if num_running + request.beams.width > self._max_num_seqs:
                    break
                num_spare_blocks += request.beams.num_blocks_behind_prompt(kv_cache.block_size)
            if not kv_cache.admit(request, num_spare_blocks=num_spare_blocks):
                break
            self._waiting.pop()
            self._start(request, now)
            num_new_tokens = len(request.token_ids) - request.num_computed_tokens
            num_new_tokens = min(num_new_tokens, budget, _longest_chunk(request))
            kv_cache.extend(request, num_new_tokens)
            scheduled.append(ScheduledRequest(request, num_new_tokens))
            budget -= num_new_tokens

        self._num_steps += bool(scheduled)
        self._num_step_tokens += self._max_num_batched_tokens - budget
        return scheduled

    def update(self, scheduled: Sequence[ScheduledRequest], results: Sequence[RequestResult]) -> ClientOutputs:
        """Take in what the step brought and end the requests that are done; what to tell each client."""
        outputs: ClientOutputs = {}
        any_finished = False
        for work, result in zip(scheduled, results, strict=True):
            request = work.request
            output = self._advance(request, work, result)
            if output is None:
                continue
            client_outputs = outputs.get(request.client)
            if client_outputs is None:
                client_outputs = outputs[request.client] = []
            client_outputs.append(output)
            any_finished = any_finished or output.finish_reason is not None
        if any_finished:
            self._drop_finished()
        return outputs

    def fail(self, scheduled: Sequence[ScheduledRequest], error: str) -> ClientOutputs:
        """End all requests of a step that went wrong, and trust nothing that it may have written."""
        return self.update(scheduled, [RequestResult([], error=error) for _ in scheduled])

    def take_released(self) -> list[Request]:
        """Requests that stopped running since the last call: finished, aborted or preempted."""
        released, self._released = self._released, []
        return released

    def reset_prefix_cache(self) -> None:
        """Forget every cached prefix that no running request holds."""
        self._kv_cache.reset_prefix_cache()

    def stats(self) -> EngineStats:
        return EngineStats(
            num_running=len(self._running),
            num_waiting=len(self._waiting),
            kv_cache_usage=self._kv_cache.usage,
            prefix_cache_queries=self._prefix_cache_queries,
            prefix_cache_hits=self._prefix_cache_hits,
            num_preemptions=self._num_preemptions,
            num_steps=self._num_steps,
            num_step_tokens=self._num_step_tokens,
            num_drafts=self._num_drafts,
            num_draft_tokens=self._num_draft_tokens,
            num_accepted_tokens=self._num_accepted_tokens,
        )

    def accounts(self, kept: Collection[Request]) -> Accounts:
        """Everything that is written down, to be checked. kept: what the model runner holds."""
        pool, cache = self._kv_cache.pool, self._kv_cache.cache
        return Accounts(
            requests=list(chain.from_iterable(requests.values() for requests in self._requests.values())),
            running=self._running,
            queued=self._waiting.entries,
            num_ended=self._waiting.num_ended,
            num_more_sequences=self._num_more_sequences,
            block_size=self._kv_cache.block_size,
            ref_counts=pool.ref_counts,
            free_blocks=pool.free_blocks,
            names=cache.names,
            named_blocks=cache.named_blocks,
            kept=kept,
        )

    def _draft(self, request: Request, budget: int) -> list[int]:
        """Guesses of a decoding request's next tokens, as many as the step and the request have room for."""
        lookup, params = request.lookup, request.params
        if lookup is None or len(self._running) > self._max_drafting or request.num_output_tokens < params.min_tokens:
            return []
        # A step brings one token more than it guesses.
        room = self._max_model_len - request.num_tokens - 1
        if params.max_tokens is not None:
            room = min(room, params.max_tokens - request.num_output_tokens - 1)
        drafts = lookup.draft(request.token_ids, min(room, budget))
        return drafts if self._kv_cache.has_room(request, 1 + len(drafts)) else []

    def _verified(self, request: Request, work: ScheduledRequest, num_accepted: int) -> None:
        """Take the guesses that proved right for computed; they are in the sequence by now."""
        self._num_drafts += 1
        self._num_draft_tokens += len(work.drafts)
        self._num_accepted_tokens += num_accepted
        assert request.lookup is not None
        request.lookup.verified(request.num_tokens, len(work.drafts), num_accepted)
        self._kv_cache.accept_drafts(request, num_accepted)

    def _order(self, request: Request) -> tuple[int, int, int]:
        """What runs and is admitted first; the last is preempted first."""
        return (self._priority(request), request.turn, request.sequence_number)

    def _priority(self, request: Request) -> int:
        return request.message.priority if self._by_priority else 0

    def _start(self, request: Request, now: float) -> None:
        request.status = RequestStatus.RUNNING
        insort(self._running, request, key=self._order)
        self._turns.begin(self._priority(request), request.turn)
        if request.beams is not None:
            self._num_more_sequences += request.beams.width - 1
        if request.first_scheduled_time is None:
            request.first_scheduled_time = now
            request.num_cached_tokens = min(request.num_computed_tokens, request.num_prompt_tokens)
            if self._kv_cache.enable_prefix_caching:
                self._prefix_cache_queries += request.num_tokens
                self._prefix_cache_hits += request.num_computed_tokens

    def _preempt(self, request: Request) -> None:
        self._release(request)
        if request.beams is not None:
            request.beams.preempted()
        request.status = RequestStatus.PREEMPTED
        request.num_preemptions += 1
        self._num_preemptions += 1
        # It keeps its place in the order of arrival, so it is the first of its priority to come back.
        self._waiting.push(request)

    def _advance(self, request: Request, work: ScheduledRequest, result: RequestResult) -> EngineOutput | None:
        """Bring a request forward by one step; what to send of it, if anything."""
        if request.beams is not None:
            return self._advance_beams(request.beams, request, work.num_new_tokens, result)
        if result.error is not None:
            return self._fail(request, result.error)
        prompt_logprobs = _new_prompt_logprobs(request, result)
        request.num_computed_tokens += work.num_new_tokens

        finish_reason: FinishReason | None = None
        stop_reason: int | None = None
        is_complete = False
        token_ids = result.token_ids
        logprobs = result.logprobs
        if request.message.params.max_tokens == 0:
            token_ids, logprobs = [], None
            if request.num_computed_tokens == request.num_prompt_tokens:
                finish_reason = "length"
        elif token_ids or result.is_complete:
            num_tokens, finish_reason, stop_reason = self._append(request, token_ids)
            if work.drafts:
                self._verified(request, work, min(num_tokens, len(token_ids) - 1))
            if num_tokens < len(token_ids):
                token_ids = token_ids[:num_tokens]
                logprobs = logprobs and logprobs[:num_tokens]
            elif result.is_complete and finish_reason != "stop":
                finish_reason, is_complete = "stop", True
        elif request.num_computed_tokens == request.num_tokens:
            # Its mask was not ready: the logits of the last token are needed again.
            request.num_computed_tokens -= 1
        if not token_ids and prompt_logprobs is None and finish_reason is None:
            return None

        output = EngineOutput(
            request.message.key,
            token_ids,
            finish_reason,
            stop_reason,
            logprobs,
            prompt_logprobs,
            request.num_cached_tokens,
        )
        output.is_complete = is_complete
        return self._told(request, output)

    def _advance_beams(
        self, beams: BeamGroup, sequence: Request, num_new_tokens: int, result: RequestResult
    ) -> EngineOutput | None:
        """The same for one of the sequences of a beam search."""
        request = beams.request
        if request.status is RequestStatus.FINISHED:
            return None  # it failed with another of its sequences
        if result.error is not None:
            return self._fail(request, result.error)
        output = EngineOutput(request.message.key, [], num_cached_tokens=request.num_cached_tokens)
        output.prompt_logprobs = _new_prompt_logprobs(sequence, result)
        sequence.num_computed_tokens += num_new_tokens
        if sequence.num_computed_tokens == sequence.num_tokens:
            self._released += beams.take(sequence, result, self._kv_cache)
        if beams.is_over:
            output.beams = beams.outputs()
            if not output.beams:
                return self._fail(request, NO_TOKEN_LEFT)
            output.finish_reason = output.beams[0].finish_reason
        return None if output.prompt_logprobs is None and output.beams is None else self._told(request, output)

    def _fail(self, request: Request, error: str) -> EngineOutput:
        """End a running request that cannot go on; nothing that it has written is trusted."""
        for sequence in [request] if request.beams is None else request.beams.sequences:
            self._kv_cache.discard(sequence)
        self._remove(request)
        return EngineOutput(request.message.key, [], "error", error=error)

    def _told(self, request: Request, output: EngineOutput) -> EngineOutput:
        """What is sent of a request, which ends with it if it says so."""
        if not request.has_output:
            request.has_output = True
            output.queue_seconds = _queue_seconds(request)
        if output.finish_reason is not None:
            self._remove(request)
        return output

    def _append(self, request: Request, token_ids: list[int]) -> tuple[int, FinishReason | None, int | None]:
        """Append sampled tokens up to the one that ends the sequence: their number, finish and stop reason."""
        params = request.message.params
        max_tokens = params.max_tokens
        num_output_tokens = len(request.token_ids) - request.num_prompt_tokens
        for index, token_id in enumerate(token_ids):
            may_stop = num_output_tokens >= params.min_tokens
            request.token_ids.append(token_id)
            num_output_tokens += 1
            if may_stop and token_id in request.stop_token_ids:
                is_eos = token_id in request.message.eos_token_ids and not params.ignore_eos
                return index + 1, "stop", None if is_eos else token_id
            if num_output_tokens == max_tokens or len(request.token_ids) >= self._max_model_len:
                return index + 1, "length", None
        return len(token_ids), None, None

    def _remove(self, request: Request) -> None:
        """End a request; `_drop_finished` takes it out of the running ones."""
        was_running = request.status is RequestStatus.RUNNING
        request.status = RequestStatus.FINISHED
        if was_running:
            self._release(request)
        else:
            self._waiting.count_ended()
        requests = self._requests[request.client]
        del requests[request.message.key]
        if not requests:
            del self._requests[request.client]

    def _release(self, request: Request) -> None:
        """Take the blocks and rows of a running request, and of its beams."""
        sequences = [request] if request.beams is None else request.beams.sequences
        for sequence in sequences:
            self._kv_cache.free(sequence)
        self._released += sequences
        self._num_more_sequences -= 0 if request.beams is None else request.beams.width - 1

    def _drop_finished(self) -> None:
        self._running = [request for request in self._running if request.status is RequestStatus.RUNNING]


def _new_prompt_logprobs(request: Request, result: RequestResult) -> list[TokenLogprobs] | None:
    """What of a step's prompt logprobs was not sent yet; before `num_computed_tokens` moves on."""
    if not result.prompt_logprobs:
        return None
    num_sent = request.num_prompt_logprobs - request.num_computed_tokens
    new = result.prompt_logprobs[max(num_sent, 0) :] or None
    request.num_prompt_logprobs += len(new or ())
    return new


def _longest_chunk(request: Request) -> int:
    """Most tokens of a request that one step may compute."""
    scored = request.params.prompt_logprobs is not None and request.num_computed_tokens < request.num_prompt_tokens
    return MAX_SCORED_CHUNK if scored else len(request.token_ids)


def _queue_seconds(request: Request) -> float:
    arrival_time = request.message.arrival_time
    if not arrival_time or request.first_scheduled_time is None:
        return 0.0
    return max(0.0, request.first_scheduled_time - arrival_time)
