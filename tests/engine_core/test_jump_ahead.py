"""Forced text is cut as the tokenizer would cut the whole, and only where that is certain."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server import tiny_tokenizers
from zqserve.engine_core.guided_decoding import text_of_tokens
from zqserve.engine_core.jump_ahead import JumpAhead
from zqserve.engine_core.tokenizer import Tokenizer

TEXT = "The capital of France is Paris. def main(argument: int) -> None: höher, naïve, 日本語"


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
def test_certain_tokens_are_those_of_any_text_that_follows(
    tokenizer: Tokenizer, jump: JumpAhead, data: st.DataObject
) -> None:
    whole = ids_of(tokenizer, TEXT + data.draw(st.text(alphabet='abc ,."1}\n', max_size=6)))
    num_before = data.draw(st.integers(1, len(whole) - 1))
    num_forced = data.draw(st.integers(0, 40))
    pieces = [tokenizer.token_bytes(token_id) for token_id in whole]
    forced = b"".join(pieces[num_before:])[:num_forced]
    ids, num_certain = jump.tokens(tuple(whole[:num_before]), forced)
    assert 0 <= num_certain <= len(ids)
    assert forced.startswith(b"".join(map(tokenizer.token_bytes, ids)))
    assert ids[:num_certain] == whole[num_before : num_before + num_certain]


def test_most_of_a_long_forced_text_is_certain(tokenizer: Tokenizer, jump: JumpAhead) -> None:
    whole = ids_of(tokenizer, TEXT)
    forced = b"".join(map(tokenizer.token_bytes, whole[3:]))
    ids, num_certain = jump.tokens(tuple(whole[:3]), forced)
    assert ids == whole[3:]
    assert num_certain >= len(ids) - 4


def test_nothing_is_certain_inside_of_a_token(tokenizer: Tokenizer, jump: JumpAhead) -> None:
    context = ids_of(tokenizer, "The capital of F")
    ids, num_certain = jump.tokens(tuple(context), b"ra")
    assert num_certain == 0
    assert len(ids) <= 2


def test_a_special_token_is_never_made_of_forced_text(tokenizer: Tokenizer, jump: JumpAhead) -> None:
    special = min(tokenizer.all_special_ids)
    forced = tokenizer.added_tokens[special].encode()
    ids, _ = jump.tokens(tuple(ids_of(tokenizer, "The ")), forced)
    assert special not in ids
