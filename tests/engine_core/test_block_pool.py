"""The block pool against the plainest model of it, and the order in which it hands blocks out."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from zqserve.engine_core.scheduling.block_pool import BlockPool

NUM_BLOCKS = 6


class BlockPoolMachine(RuleBasedStateMachine):
    """Any sequence of verbs keeps counts and free list in step with a list of who holds what."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(NUM_BLOCKS)
        self.held: list[int] = []

    @rule(num_blocks=st.integers(0, NUM_BLOCKS))
    def allocate(self, num_blocks: int) -> None:
        num_blocks = min(num_blocks, self.pool.num_free)
        block_ids = self.pool.allocate(num_blocks)
        assert len(set(block_ids)) == num_blocks
        assert not set(block_ids) & set(self.held)
        self.held += block_ids

    @rule(block_ids=st.sets(st.integers(0, NUM_BLOCKS - 1)))
    def share(self, block_ids: set[int]) -> None:
        self.pool.share(block_ids)
        self.held += block_ids

    @rule(data=st.data(), keep=st.booleans())
    def release(self, data: st.DataObject, keep: bool) -> None:
        if self.held:
            block_id = data.draw(st.sampled_from(self.held))
            self.held.remove(block_id)
            self.pool.release(block_id, keep=keep)

    @invariant()
    def a_block_is_free_exactly_when_nobody_holds_it(self) -> None:
        assert self.pool.num_free == NUM_BLOCKS - len(set(self.held))
        assert self.pool.count_free(range(NUM_BLOCKS)) == self.pool.num_free
        for block_id in range(NUM_BLOCKS):
            assert self.pool.ref_count(block_id) == self.held.count(block_id)


TestBlockPoolMachine = BlockPoolMachine.TestCase
TestBlockPoolMachine.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


def test_the_block_that_was_free_for_the_longest_is_handed_out_first() -> None:
    pool = BlockPool(3)
    assert pool.allocate(3) == [0, 1, 2]
    for block_id in (1, 2, 0):
        pool.release(block_id, keep=True)
    assert pool.allocate(3) == [1, 2, 0]


def test_a_block_without_content_worth_keeping_goes_before_all_others() -> None:
    pool = BlockPool(3)
    pool.allocate(3)
    pool.release(2, keep=True)
    pool.release(0, keep=False)
    assert pool.allocate(2) == [0, 2]


def test_sharing_saves_a_free_block_from_being_handed_out() -> None:
    pool = BlockPool(2)
    pool.allocate(2)
    pool.release(0, keep=True)
    pool.release(1, keep=True)
    pool.share([0])
    assert pool.allocate(1) == [1]
    assert pool.num_free == 0


def test_a_pool_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="num_blocks must be at least 1"):
        BlockPool(0)
