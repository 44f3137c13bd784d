"""A model runner that computes nothing, so that a step costs what scheduling and bookkeeping cost."""

from __future__ import annotations

from collections.abc import Iterable

from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine import EngineCore
from zqserve.engine_core.messages import EngineRequest
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.engine_core.scheduling.request import Request
from zqserve.engine_core.scheduling.step import RequestResult, ScheduledRequest

TOKEN = 7


class NullRunner:
    """Implements `engine_core.scheduling.step.Runner`: the next token of whoever is computed to its end is `TOKEN`."""

    dtype = "none"
    num_lookahead_tokens = 0
    default_batched_tokens = 2**20
    block_size = 16
    vocab_size = 32_000

    def __init__(self, num_blocks: int, max_model_len: int) -> None:
        self.num_blocks = num_blocks
        self.max_model_len = max_model_len
        self.live: set[Request] = set()

    def execute(self, scheduled: list[ScheduledRequest]) -> list[RequestResult]:
        self.live.update([item.request for item in scheduled])
        return [RequestResult([TOKEN] if _is_computed(item) else []) for item in scheduled]

    def forget(self, requests: Iterable[Request]) -> None:
        self.live.difference_update(requests)


def _is_computed(item: ScheduledRequest) -> bool:
    """Whether the step computes the sequence to its end."""
    return item.request.num_computed_tokens + item.num_new_tokens == item.request.num_tokens


def null_core(*, max_num_seqs: int, context: int, num_blocks: int | None = None) -> EngineCore:
    """An engine core on a `NullRunner`, with room for that many sequences of `context` tokens."""
    if num_blocks is None:
        num_blocks = (max_num_seqs + 1) * (context // NullRunner.block_size + 1)
    config = EngineConfig(model="", max_num_seqs=max_num_seqs)
    return EngineCore(NullRunner(num_blocks, context), config)


def add_requests(core: EngineCore, number: int, *, prompt_tokens: int, max_tokens: int, first_key: int = 0) -> None:
    """Queue requests with prompts that share nothing."""
    for key in range(first_key, first_key + number):
        params = SamplingParams(temperature=0, seed=1, max_tokens=max_tokens, ignore_eos=True)
        prompt = distinct_prompt(key, prompt_tokens, core.describe().vocab_size)
        core.add_request(EngineRequest(key=key, prompt_token_ids=prompt, params=params))


def distinct_prompt(key: int, num_tokens: int, vocab_size: int) -> list[int]:
    """A prompt whose first block no other key has."""
    return [(key * 7919 + place * (1 + key // vocab_size)) % vocab_size for place in range(num_tokens)]
