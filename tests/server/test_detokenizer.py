"""The pieces of a streamed text join to what a decoding of all tokens shows, and none is half a character."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server import tiny_tokenizers
from zqserve.engine_core.tokenizer import Tokenizer
from zqserve.server.engine_link.detokenizer import make_detokenizer

TEXT = "Naïve 日本語 😀👨‍👩‍👧 fox.\n The end"


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    folder = tmp_path_factory.mktemp("tokenizers")
    kinds = ("byte_level", "sentencepiece", "unigram", "word_pieces")
    return {kind: getattr(tiny_tokenizers, kind)(folder / kind) for kind in kinds}


def pieces(tokenizer: Tokenizer, token_ids: list[int], prompt: list[int] | None = None, skip: bool = True) -> list[str]:
    detokenizer = make_detokenizer(tokenizer, prompt or [], skip_special_tokens=skip)
    return [*(detokenizer.add(token_id) for token_id in token_ids), detokenizer.finish()]


@given(data=st.data())
@settings(deadline=None, max_examples=300)
@pytest.mark.parametrize("kind", ["byte_level", "unigram", "word_pieces"])
def test_pieces_of_any_ids_join_to_the_decoding_of_all(
    kind: str, data: st.DataObject, tokenizers: dict[str, Tokenizer]
) -> None:
    tokenizer = tokenizers[kind]
    # Ids outside of the vocabulary too: models have more rows than their tokenizer has tokens.
    token_ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 2), max_size=40))
    skip = data.draw(st.booleans())
    assert "".join(pieces(tokenizer, token_ids, skip=skip)) == tokenizer.decode(token_ids, skip)


@given(data=st.data())
@settings(deadline=None, max_examples=300)
def test_byte_fallback_keeps_the_characters_around_broken_ones(
    data: st.DataObject, tokenizers: dict[str, Tokenizer]
) -> None:
    tokenizer = tokenizers["sentencepiece"]
    token_ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
    text = "".join(pieces(tokenizer, token_ids))
    whole = tokenizer.decode(token_ids)
    if "\ufffd" not in whole:
        assert text == whole
    else:
        shown = [token_id for token_id in token_ids if token_id not in tokenizer.all_special_ids]
        joined = b"".join(map(tokenizer.token_bytes, shown)).decode("utf-8", "replace")
        assert text == joined.removeprefix(" ")


@given(text=st.text(max_size=40))
@settings(deadline=None, max_examples=200)
@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_no_piece_of_a_text_holds_a_broken_character(kind: str, text: str, tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers[kind]
    text = text.replace("\ufffd", "")
    token_ids = tokenizer.encode(text, add_special_tokens=False)
    streamed = pieces(tokenizer, token_ids, skip=False)
    assert not any("\ufffd" in piece for piece in streamed)
    assert "".join(streamed) == tokenizer.decode(token_ids, skip_special_tokens=False)


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece", "unigram", "word_pieces"])
def test_text_goes_on_from_the_prompt_with_its_leading_space(kind: str, tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers[kind]
    token_ids = tokenizer.encode("The capital of France is the end", add_special_tokens=False)
    for split in range(1, len(token_ids)):
        prompt, output = token_ids[:split], token_ids[split:]
        joined = tokenizer.decode(prompt) + "".join(pieces(tokenizer, output, prompt))
        assert joined == tokenizer.decode(token_ids)


def test_after_a_prompt_of_special_tokens_alone_the_text_begins_without_a_space(
    tokenizers: dict[str, Tokenizer],
) -> None:
    tokenizer = tokenizers["sentencepiece"]
    bos, *token_ids = tokenizer.encode("The end")
    assert "".join(pieces(tokenizer, token_ids, [bos])) == "The end"
    assert "".join(pieces(tokenizer, token_ids, [bos], skip=False)) == " The end"


def test_an_incomplete_character_is_held_and_shown_broken_at_the_end(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["byte_level"]
    token_ids = tokenizer.encode("😀")
    assert pieces(tokenizer, token_ids) == ["", "", "", "😀", ""]
    assert pieces(tokenizer, token_ids[:3]) == ["", "", "", "\ufffd"]


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_endless_broken_bytes_are_shown_as_they_come(kind: str, tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers[kind]
    (broken,) = (i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == b"\x98")
    streamed = pieces(tokenizer, [broken] * 50)
    assert streamed[:-1] == ["\ufffd"] * 50


def test_a_prompt_that_ends_inside_a_character_does_not_reach_into_the_output(
    tokenizers: dict[str, Tokenizer],
) -> None:
    tokenizer = tokenizers["byte_level"]
    token_ids = tokenizer.encode("😀 end")
    assert "".join(pieces(tokenizer, token_ids[3:], token_ids[:3])) == tokenizer.decode(token_ids[3:])


def test_spaces_between_special_tokens_can_be_left_out(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["word_pieces"]
    cls, sep = 1, 2
    (word,) = tokenizer.encode("The", add_special_tokens=False)
    shown = {}
    for spaces in (True, False):
        detokenizer = make_detokenizer(tokenizer, skip_special_tokens=False, spaces_between_special_tokens=spaces)
        shown[spaces] = "".join(map(detokenizer.add, [word, cls, sep, word])) + detokenizer.finish()
    assert shown == {True: "The [CLS] [SEP] The", False: "The [CLS][SEP] The"}
