"""Names of blocks: equal exactly when everything up to the block's end is equal; one block a name."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from zqserve.engine_core.scheduling.prefix_cache import PrefixCache, extend_block_hashes

BLOCK_SIZE = 3
token_lists = st.lists(st.integers(0, 2**31 - 1) | st.integers(0, 2), max_size=12)


def block_hashes(token_ids: list[int], salt: str = "") -> list[bytes]:
    hashes: list[bytes] = []
    extend_block_hashes(hashes, token_ids, len(token_ids) // BLOCK_SIZE, BLOCK_SIZE, salt)
    return hashes


@given(token_lists, token_lists)
def test_names_are_equal_exactly_as_far_as_the_tokens_are(left: list[int], right: list[int]) -> None:
    num_blocks = min(len(left), len(right)) // BLOCK_SIZE
    for index in range(num_blocks):
        end = (index + 1) * BLOCK_SIZE
        same_name = block_hashes(left)[index] == block_hashes(right)[index]
        assert same_name == (left[:end] == right[:end])


@given(token_lists, st.lists(st.integers(0, 4), max_size=4))
def test_a_chain_is_the_same_however_it_was_extended(token_ids: list[int], stops: list[int]) -> None:
    num_blocks = len(token_ids) // BLOCK_SIZE
    hashes: list[bytes] = []
    for stop in [*stops, num_blocks]:
        extend_block_hashes(hashes, token_ids, min(stop, num_blocks), BLOCK_SIZE, "")
    assert hashes == block_hashes(token_ids)


@given(st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=50)
def test_another_salt_gives_other_names_all_the_way(left: str, right: str) -> None:
    token_ids = [1, 2, 3, 4, 5, 6]
    equal = [a == b for a, b in zip(block_hashes(token_ids, left), block_hashes(token_ids, right), strict=True)]
    assert equal == [left == right] * 2


def test_the_longest_prefix_ends_at_the_first_unknown_name() -> None:
    cache = PrefixCache()
    names = block_hashes(list(range(12)))
    for index in (0, 1, 3):
        cache.insert(names[index], 10 + index)
    assert cache.longest_prefix(names) == [10, 11]


def test_the_first_block_of_a_name_keeps_it() -> None:
    cache = PrefixCache()
    cache.insert(b"name", 1)
    cache.insert(b"name", 2)
    assert cache.longest_prefix([b"name"]) == [1]
    assert 2 not in cache
    cache.forget([2])
    assert cache.longest_prefix([b"name"]) == [1]


def test_a_forgotten_block_is_not_found_and_its_name_can_be_given_again() -> None:
    cache = PrefixCache()
    cache.insert(b"name", 1)
    cache.forget([1, 7])
    assert cache.longest_prefix([b"name"]) == []
    assert len(cache) == 0
    cache.insert(b"name", 2)
    assert cache.longest_prefix([b"name"]) == [2]
