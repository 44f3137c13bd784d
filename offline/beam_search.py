"""What `LLM.beam_search` takes and returns, named and shaped as users of vLLM know it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import msgspec

from ..engine_core.guided_params import GuidedDecodingParams, StructuredOutputsParams
from ..engine_core.sampling_params import SamplingParams
from ..engine_core.scheduling.beam_search import EarlyStopping
from ..engine_core.tokenizer import Tokenizer
from ..outputs import CompletionOutput, PositionLogprobs, RequestOutput


class BeamSearchParams(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A beam search. What is out of range is an `InvalidRequestError` (a ValueError) of `LLM.beam_search`."""

    beam_width: int
    """Beams that run at once, and answers that are returned; fewer where no more exist."""
    max_tokens: int
    ignore_eos: bool = False
    temperature: float = 0.0
    """0 or 1: nothing is drawn."""
    length_penalty: float = 1.0
    """Beams are ranked by the sum of their logprobs, divided by (number of output tokens) ** length_penalty."""
    include_stop_str_in_output: bool = False
    """Whether text and tokens show what ended an answer."""
    early_stopping: EarlyStopping = False
    """As of `SamplingParams`."""
    stop: list[str] | str | None = None
    stop_token_ids: list[int] | None = None
    min_tokens: int = 0
    guided_decoding: GuidedDecodingParams | None = None
    structured_outputs: StructuredOutputsParams | None = None
    """What each answer must match."""

    def sampling_params(self, max_logprobs: int) -> SamplingParams:
        """The same as `LLM.generate` takes it, with as many logprobs as vLLM gives: two a beam, if so many may be."""
        num_logprobs = 2 * self.beam_width
        return SamplingParams(
            use_beam_search=True,
            n=self.beam_width,
            max_tokens=self.max_tokens,
            min_tokens=self.min_tokens,
            ignore_eos=self.ignore_eos,
            temperature=self.temperature,
            length_penalty=self.length_penalty,
            early_stopping=self.early_stopping,
            include_stop_str_in_output=self.include_stop_str_in_output,
            stop=self.stop,
            stop_token_ids=self.stop_token_ids,
            guided_decoding=self.guided_decoding,
            structured_outputs=self.structured_outputs,
            logprobs=num_logprobs if max_logprobs == -1 else min(num_logprobs, max_logprobs),
        )


@dataclass(slots=True)
class BeamSearchSequence:
    """One answer."""

    tokens: list[int]
    """Prompt and answer; without the token that ended it, unless `include_stop_str_in_output`."""
    logprobs: list[PositionLogprobs]
    """One entry a generated token."""
    cum_logprob: float
    """Sum over the generated tokens: the model's own, not divided by the length."""
    text: str
    """Of prompt and answer."""
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass(slots=True)
class BeamSearchOutput:
    """The answers to one prompt, the best first."""

    sequences: list[BeamSearchSequence] = field(default_factory=list)


def beam_search_output(
    output: RequestOutput, params: BeamSearchParams, tokenizer: Tokenizer, eos_token_ids: Collection[int]
) -> BeamSearchOutput:
    """The answers as `LLM.beam_search` returns them."""
    prompt_text = tokenizer.decode(output.prompt_token_ids) if output.prompt is None else output.prompt
    return BeamSearchOutput(
        [
            BeamSearchSequence(
                tokens=output.prompt_token_ids + _shown_token_ids(answer, params, eos_token_ids),
                logprobs=answer.logprobs or [],
                cum_logprob=answer.cumulative_logprob or 0.0,
                text=prompt_text + answer.text,
                finish_reason=answer.finish_reason,
                stop_reason=answer.stop_reason,
            )
            for answer in output.outputs
        ]
    )


def _shown_token_ids(answer: CompletionOutput, params: BeamSearchParams, eos_token_ids: Collection[int]) -> list[int]:
    if params.include_stop_str_in_output or answer.finish_reason != "stop" or not answer.token_ids:
        return answer.token_ids
    last = answer.token_ids[-1]
    # An answer may also end with text: with a stop string, or where its grammar allows nothing more.
    ended_by_last = answer.stop_reason == last if answer.stop_reason is not None else last in eos_token_ids
    return answer.token_ids[:-1] if ended_by_last else answer.token_ids
