"""Forced text is cut as the tokenizer would cut the whole, and only where that is certain."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server import tiny_tokenizers
from zqserve.engine_core.constraints.guided_decoding import text_of_tokens
from zqserve.engine_core.constraints.jump_ahead import JumpAhead
from zqserve.engine_core.tokenizer import Tokenizer

TEXT = "The capital of France is Paris. def main(argument: int) -> None: höher, naïve, 日本語"
ANYTHING = bytes(range(256))


@pytest.fixture(scope="module", params=["byte_level", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return getattr(tiny_tokenizers, request.param)(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def jump(tokenizer: Tokenizer) -> JumpAhead:
    return JumpAhead(tokenizer, text_of_tokens(tokenizer, tokenizer.vocab_size))


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_certain_tokens_are_those_of_any_text_that_may_follow(
    tokenizer: Tokenizer, jump: JumpAhead, data: st.DataObject
) -> None:
    whole = ids_of(tokenizer, TEXT + data.draw(st.text(alphabet='abc ,."1}\n', max_size=6)))
    num_before = data.draw(st.integers(1, len(whole) - 1))
    num_forced = data.draw(st.integers(0, 40))
    rest = b"".join(map(tokenizer.token_bytes, whole[num_before:]))
    forced, then = rest[:num_forced], rest[num_forced : num_forced + 1]
    then += data.draw(st.sampled_from([b"", b" ", b"abcdefghijklmnopqrstuvwxyz", bytes(range(256))]))
    ids = jump.tokens(tuple(whole[:num_before]), forced, bytes(sorted(set(then))))
    assert forced.startswith(b"".join(map(tokenizer.token_bytes, ids)))
    assert ids == whole[num_before : num_before + len(ids)]


def test_most_of_a_long_forced_text_is_certain(tokenizer: Tokenizer, jump: JumpAhead) -> None:
    whole = ids_of(tokenizer, TEXT)
    forced = b"".join(map(tokenizer.token_bytes, whole[3:]))
    ids = jump.tokens(tuple(whole[:3]), forced, ANYTHING)
    assert len(ids) >= len(whole) - 3 - 4
    assert ids == whole[3 : 3 + len(ids)]


def test_all_of_it_is_certain_where_nothing_may_follow(tokenizer: Tokenizer, jump: JumpAhead) -> None:
    whole = ids_of(tokenizer, TEXT)
    assert jump.tokens(tuple(whole[:3]), b"".join(map(tokenizer.token_bytes, whole[3:])), b"") == whole[3:]


def test_a_token_is_certain_if_no_longer_one_may_come(tokenizer: Tokenizer, jump: JumpAhead) -> None:
    *before, last = ids_of(tokenizer, "The capital of")
    forced = tokenizer.token_bytes(last)
    assert jump.is_open(forced[:-1], forced[-1:])
    assert jump.tokens(tuple(before), forced[:-1], ANYTHING) == []
    assert not jump.is_open(forced, b"\n")
    assert jump.tokens(tuple(before), forced, b"\n") == [last]


def test_text_behind_tokens_that_no_tokenizer_would_give_is_cut_on_its_own(
    tokenizer: Tokenizer, jump: JumpAhead
) -> None:
    begun = [token_id for token_id in ids_of(tokenizer, "T") if tokenizer.token_bytes(token_id).endswith(b"T")]
    forced = b"he capital of"
    ids = jump.tokens(tuple(begun), forced, b"\n")
    assert b"".join(map(tokenizer.token_bytes, ids)) == forced
    alone = ids_of(tokenizer, forced.decode())
    # SentencePiece puts a space in front of each text.
    assert ids == alone or b"".join(map(tokenizer.token_bytes, alone)) == b" " + forced


def test_a_special_token_is_never_made_of_forced_text(tokenizer: Tokenizer, jump: JumpAhead) -> None:
    special = min(tokenizer.all_special_ids)
    forced = tokenizer.added_tokens[special].encode()
    assert special not in jump.tokens(tuple(ids_of(tokenizer, "The ")), forced, b"")
