"""From the engine's outputs to what a client is told: text, without stop strings, of the best candidates.

Pure and synchronous. The engine client feeds it in the server, `LLM` offline. A token of a plain stream costs about a
microsecond here: a table look-up for its text and one `SampleDelta`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from ...engine_core.messages import BeamOutput, EngineOutput, EngineRequest, FinishReason, TokenLogprobs
from ...engine_core.sampling_params import SamplingParams
from ...engine_core.tokenizer import Tokenizer
from .detokenizer import Detokenizer, make_detokenizer
from .stop_checker import StopChecker


class SampleDelta(msgspec.Struct, gc=False):
    """What is new of one answer."""

    index: int
    """Number of the answer, from 0."""
    text: str
    """May be empty while a character is incomplete or a stop string may have begun."""
    token_ids: list[int]
    """All tokens, those of a stop string and of the end of the sequence too."""
    logprobs: list[TokenLogprobs] | None = None
    """One entry a token of `token_ids`, when asked for."""
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    """The stop string or the stop token id that ended it; None for EOS and length."""
    cumulative_logprob: float | None = None
    """Sum over all tokens so far, when logprobs were asked for."""


@dataclass(eq=False, slots=True)
class RequestState:
    """All answers to one prompt."""

    params: SamplingParams
    prompt_logprobs: list[TokenLogprobs] | None
    """Of positions 1, 2, …; complete before the first delta. None when not asked for."""
    num_prompt_tokens: int
    picks_best: bool
    """Whether only the best of its answers are told."""
    samples: dict[int, _Sample] = field(default_factory=dict)
    """Unfinished ones, by key."""
    num_cached_tokens: int = 0
    """Prompt tokens that the prefix cache had."""
    queue_seconds: float | None = None
    """Time from arrival to the first schedule."""
    num_output_tokens: int = 0
    """Generated for all answers, those of dropped candidates (best_of) among them."""
    error: str | None = None
    """Why the engine could not compute it."""
    early: list[SampleDelta] = field(default_factory=list)
    """Deltas that wait for the prompt's logprobs."""
    candidates: list[SampleDelta] = field(default_factory=list)
    """Finished answers of which only the best will be told."""

    @property
    def finished(self) -> bool:
        """Whether every answer has ended."""
        return not self.samples

    @property
    def awaits_prompt_logprobs(self) -> bool:
        return self.prompt_logprobs is not None and len(self.prompt_logprobs) < self.num_prompt_tokens - 1


@dataclass(eq=False, slots=True)
class _Sample:
    """One sequence that the engine generates."""

    state: RequestState
    request: EngineRequest
    index: int
    detokenizer: Detokenizer | None
    stop_checker: StopChecker | None
    min_tokens: int
    shows_stop: bool
    """Whether the text shows what ended it."""
    token_ids: list[int] = field(default_factory=list)
    """All so far, of which a new engine would be told."""
    cumulative_logprob: float = 0.0
    pieces: list[SampleDelta] = field(default_factory=list)
    """Of a candidate: what it brought so far."""


class OutputProcessor:
    """Turns the outputs of live requests into deltas."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._samples: dict[int, _Sample] = {}
        self._aborts: list[int] = []

    def add(self, requests: list[EngineRequest], params: SamplingParams) -> RequestState:
        """Expect outputs of the requests that are the answers to one prompt; `params` are those of the client."""
        state = RequestState(
            params,
            prompt_logprobs=None if params.prompt_logprobs is None else [],
            num_prompt_tokens=len(requests[0].prompt_token_ids),
            picks_best=params.num_samples > params.n and not params.use_beam_search,
        )
        for request in requests:
            sample = self._sample(state, request, request.sample_index)
            self._samples[request.key] = state.samples[request.key] = sample
        return state

    def process(self, output: EngineOutput) -> tuple[RequestState, list[SampleDelta]] | None:
        """What an output brings; None for a key that is not (or no longer) expected."""
        sample = self._samples.get(output.key)
        if sample is None:
            return None
        state = sample.state
        if output.queue_seconds is not None and state.queue_seconds is None:
            state.queue_seconds = output.queue_seconds
            state.num_cached_tokens = output.num_cached_tokens
        if output.error is not None:
            state.error = output.error
        if output.prompt_logprobs and state.prompt_logprobs is not None:
            state.prompt_logprobs += output.prompt_logprobs
        if output.beams is not None:
            del self._samples[output.key], state.samples[output.key]
            return state, self._of_beams(sample, output.beams)
        delta = self._delta(sample, output)
        finish_reason = delta.finish_reason
        if finish_reason is not None:
            del self._samples[output.key], state.samples[output.key]
        if state.picks_best:
            return state, _best(state, sample, delta)
        if finish_reason is None and not delta.token_ids:
            return state, []
        if state.prompt_logprobs is not None:
            return state, _behind_prompt_logprobs(state, delta)
        return state, [delta]

    def take_aborts(self) -> list[int]:
        """Keys of sequences that ended here (a stop string) while the engine still generates; each is told once."""
        aborts, self._aborts = self._aborts, []
        return aborts

    def resumed(self, state: RequestState) -> list[EngineRequest]:
        """What has an engine that knows nothing of it go on with a request: its unfinished answers, as far as they are.

        Of the prompt's logprobs it sends either none, or all of them again.
        """
        requests: list[EngineRequest] = []
        for sample in state.samples.values():
            request = sample.request
            if sample.token_ids:
                request = msgspec.structs.replace(request, output_token_ids=sample.token_ids)
            elif request.params.prompt_logprobs is not None and state.prompt_logprobs is not None:
                state.prompt_logprobs.clear()
            requests.append(request)
        return requests

    def remove(self, state: RequestState) -> list[int]:
        """Expect nothing more of a request; the keys that the engine still works on."""
        keys = list(state.samples)
        for key in keys:
            del self._samples[key]
        state.samples.clear()
        return keys

    def _sample(self, state: RequestState, request: EngineRequest, index: int) -> _Sample:
        """An answer that has not begun."""
        params = state.params
        return _Sample(
            state,
            request,
            index,
            self._detokenizer(request.prompt_token_ids, params),
            StopChecker(params.stop_strings, include_in_output=params.include_stop_str_in_output)
            if params.stop_strings
            else None,
            params.min_tokens,
            params.include_stop_str_in_output,
        )

    def _of_beams(self, first: _Sample, beams: list[BeamOutput]) -> list[SampleDelta]:
        """The answers that a beam search found, the best first, each as a whole."""
        deltas: list[SampleDelta] = []
        for index, beam in enumerate(beams):
            sample = self._sample(first.state, first.request, index)
            output = EngineOutput(
                first.request.key,
                beam.token_ids,
                beam.finish_reason,
                beam.stop_reason,
                beam.logprobs,
                is_complete=beam.is_complete,
            )
            delta = self._delta(sample, output)
            delta.cumulative_logprob = beam.cumulative_logprob
            deltas.append(delta)
        return deltas

    def _detokenizer(self, prompt_token_ids: list[int], params: SamplingParams) -> Detokenizer | None:
        if not params.detokenize:
            return None
        return make_detokenizer(
            self._tokenizer,
            prompt_token_ids,
            skip_special_tokens=params.skip_special_tokens,
            spaces_between_special_tokens=params.spaces_between_special_tokens,
        )

    def _delta(self, sample: _Sample, output: EngineOutput) -> SampleDelta:
        token_ids, logprobs, finish_reason = output.token_ids, output.logprobs, output.finish_reason
        stop_reason: int | str | None = output.stop_reason
        text, detokenizer = "", sample.detokenizer
        if detokenizer is None:
            pass
        elif sample.stop_checker is None:
            text = _shown(sample, detokenizer, output)
        else:
            text, num_read = _until_stop(sample, detokenizer, sample.stop_checker, output)
            if sample.stop_checker.matched is not None:
                token_ids = token_ids[:num_read]
                logprobs = None if logprobs is None else logprobs[:num_read]
                if finish_reason is None:
                    self._aborts.append(output.key)
                finish_reason, stop_reason = "stop", sample.stop_checker.matched
        sample.token_ids += token_ids
        sample.state.num_output_tokens += len(token_ids)
        if logprobs is None:
            return SampleDelta(sample.index, text, token_ids, None, finish_reason, stop_reason)
        sample.cumulative_logprob += sum(position.logprobs[0] for position in logprobs)
        return SampleDelta(
            sample.index, text, token_ids, logprobs, finish_reason, stop_reason, sample.cumulative_logprob
        )


def _shown(sample: _Sample, detokenizer: Detokenizer, output: EngineOutput) -> str:
    """The text of an output without stop strings to look for."""
    if output.finish_reason is None and len(output.token_ids) == 1:  # nearly all outputs
        return detokenizer.add(output.token_ids[0])
    text = "".join(map(detokenizer.add, _shown_ids(sample, output)))
    return text if output.finish_reason is None else text + detokenizer.finish()


def _shown_ids(sample: _Sample, output: EngineOutput) -> list[int]:
    """The tokens that are text: the one that ended the sequence is not, unless it is asked for."""
    hides_last = output.finish_reason == "stop" and not output.is_complete and not sample.shows_stop
    return output.token_ids[:-1] if hides_last else output.token_ids


def _until_stop(
    sample: _Sample, detokenizer: Detokenizer, checker: StopChecker, output: EngineOutput
) -> tuple[str, int]:
    """The text that may be shown now, and how many of the tokens it took to find a stop string (or all)."""
    pieces: list[str] = []
    num_tokens, token_ids = len(sample.token_ids), output.token_ids
    for num_read, token_id in enumerate(_shown_ids(sample, output), 1):
        exempt = num_tokens + num_read <= sample.min_tokens
        pieces.append(checker.add(detokenizer.add(token_id), exempt=exempt))
        if checker.matched is not None:
            return "".join(pieces), num_read
    if output.finish_reason is not None:
        exempt = num_tokens + len(token_ids) <= sample.min_tokens
        pieces.append(checker.add(detokenizer.finish(), exempt=exempt))
        pieces.append(checker.finish())
    return "".join(pieces), len(token_ids)


def _behind_prompt_logprobs(state: RequestState, delta: SampleDelta) -> list[SampleDelta]:
    """What may be told now, as the prompt's logprobs come before all else."""
    state.early.append(delta)
    if state.awaits_prompt_logprobs and not state.finished:
        return []
    deltas, state.early = state.early, []
    return deltas


def _best(state: RequestState, sample: _Sample, delta: SampleDelta) -> list[SampleDelta]:
    """Keep a candidate's piece; when all have ended, the `n` best by cumulative logprob, the best first."""
    sample.pieces.append(delta)
    if delta.finish_reason is not None:
        state.candidates.append(merge_deltas(sample.pieces))
    if not state.finished:
        return []
    # Of equally good ones the first; a candidate with no token has a sum of 0, which nothing beats.
    ranked = sorted(state.candidates, key=lambda candidate: (-(candidate.cumulative_logprob or 0.0), candidate.index))
    best = ranked[: state.params.n]
    for index, answer in enumerate(best):
        answer.index = index
        if state.params.logprobs is None:
            answer.logprobs = answer.cumulative_logprob = None
    return best


def merge_deltas(deltas: list[SampleDelta]) -> SampleDelta:
    """One delta of several of the same answer, in order."""
    if len(deltas) == 1:
        return deltas[0]
    last = deltas[-1]
    logprobs = [position for delta in deltas for position in delta.logprobs or ()]
    sums = [delta.cumulative_logprob for delta in deltas if delta.cumulative_logprob is not None]
    return SampleDelta(
        last.index,
        "".join(delta.text for delta in deltas),
        [token_id for delta in deltas for token_id in delta.token_ids],
        logprobs if any(delta.logprobs is not None for delta in deltas) else None,
        last.finish_reason,
        last.stop_reason,
        sums[-1] if sums else None,
    )
