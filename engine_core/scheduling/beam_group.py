"""The sequences of one request that is a beam search, for the scheduler.

First the request itself computes the prompt, like any other. Then each beam is a sequence of its own: a `Request` that
shares the blocks of what it has in common with others. They need not be computed in the same step; once the candidates
of all are there, the search chooses among them, and the sequences fork, go on or end. After a preemption the prompt is
computed again, and each beam's output behind it.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterator
from itertools import islice

from ..messages import BeamOutput
from .beam_search import Beam, BeamSearch, Ending
from .beam_stops import StopStrings
from .kv_cache_manager import KVCacheManager
from .request import Request, RequestStatus
from .step import Candidates, RequestResult, ScheduledRequest


class BeamGroup:
    """The beams of one request.

    Invariant: sequence number i belongs to the running beam number i of the search, once the prompt is computed.
    """

    def __init__(self, request: Request, *, max_tokens: int, stop_strings: StopStrings | None = None) -> None:
        """request: which computes the prompt. max_tokens: most output tokens of a beam, at least 1."""
        params = request.params
        self.request = request
        self.width = params.num_samples
        self._search = BeamSearch(
            width=self.width,
            max_tokens=max_tokens,
            length_penalty=params.length_penalty,
            early_stopping=params.early_stopping,
        )
        self.num_candidates = self._search.num_candidates(len(request.stop_token_ids))
        """How many candidates are asked for of each sequence."""
        self._max_tokens = max_tokens
        self._stop_strings = stop_strings
        self._in_prompt = True
        self._beams: list[Request] = []
        self._results: dict[Request, RequestResult] = {}
        """Of the sequences that are computed to their end."""

    @property
    def sequences(self) -> list[Request]:
        """Those that hold blocks, and are computed."""
        return [self.request] if self._in_prompt else self._beams

    def num_blocks_behind_prompt(self, block_size: int) -> int:
        """Blocks that the beams need when the prompt is computed, beside those of the prompt."""
        num_prompt_tokens = self.request.num_prompt_tokens
        num_shared = num_prompt_tokens // block_size
        own = [-(-beam.num_tokens // block_size) - num_shared for beam in self._beams]
        return max(0, sum(own) - (num_prompt_tokens % block_size > 0))

    def work(self, budget: int, longest_prompt_chunk: int) -> list[ScheduledRequest]:
        """What is to be computed of the sequences that have no candidates, at most `budget` tokens."""
        if self._in_prompt:
            num_left = self.request.num_tokens - self.request.num_computed_tokens
            return [ScheduledRequest(self.request, min(num_left, budget, longest_prompt_chunk))]
        work: list[ScheduledRequest] = []
        for beam in self._beams:
            if budget > 0 and beam not in self._results:
                num_new_tokens = min(beam.num_tokens - beam.num_computed_tokens, budget)
                work.append(ScheduledRequest(beam, num_new_tokens))
                budget -= num_new_tokens
        return work

    def take(self, sequence: Request, result: RequestResult, kv_cache: KVCacheManager) -> list[Request]:
        """Take in what a step brought to a sequence that is computed to its end; the sequences that are gone now."""
        if result.candidates is None and not result.is_complete:
            # Its mask was not ready: the logits of the last token are needed again.
            sequence.num_computed_tokens -= 1
            return []
        if self._in_prompt and self._beams:
            return self._resume(kv_cache)
        self._results[sequence] = result
        return self._advance(kv_cache) if len(self._results) == len(self.sequences) else []

    def preempted(self) -> None:
        """The sequences have lost their blocks: begin with the prompt again."""
        self._in_prompt = True
        self._results.clear()

    @property
    def is_over(self) -> bool:
        return self._search.is_over

    def outputs(self) -> list[BeamOutput]:
        """The best beams, once the search is over; fewer than were asked for where no more exist."""
        return [beam.output() for beam in self._search.ended[: self.request.params.n]]

    def _advance(self, kv_cache: KVCacheManager) -> list[Request]:
        """Let the search choose, and make a sequence of each beam that goes on."""
        before = self.sequences
        found = [self._continuations(i, sequence) for i, sequence in enumerate(before)]
        ordered = heapq.merge(*found, key=lambda beam: -beam.score)
        self._search.advance(list(islice(ordered, self.num_candidates)))
        self._results.clear()
        if self._search.is_over:
            return []

        running = self._search.running
        # The first beam that goes on from a sequence takes it over; the prompt's stays for a preemption.
        heirs: dict[Request, None] = {}
        beams: list[Request] = []
        for beam in running:
            sequence = before[beam.parent]
            if self._in_prompt or sequence in heirs:
                beams.append(_fork(sequence, kv_cache))
            else:
                heirs[sequence] = None
                beams.append(sequence)
        for sequence, beam in zip(beams, running, strict=True):
            sequence.token_ids.append(beam.token_id)
            if sequence.guide is not None:
                sequence.guide.appended(beam.token_id)
        gone = [sequence for sequence in before if sequence not in heirs]
        for sequence in gone:
            kv_cache.free(sequence)
        self._beams, self._in_prompt = beams, False
        return gone

    def _resume(self, kv_cache: KVCacheManager) -> list[Request]:
        """The prompt is computed again: go on with each beam behind it."""
        for beam in self._beams:
            kv_cache.fork(self.request, beam)
        kv_cache.free(self.request)
        self._in_prompt = False
        return [self.request]

    def _continuations(self, parent: int, sequence: Request) -> Iterator[Beam]:
        """Of one running beam, the best first."""
        beam, result = self._search.running[parent], self._results[sequence]
        if result.is_complete:
            yield beam.ended(parent, Ending("stop", is_complete=True))
            return
        found = result.candidates
        assert isinstance(found, Candidates)
        for number, token_id in enumerate(found.token_ids):
            tail, stops = beam.tail, False
            if self._stop_strings is not None:
                tail, stops = self._stop_strings.read(tail, token_id)
            yield Beam(
                before=beam,
                parent=parent,
                token_id=token_id,
                num_tokens=beam.num_tokens + 1,
                score=beam.score + found.scores[number],
                logprob=beam.logprob + found.logprobs[number],
                entry=found.entry(number),
                ending=self._ending(beam.num_tokens + 1, token_id, stops),
                tail=tail,
            )

    def _ending(self, num_tokens: int, token_id: int, stops: bool) -> Ending | None:
        """Whether a beam of so many tokens has ended with this one, which may have completed a stop string."""
        request, params = self.request, self.request.params
        if num_tokens > params.min_tokens:
            if token_id in request.stop_token_ids:
                is_eos = token_id in request.message.eos_token_ids and not params.ignore_eos
                return Ending("stop", None if is_eos else token_id)
            if stops:
                return Ending("stop", is_complete=True)
        return Ending("length") if num_tokens == self._max_tokens else None


def _fork(sequence: Request, kv_cache: KVCacheManager) -> Request:
    """Another sequence of the same tokens."""
    fork = dataclasses.replace(
        sequence,
        token_ids=list(sequence.token_ids),
        block_ids=[],
        block_hashes=list(sequence.block_hashes),
        status=RequestStatus.RUNNING,
        guide=None if sequence.guide is None else sequence.guide.fork(),
    )
    kv_cache.fork(sequence, fork)
    return fork
