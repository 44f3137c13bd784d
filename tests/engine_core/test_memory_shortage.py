"""A step that is too large is done in parts; what the parts bring is what the whole would have brought."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zqserve.engine_core.memory_shortage import run_in_parts


class Machine:
    """Has room for so much at once."""

    def __init__(self, room: int) -> None:
        self._room = room
        self.done: list[int] = []

    def run(self, sizes: list[int]) -> list[int]:
        if sum(sizes) > self._room:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        self.done += sizes
        return [2 * size for size in sizes]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), st.integers(1, 40))
def test_each_item_is_done_once_and_in_order_unless_it_is_too_large_by_itself(sizes: list[int], room: int) -> None:
    machine = Machine(room)
    results = run_in_parts(machine.run, sizes, lambda size: -size)
    assert results == [2 * size if size <= room else -size for size in sizes]
    assert machine.done == [size for size in sizes if size <= room]


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("x")])
def test_other_errors_are_not_taken_for_a_shortage(error: Exception) -> None:
    def run(sizes: list[int]) -> list[int]:
        raise error

    with pytest.raises(type(error)):
        run_in_parts(run, [1, 2], lambda size: size)
