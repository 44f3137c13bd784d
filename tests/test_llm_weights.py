"""How weights are read and in which type they are kept: `load_format`, `seed` and `dtype` of `LLM`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_poolers import save_decoder
from zqserve import LLM, SamplingParams

PROMPT = "The quick brown fox"
GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, logprobs=0)


@pytest.fixture(scope="module")
def safetensors_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder("Llama", tmp_path_factory.mktemp("safetensors"))


@pytest.fixture(scope="module")
def pytorch_dir(safetensors_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with a PyTorch file alone."""
    folder = tmp_path_factory.mktemp("pytorch")
    for path in safetensors_dir.glob("*.json"):
        (folder / path.name).write_text(path.read_text())
    torch.save(load_file(safetensors_dir / "model.safetensors"), folder / "pytorch_model.bin")
    return folder


def answer(folder: Path, **options: Any) -> tuple[list[int], float | None]:
    """Tokens and their likelihood, which tell weights apart."""
    llm = LLM(str(folder), num_gpu_blocks_override=16, num_threads=1, **options)
    (output,) = llm.generate(PROMPT, GREEDY, use_tqdm=False)
    return output.outputs[0].token_ids, output.outputs[0].cumulative_logprob


def test_weights_are_the_same_from_either_kind_of_file(safetensors_dir: Path, pytorch_dir: Path) -> None:
    expected = answer(safetensors_dir)
    assert answer(safetensors_dir, load_format="safetensors") == expected
    assert answer(pytorch_dir) == expected
    assert answer(pytorch_dir, load_format="pt") == expected
    for folder, load_format in ((pytorch_dir, "safetensors"), (safetensors_dir, "pt")):
        with pytest.raises((OSError, ValueError)):
            answer(folder, load_format=load_format)


def test_dummy_weights_need_no_file_and_follow_the_seed(safetensors_dir: Path, tmp_path: Path) -> None:
    for path in safetensors_dir.glob("*.json"):
        (tmp_path / path.name).write_text(path.read_text())
    made = [answer(tmp_path, load_format="dummy", seed=seed) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
    assert made[0] != answer(safetensors_dir)


@pytest.mark.parametrize(
    ("dtype", "same_as"),
    [("half", "float16"), ("float", "float32"), (torch.bfloat16, "bfloat16"), ("auto", "float32")],
)
def test_every_name_of_a_type_is_taken(safetensors_dir: Path, dtype: Any, same_as: str) -> None:
    assert json.loads((safetensors_dir / "config.json").read_text())["dtype"] == "float32"
    assert answer(safetensors_dir, dtype=dtype) == answer(safetensors_dir, dtype=same_as)


def test_types_of_less_precision_round(safetensors_dir: Path) -> None:
    likelihoods = {answer(safetensors_dir, dtype=dtype)[1] for dtype in ("float32", "float16", "bfloat16")}
    assert len(likelihoods) == 3
