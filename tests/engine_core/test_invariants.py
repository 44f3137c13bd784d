"""Each kind of damage to the accounts of requests and blocks is found; a sound engine has none.

`test_scheduler` and `test_beam_search` have the same checks made behind whatever hypothesis comes up with.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from zqserve.engine_core.engine import CHECK_STEPS, EngineCore
from zqserve.engine_core.errors import InvariantError
from zqserve.engine_core.scheduling.block_pool import BlockPool
from zqserve.engine_core.scheduling.invariants import MAX_TOLD, violations
from zqserve.engine_core.scheduling.request import Request, RequestStatus
from zqserve.engine_core.scheduling.scheduler import Scheduler

from .paged_model import PagedModel
from .test_scheduler import COMMON_PROMPT, make_engine, make_request, run_to_end


class Busy:
    """An engine in the middle of its work: requests that run, a beam search, some that wait or have ended waiting."""

    def __init__(self) -> None:
        self.engine, self.model = make_engine(num_blocks=48, max_num_seqs=5)
        for key in range(2):
            self.engine.add_request(make_request(key, COMMON_PROMPT, max_tokens=60, ignore_eos=True))
        beams = {"n": 2, "use_beam_search": True, "temperature": 0.0}
        self.engine.add_request(make_request(2, [50, 51, 52, 53, 54], max_tokens=20, ignore_eos=True, **beams))
        for key in range(3, 8):
            self.engine.add_request(make_request(key, [30 + key] * 9, max_tokens=60, ignore_eos=True))
        for _ in range(6):
            self.engine.step()
        self.engine.abort(b"", [7])

    @property
    def scheduler(self) -> Scheduler:
        return self.engine._scheduler

    @property
    def pool(self) -> BlockPool:
        return self.scheduler._kv_cache.pool

    @property
    def running(self) -> list[Request]:
        return self.scheduler._running

    @property
    def waiting(self) -> list[Request]:
        return [entry for entry in self.scheduler._waiting.entries if entry.status is not RequestStatus.FINISHED]

    def violations(self) -> list[str]:
        return violations(self.scheduler.accounts(self.model.live))


@pytest.fixture
def busy() -> Busy:
    return Busy()


def test_an_engine_in_the_middle_of_its_work_is_sound(busy: Busy) -> None:
    assert len(busy.running) == 4
    assert len(busy.waiting) == 3
    assert busy.scheduler._waiting.num_ended == 1
    assert busy.violations() == []
    run_to_end(busy.engine)
    assert busy.violations() == []


def count_a_holder_too_many(busy: Busy) -> None:
    busy.pool._ref_counts[busy.running[0].block_ids[-1]] += 1


def count_a_holder_too_few(busy: Busy) -> None:
    busy.pool._ref_counts[busy.running[0].block_ids[0]] -= 1


def count_a_free_block_as_held(busy: Busy) -> None:
    busy.pool._ref_counts[next(iter(busy.pool._free))] = 1


def free_a_block_that_is_held(busy: Busy) -> None:
    busy.pool._free[busy.running[1].block_ids[-1]] = None


def lose_a_free_block(busy: Busy) -> None:
    busy.pool._free.popitem()


def forget_the_blocks_of_a_request(busy: Busy) -> None:
    busy.running[0].block_ids = []


def hold_a_block_twice(busy: Busy) -> None:
    busy.running[0].block_ids.append(busy.running[0].block_ids[0])


def hold_a_block_that_does_not_exist(busy: Busy) -> None:
    busy.running[0].block_ids.append(busy.pool.num_blocks)


def share_the_block_that_another_writes(busy: Busy) -> None:
    busy.running[0].block_ids[-1] = busy.running[1].block_ids[-1]


def give_a_waiting_request_blocks(busy: Busy) -> None:
    busy.waiting[0].block_ids = [1]


def compute_more_than_there_is(busy: Busy) -> None:
    busy.running[0].num_computed_tokens = 1000


def run_and_wait(busy: Busy) -> None:
    busy.scheduler._waiting.push(busy.running[0])


def run_twice(busy: Busy) -> None:
    busy.scheduler._running.append(busy.running[0])


def run_what_has_ended(busy: Busy) -> None:
    busy.running[0].status = RequestStatus.FINISHED


def lose_a_waiting_request(busy: Busy) -> None:
    busy.scheduler._waiting.pop()


def forget_a_running_request(busy: Busy) -> None:
    del busy.scheduler._requests[b""][busy.running[0].message.key]


def count_an_end_too_many(busy: Busy) -> None:
    busy.scheduler._waiting._num_ended += 1


def lose_a_beam(busy: Busy) -> None:
    busy.scheduler._num_more_sequences -= 1


def keep_a_row_of_what_has_ended(busy: Busy) -> None:
    busy.model.live.add(Request.from_message(make_request(99, [3], max_tokens=1)))


def name_a_block_for_another_content(busy: Busy) -> None:
    cache = busy.scheduler._kv_cache.cache
    first, second = (request.block_ids[0] for request in (busy.running[0], busy.running[-1]))
    mine, theirs = cache._hash_of[first], cache._hash_of[second]
    cache._hash_of.update({first: theirs, second: mine})
    cache._block_of.update({mine: second, theirs: first})


def lead_a_name_astray(busy: Busy) -> None:
    cache = busy.scheduler._kv_cache.cache
    name = next(iter(cache._block_of))
    cache._block_of[name] = next(reversed(busy.pool._free))


def lose_a_name(busy: Busy) -> None:
    cache = busy.scheduler._kv_cache.cache
    del cache._block_of[next(iter(cache._block_of))]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (count_a_holder_too_many, "is held by 2 sequences, and 3 are counted|is held by 1 sequences, and 2 are"),
        (count_a_holder_too_few, "is held by 2 sequences, and 1 are counted"),
        (count_a_free_block_as_held, "blocks are held, and .* are counted as held"),
        (free_a_block_that_is_held, "is held by 1 sequences, and free"),
        (lose_a_free_block, "blocks are held and .* free, of 48"),
        (forget_the_blocks_of_a_request, "tokens into 0 slots"),
        (hold_a_block_twice, "holds a block twice"),
        (hold_a_block_that_does_not_exist, "block 48 is held, and there are 48"),
        (share_the_block_that_another_writes, "is held by 2 sequences, and 1 are counted"),
        (give_a_waiting_request_blocks, "waits or has ended, and holds 1 blocks"),
        (compute_more_than_there_is, "has computed 1000 of"),
        (run_and_wait, "both runs and waits"),
        (run_twice, "1 requests run twice"),
        (run_what_has_ended, "runs and has the status FINISHED"),
        (lose_a_waiting_request, "requests are known, and .* run or wait"),
        (forget_a_running_request, "requests are known, and .* run or wait"),
        (count_an_end_too_many, "1 requests of the queue have ended, and 2 are counted"),
        (lose_a_beam, "have 1 more sequences, and 0 are counted"),
        (keep_a_row_of_what_has_ended, "the runner keeps 1 sequences that do not run"),
        (name_a_block_for_another_content, "which bears the name of other content"),
        (lead_a_name_astray, "leads to a block that does not bear it"),
        (lose_a_name, "blocks have names, and there are"),
    ],
)
def test_damage_is_found_and_told(busy: Busy, damage: Callable[[Busy], None], told: str) -> None:
    damage(busy)
    with pytest.raises(InvariantError, match=told):
        busy.engine.check()


def test_no_more_is_told_than_fits_into_a_log(busy: Busy) -> None:
    busy.pool._ref_counts[:] = [5] * 48
    assert len(busy.violations()) == MAX_TOLD


def make_engine_at_work() -> tuple[EngineCore, PagedModel]:
    engine, model = make_engine()
    engine.add_request(make_request(0, COMMON_PROMPT, max_tokens=100, ignore_eos=True))
    return engine, model


def make_steps(engine: EngineCore, number: int) -> None:
    for _ in range(number):
        engine.step()


def test_a_busy_engine_looks_by_itself_and_keeps_back_what_the_step_brought() -> None:
    engine, _ = make_engine_at_work()
    for _ in range(5):
        engine.step()
    engine._scheduler._kv_cache.pool._ref_counts[0] += 1
    with pytest.raises(InvariantError):
        make_steps(engine, CHECK_STEPS)


def test_an_engine_that_holds_something_while_idle_is_found() -> None:
    engine, _ = make_engine_at_work()
    engine.step()
    leaked = engine._scheduler._kv_cache.pool.allocate(1)
    engine.abort(b"", [0])
    assert not engine.has_unfinished()
    with pytest.raises(InvariantError, match="0 blocks are held, and 1 are counted as held"):
        engine.check()
    assert len(leaked) == 1


def test_a_block_that_is_held_is_never_handed_out() -> None:
    engine, _ = make_engine_at_work()
    engine.step()
    free_a_held = engine._scheduler._running[0].block_ids[-1]
    pool = engine._scheduler._kv_cache.pool
    pool._free[free_a_held] = None
    pool._free.move_to_end(free_a_held, last=False)
    with pytest.raises(InvariantError, match=f"block {free_a_held} is free and held"):
        make_steps(engine, CHECK_STEPS // 8)


def test_a_block_is_not_given_back_more_often_than_it_was_taken() -> None:
    pool = BlockPool(4)
    (block_id,) = pool.allocate(1)
    pool.release(block_id, keep=False)
    with pytest.raises(InvariantError, match=f"block {block_id} is given back, and nobody holds it"):
        pool.release(block_id, keep=False)
