"""A model without weights for the tests of scheduler and engine: it knows when the cache is wrong.

The "key and value" of a position is a fingerprint of all tokens up to it. Each step writes the fingerprints
of its positions into the blocks it was given, then reads every earlier position back: a block that was
shared, evicted or overwritten wrongly shows at once. The next token follows from the last fingerprint alone,
so whatever the schedule, a request must end with the tokens of `generate_alone`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from zqserve.engine_core.messages import EngineRequest, TokenLogprobs
from zqserve.engine_core.scheduling.beam_group import BeamGroup
from zqserve.engine_core.scheduling.request import Request, RequestStatus
from zqserve.engine_core.scheduling.step import Candidates, RequestResult, ScheduledRequest

EOS = 2
VOCAB_SIZE = 64
GARBAGE = -1


class StepFailure(RuntimeError):
    """What a model that breaks raises."""


class PagedModel:
    """Implements `zqserve.engine_core.scheduling.step.Runner`."""

    dtype = "float32"

    def __init__(
        self,
        *,
        num_blocks: int = 64,
        block_size: int = 4,
        max_model_len: int = 128,
        max_num_batched_tokens: int = 2048,
        max_num_seqs: int = 256,
        num_choices: int = VOCAB_SIZE,
        num_lookahead_tokens: int = 0,
    ) -> None:
        """num_lookahead_tokens: where blocks are there, so many tokens behind the computed ones are overwritten."""
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.max_model_len = max_model_len
        self.vocab_size = VOCAB_SIZE
        self.num_lookahead_tokens = num_lookahead_tokens
        self.default_batched_tokens = max_num_batched_tokens
        self.num_written_ahead = 0
        self.fail_next_step = False
        self.fail_next_request = False
        self.live: set[Request] = set()
        """The sequences that were computed and not forgotten."""
        self._groups: set[BeamGroup] = set()
        self.started: list[Request] = []
        """In the order of their first step."""
        self.steps: list[Counter[int]] = []
        """For each step, the new tokens of each request's key."""
        self._max_num_batched_tokens = max_num_batched_tokens
        self._max_num_seqs = max_num_seqs
        self._num_choices = num_choices
        self._slots = [[GARBAGE] * block_size for _ in range(num_blocks)]

    def execute(self, scheduled: list[ScheduledRequest]) -> list[RequestResult]:
        self._check_limits(scheduled)
        assert all(request.status is RequestStatus.RUNNING for request in self.live), "one was not forgotten"
        self.steps.append(Counter())
        for work in scheduled:
            request = work.request
            self.steps[-1][request.message.key] += work.num_new_tokens
            if request.beams is not None:
                self._groups.add(request.beams)
            if request not in self.live:
                self.live.add(request)
                if request.num_preemptions == 0 and (request.beams is None or request.beams.request is request):
                    self.started.append(request)
        self._write(scheduled)
        if self.fail_next_step:
            self.fail_next_step = False
            raise StepFailure("the model broke")
        for work in scheduled:
            self._check_content(work)
        results = [self._result(work) for work in scheduled]
        self._write_ahead(scheduled, results)
        if self.fail_next_request:
            self.fail_next_request = False
            results[-1] = RequestResult([], error="the sampler broke")
        return results

    def forget(self, requests: Iterable[Request]) -> None:
        for request in requests:
            assert request in self.live or request.beams is not None, "only a beam may end before it was computed"
            self.live.discard(request)

    def num_held_blocks(self) -> int:
        """Distinct blocks of the requests that are not forgotten, and of the beams that are not computed yet."""
        beams = {beam for group in self._groups for beam in group.sequences}
        return len({block_id for request in self.live | beams for block_id in request.block_ids})

    def _check_limits(self, scheduled: list[ScheduledRequest]) -> None:
        assert scheduled
        assert len({id(work.request) for work in scheduled}) == len(scheduled) <= self._max_num_seqs
        assert sum(work.num_tokens for work in scheduled) <= self._max_num_batched_tokens
        for work in scheduled:
            end = work.request.num_computed_tokens + work.num_new_tokens
            assert work.num_new_tokens >= 1
            assert end <= work.request.num_tokens <= self.max_model_len
            assert end + len(work.drafts) <= len(work.request.block_ids) * self.block_size
            assert end + len(work.drafts) < self.max_model_len or not work.drafts
            assert end == work.request.num_tokens or not work.drafts
            assert len(set(work.request.block_ids)) == len(work.request.block_ids)

    def _write(self, scheduled: list[ScheduledRequest]) -> None:
        for work in scheduled:
            if work.copied_block is not None:
                source, target = work.copied_block
                self._slots[target] = list(self._slots[source])
        writers: dict[int, Request] = {}
        for work in scheduled:
            request = work.request
            token_ids = request.token_ids + work.drafts
            for position in range(request.num_computed_tokens, request.num_computed_tokens + work.num_tokens):
                block_id, offset = request.block_ids[position // self.block_size], position % self.block_size
                assert writers.setdefault(block_id, request) is request, "two requests write into one block"
                # Of the tokens up to a position: from the slot before it, as attention would have it.
                before = 0 if position == 0 else self._read(request, position - 1)
                fingerprint = next_fingerprint(before, token_ids[position])
                self._slots[block_id][offset] = GARBAGE if self.fail_next_step else fingerprint

    def _write_ahead(self, scheduled: list[ScheduledRequest], results: list[RequestResult]) -> None:
        """As a runner that has begun with the next step: what it computes may turn out to be asked for by nobody."""
        for work, result in zip(scheduled, results, strict=True):
            request = work.request
            start = request.num_tokens + len(result.token_ids) - 1
            for position in range(start, start + self.num_lookahead_tokens if result.token_ids else start):
                if position < len(request.block_ids) * self.block_size:
                    self._slots[request.block_ids[position // self.block_size]][position % self.block_size] = GARBAGE
                    self.num_written_ahead += 1

    def _read(self, request: Request, position: int) -> int:
        return self._slots[request.block_ids[position // self.block_size]][position % self.block_size]

    def _check_content(self, work: ScheduledRequest) -> None:
        expected = 0
        for position in range(work.request.num_computed_tokens + work.num_new_tokens):
            expected = next_fingerprint(expected, work.request.token_ids[position])
            assert self._read(work.request, position) == expected, f"wrong content at position {position}"

    def _result(self, work: ScheduledRequest) -> RequestResult:
        request = work.request
        start, end = request.num_computed_tokens, request.num_computed_tokens + work.num_new_tokens
        prompt_logprobs = None
        if request.params.prompt_logprobs is not None:
            prompt_logprobs = [
                TokenLogprobs([request.token_ids[position]], [-float(position)], 1)
                for position in range(start + 1, min(end + 1, request.num_prompt_tokens))
            ]
        if end < request.num_tokens:
            return RequestResult([], prompt_logprobs=prompt_logprobs)
        fingerprint = self._read(request, end - 1)
        if request.beams is not None:
            return RequestResult([], None, prompt_logprobs, candidates=_candidates(request.beams, fingerprint))
        token_ids = [sample(fingerprint, self._num_choices)]
        for number, draft in enumerate(work.drafts):
            if token_ids[number] != draft:
                break
            token_ids.append(sample(self._read(request, end + number), self._num_choices))
        logprobs = [TokenLogprobs([token_id], [-1.0], 1) for token_id in token_ids]
        return RequestResult(token_ids, None if request.params.logprobs is None else logprobs, prompt_logprobs)


def next_fingerprint(before: int, token_id: int) -> int:
    return (before * 1_000_003 + token_id + 1) % (2**61 - 1)


def sample(fingerprint: int, num_choices: int = VOCAB_SIZE) -> int:
    """A token that depends on nothing but the tokens before it; now and then EOS."""
    return fingerprint * 2_654_435_761 % (2**61 - 1) % num_choices


def log_probabilities(fingerprint: int) -> list[float]:
    """Of each token, by nothing but the tokens before it; no two are equal."""
    return [
        -1.0 - next_fingerprint(fingerprint, token_id) * 2_654_435_761 % 1009 / 300 - token_id / 10_007
        for token_id in range(VOCAB_SIZE)
    ]


def _candidates(beams: BeamGroup, fingerprint: int) -> Candidates:
    scores = log_probabilities(fingerprint)
    token_ids = sorted(range(VOCAB_SIZE), key=lambda token_id: -scores[token_id])[: beams.num_candidates]
    found = [scores[token_id] for token_id in token_ids]
    return Candidates(token_ids, found, found)


def generate_alone(
    message: EngineRequest, max_model_len: int, num_choices: int = VOCAB_SIZE
) -> tuple[list[int], str, int | None]:
    """Output tokens, finish reason and stop reason of a request, by the plainest loop."""
    params = message.params
    fingerprint = 0
    for token_id in message.prompt_token_ids:
        fingerprint = next_fingerprint(fingerprint, token_id)
    output: list[int] = []
    if params.max_tokens == 0:
        return output, "length", None
    while True:
        token_id = sample(fingerprint, num_choices)
        fingerprint = next_fingerprint(fingerprint, token_id)
        output.append(token_id)
        if len(output) > params.min_tokens:
            if token_id in message.eos_token_ids and not params.ignore_eos:
                return output, "stop", None
            if token_id in (params.stop_token_ids or ()):
                return output, "stop", token_id
        if len(output) == params.max_tokens or len(message.prompt_token_ids) + len(output) == max_model_len:
            return output, "length", None
