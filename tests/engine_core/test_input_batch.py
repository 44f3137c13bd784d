"""The arrays of a step that were brought up to date are those of one that was laid out anew, whatever came before."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine import EngineCore
from zqserve.engine_core.messages import EngineRequest
from zqserve.engine_core.model.input_batch import InputBatch
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.engine_core.scheduling.prompt_lookup import PromptLookupConfig
from zqserve.engine_core.scheduling.request import Request
from zqserve.engine_core.scheduling.step import RequestResult, ScheduledRequest
from zqserve.kernels import attention_batch as places
from zqserve.kernels.attention_batch import AttentionBatch

from .paged_model import PagedModel

MAX_MODEL_LEN = 96
MAX_NUM_SEQS = 6
GUESSING = PromptLookupConfig(
    num_speculative_tokens=4, prompt_lookup_max=3, prompt_lookup_min=1, disable_by_batch_size=MAX_NUM_SEQS
)


class CheckedModel(PagedModel):
    """Keeps an `InputBatch` beside what it computes, and compares it with a new one at each step."""

    def __init__(self, block_size: int, num_blocks: int, luck: random.Random) -> None:
        super().__init__(num_blocks=num_blocks, block_size=block_size, max_model_len=MAX_MODEL_LEN, num_choices=3)
        self._luck = luck
        self._batch = self._new_batch()
        self._row_of: dict[Request, int] = {}
        self.num_advanced = 0

    def execute(self, scheduled: list[ScheduledRequest]) -> list[RequestResult]:
        anew = self._new_batch()
        for item in scheduled:
            anew.add(item.request)
        anew.build(scheduled)
        if self._batch.advance(scheduled):
            self.num_advanced += 1
        else:
            for item in scheduled:
                if item.request not in self._batch.live:
                    self._row_of[item.request] = self._batch.next_row
                    self._batch.add(item.request)
            self._batch.build(scheduled)
        assert set(self._batch.live) == self._row_of.keys()
        assert self._batch.rows == [self._row_of[request] for request in self._batch.requests]
        assert_equal(self._batch, anew, self.block_size)
        results = super().execute(scheduled)
        for item, result in zip(scheduled, results, strict=True):
            # As when the mask of a guided request is late: its last token is computed once more.
            if result.token_ids and not item.drafts and self._luck.random() < 0.1:
                result.token_ids, result.logprobs = [], None
        return results

    def forget(self, requests: Iterable[Request]) -> None:
        for request in requests:
            assert self._batch.remove(request) == self._row_of.pop(request, None)
            self.live.discard(request)

    def _new_batch(self) -> InputBatch:
        return InputBatch(
            max_num_seqs=MAX_NUM_SEQS,
            max_blocks=-(-MAX_MODEL_LEN // self.block_size),
            block_size=self.block_size,
            group_size=8,
        )


def assert_equal(kept: InputBatch, anew: InputBatch, block_size: int) -> None:
    for name in ("token_ids", "positions", "wanted", "sampled_positions"):
        assert getattr(kept, name).dtype == np.int64
        assert getattr(kept, name).tolist() == getattr(anew, name).tolist(), name
    for name in ("prompt_targets", "sampling", "ahead", "requests", "num_scored", "has_beams", "has_guides"):
        assert getattr(kept, name) == getattr(anew, name), name
    assert as_kernels_read(kept.attention, block_size) == as_kernels_read(anew.attention, block_size)
    assert kept.attention.context_len.tolist() == anew.attention.context_len.tolist()
    assert kept.attention.query_start.tolist() == anew.attention.query_start.tolist()
    assert kept.attention.num_writes == anew.attention.num_writes


def as_kernels_read(batch: AttentionBatch, block_size: int) -> dict[str, object]:
    """What stands behind the addresses and numbers of a batch."""
    values, num_seqs = batch.values, len(batch.context_len)

    def read(place: int, size: int) -> list[int]:
        first = (int(values[place]) - batch.lists.ctypes.data) // 4
        return batch.lists[first : first + size].tolist()

    starts, contexts = read(places.QUERY_START, num_seqs + 1), read(places.CONTEXT_LEN, num_seqs)
    num_keys = [context + end - start for context, (start, end) in zip(contexts, pairwise(starts), strict=True)]
    num_items, num_writes = int(values[places.NUM_ITEMS]), int(values[places.NUM_WRITES])
    assert values[places.TABLE_WIDTH] == batch.block_table.shape[1]
    assert values[places.BLOCK_TABLE] == batch.block_table.ctypes.data
    return {
        "query_start": starts,
        "context_len": contexts,
        "blocks": [
            row[: -(-keys // block_size)].tolist() for row, keys in zip(batch.block_table, num_keys, strict=True)
        ],
        "tokens_per_item": int(values[places.TOKENS_PER_ITEM]),
        # Their order is for speed alone.
        "items": sorted(zip(read(places.ITEM_SEQ, num_items), read(places.ITEM_START, num_items), strict=True)),
        "written_early": read(places.WRITTEN_EARLY, num_seqs),
        "writes": list(zip(read(places.WRITE_SEQ, num_writes), read(places.WRITE_START, num_writes), strict=True)),
    }


@given(seed=st.integers(0, 2**32), block_size=st.sampled_from([2, 4, 16]), budget=st.integers(8, 64))
@settings(max_examples=60, deadline=None)
def test_a_batch_that_is_brought_up_to_date_is_what_it_would_be_anew(seed: int, block_size: int, budget: int) -> None:
    luck = random.Random(seed)
    model = CheckedModel(block_size, num_blocks=luck.choice([1, 2, 6]) * MAX_MODEL_LEN // block_size, luck=luck)
    config = EngineConfig(
        model="",
        max_num_seqs=MAX_NUM_SEQS,
        max_num_batched_tokens=budget,
        prompt_lookup=luck.choice([None, GUESSING]),
    )
    engine = EngineCore(model, config)
    for key in range(12):
        is_beam_search = luck.random() < 0.2
        params = SamplingParams(
            temperature=0.0,
            max_tokens=luck.randrange(1, 40),
            ignore_eos=True,
            prompt_logprobs=luck.choice([None, None, None, 0]),
            use_beam_search=is_beam_search,
            n=luck.randrange(1, 4) if is_beam_search else 1,
        )
        prompt = [luck.randrange(3, 6) for _ in range(luck.randrange(1, 40))]
        engine.add_request(EngineRequest(key=key, prompt_token_ids=prompt, params=params))
        for _ in range(luck.choice([0, 1, 3, 8, 20])):
            engine.step()
        if luck.random() < 0.1:
            engine.abort(b"", [luck.randrange(key + 1)])
    for _ in range(3000):
        if not engine.has_unfinished():
            break
        for output in engine.step().get(b"", []):
            assert output.error is None
    assert not engine.has_unfinished()
    event(f"preempted: {engine.stats().num_preemptions > 0}; guessed: {engine.stats().num_drafts > 0}")
    assert model.num_advanced > 0 or engine.stats().num_steps < 60
