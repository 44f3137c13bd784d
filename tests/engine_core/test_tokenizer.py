"""The tokenizer gives what transformers' AutoTokenizer gives, and knows what each token adds to a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.server import tiny_tokenizers
from zqserve.engine_core.tokenizer import load_tokenizer

TEXTS = [
    "The quick brown fox",
    "  two leading spaces and trailing ",
    "naïve 日本語 😀 \n\ttabs",
    "<s>[INST] hello  there</s> again",
    "<|im_start|>user\nhi<|im_end|>\n",
    "",
]


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece", "unigram"])
def test_ids_and_texts_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    ours = getattr(tiny_tokenizers, kind)(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        for special in (True, False):
            ids = ours.encode(text, special)
            assert ids == theirs.encode(text, add_special_tokens=special)
            for skip in (True, False):
                assert ours.decode(ids, skip) == theirs.decode(ids, skip_special_tokens=skip)
    assert ours.all_special_ids == {*theirs.all_special_ids, *ours.all_special_ids}
    assert ours.eos_token_id == theirs.eos_token_id
    assert ours.bos_token_id == theirs.bos_token_id
    assert ours.vocab_size == len(theirs)


@pytest.mark.parametrize(
    "config",
    [{}, {"legacy": True}, {"legacy": False}, {"add_prefix_space": False}, {"add_bos_token": False}],
    ids=str,
)
@pytest.mark.parametrize("model_type", ["llama", "mistral"])
def test_llama_tokenizers_are_read_as_transformers_reads_them(
    config: dict[str, Any], model_type: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    ours = tiny_tokenizers.sentencepiece(tmp_path, tokenizer_class="LlamaTokenizerFast", **config)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == theirs.encode(text)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_tokens_that_only_the_configuration_knows_are_added(tmp_path: Path) -> None:
    added = {"500": {"content": "<tool>", "special": False}, "501": {"content": "<|extra|>", "special": True}}
    ours = tiny_tokenizers.byte_level(tmp_path, added_tokens_decoder=added)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = "a<tool>b<|extra|>c"
    assert ours.encode(text) == theirs.encode(text)
    assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text), skip_special_tokens=True)


def test_truncation_of_the_file_is_off(tmp_path: Path) -> None:
    assert len(tiny_tokenizers.byte_level(tmp_path).encode("word " * 100)) > 5


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_bytes_of_tokens_join_to_the_text(kind: str, tmp_path: Path) -> None:
    tokenizer = getattr(tiny_tokenizers, kind)(tmp_path)
    text = "The naïve fox said 日本語 😀.\n"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(map(tokenizer.token_bytes, ids)).decode().removeprefix(" ") == text


def test_a_token_that_holds_a_part_of_a_character_shows_its_byte(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizers.byte_level(tmp_path)
    ids = tokenizer.encode("😀")
    assert len(ids) == 4
    assert [tokenizer.token_bytes(token_id) for token_id in ids] == [b"\xf0", b"\x9f", b"\x98", b"\x80"]
    assert tokenizer.token_text(ids[0]) == "\ufffd"


def test_ids_outside_of_the_vocabulary_have_no_text(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizers.byte_level(tmp_path)
    for token_id in (tokenizer.vocab_size, -1, 2**40):
        assert tokenizer.token_bytes(token_id) == b""
        assert tokenizer.token_text(token_id) == ""


def test_named_chat_templates_are_found_in_configuration_and_files(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]
    tokenizer = tiny_tokenizers.byte_level(tmp_path, chat_template=named)
    assert tokenizer.chat_templates == {"default": "D", "tool_use": "T"}

    (tmp_path / "chat_template.jinja").write_text("F")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("R")
    assert load_tokenizer(tmp_path).chat_templates == {"default": "F", "rag": "R"}


def test_special_tokens_of_the_map_file_are_read(tmp_path: Path) -> None:
    tiny_tokenizers.byte_level(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"bos_token": {"content": "<|endoftext|>"}}))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.special_tokens["bos_token"] == "<|endoftext|>"
    assert tokenizer.bos_token_id == 0


def test_a_directory_without_tokenizer_json_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="save_pretrained"):
        load_tokenizer(tmp_path)
