"""The limits and defaults that a model's files declare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zqserve.server.engine_link.model_info import ModelInfo, load_model_info, resolve_model


def load(
    directory: Path, config: dict[str, Any], generation: dict[str, Any] | None = None, **options: Any
) -> ModelInfo:
    (directory / "config.json").write_text(json.dumps({"architectures": ["X"], "vocab_size": 99, **config}))
    if generation is not None:
        (directory / "generation_config.json").write_text(json.dumps(generation))
    return load_model_info(directory, **options)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"n_positions": 1024, "n_ctx": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 512}}, 512),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2.0}}, 8192),
        ({"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}, 16384),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072),
        ({"max_position_embeddings": 131072, "rope_scaling": {"type": "longrope", "factor": 32.0}}, 131072),
        (
            {
                "max_position_embeddings": 32768,
                "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 163840,
                "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096},
            },
            163840,
        ),
        ({"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 4096),
        ({}, 2048),
    ],
)
def test_the_context_is_as_long_as_the_rotary_scaling_makes_it(
    config: dict[str, Any], expected: int, tmp_path: Path
) -> None:
    assert load(tmp_path, config).max_model_len == expected


def test_the_context_may_be_lowered_but_not_raised(tmp_path: Path) -> None:
    config = {"max_position_embeddings": 100}
    assert load(tmp_path, config, max_model_len=50).max_model_len == 50
    for wrong in (101, 0):
        with pytest.raises(ValueError, match="100"):
            load(tmp_path, config, max_model_len=wrong)


def test_all_ends_of_sequence_count(tmp_path: Path) -> None:
    info = load(tmp_path, {"eos_token_id": 5}, {"eos_token_id": [7, 5]}, tokenizer_eos_token_id=9)
    assert info.eos_token_ids == [7, 5, 9]
    assert load(tmp_path, {"eos_token_id": None}, {}).eos_token_ids == []


def test_default_sampling_comes_from_where_it_was_asked_for(tmp_path: Path) -> None:
    own = {"temperature": 0.6, "top_k": 20, "max_new_tokens": 9, "do_sample": True, "top_p": None}
    other = tmp_path / "other"
    other.mkdir()
    (other / "generation_config.json").write_text('{"min_p": 0.1}')
    assert load(tmp_path, {}, own).default_sampling == {"temperature": 0.6, "top_k": 20, "max_tokens": 9}
    assert load(tmp_path, {}, own, generation_config="vllm").default_sampling == {}
    assert load(tmp_path, {}, own, generation_config=str(other)).default_sampling == {"min_p": 0.1}
    with pytest.raises(ValueError, match="nowhere"):
        load(tmp_path, {}, own, generation_config="nowhere")


def test_what_is_no_model_is_refused_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_model(str(tmp_path)) == str(tmp_path)
    with pytest.raises(ValueError, match=r"config\.json"):
        load_model_info(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="JSON object"):
        load_model_info(tmp_path)
    for name in ("nobody/no-such-model", "/no/such/directory", "a b"):
        with pytest.raises(ValueError, match="neither"):
            resolve_model(name)
