"""The queue of texts to pool: what was aborted does not stay in it."""

from __future__ import annotations

from collections.abc import Sequence

from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.pooling.pooling_core import PoolingCore
from zqserve.engine_core.pooling.pooling_messages import Pooled, PoolingRequest
from zqserve.engine_core.pooling.pooling_params import PoolingParams


class OneAStep:
    """A model that notes which texts it was given."""

    max_model_len = 100
    vocab_size = 100
    dtype = "float32"

    def __init__(self) -> None:
        self.seen: list[int] = []

    def execute(self, requests: Sequence[PoolingRequest]) -> list[Pooled | str]:
        self.seen += [request.key for request in requests]
        return ["no answer"] * len(requests)


def text(key: int, priority: int) -> PoolingRequest:
    return PoolingRequest(key=key, prompt_token_ids=[5] * 9, params=PoolingParams(task="embed"), priority=priority)


def test_texts_that_are_aborted_before_their_turn_do_not_pile_up() -> None:
    model = OneAStep()
    config = EngineConfig(model="", max_num_seqs=1, scheduling_policy="priority")
    core = PoolingCore(model, config, ("embed",))
    core.add_request(text(0, priority=9))
    for number in range(1, 2000, 2):
        core.add_request(text(number, priority=5))
        core.add_request(text(number + 1, priority=0))
        core.abort(b"", [number])
        core.step()  # always something that comes first
    assert len(core._queue) <= 3
    while core.has_unfinished():
        core.step()
    assert model.seen == [*range(2, 2001, 2), 0]
