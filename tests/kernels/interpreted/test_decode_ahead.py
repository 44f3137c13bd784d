"""Steps begun before the host has asked for them, under a schedule that keeps asking for something else."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Qwen3ForCausalLM

from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine import EngineCore
from zqserve.engine_core.messages import EngineRequest
from zqserve.engine_core.model.model_runner import ModelRunner
from zqserve.engine_core.sampling_params import SamplingParams

from .test_engine import SHAPE

PROMPTS = [[5, 9, 33, 2, 7, 61, 4, 18, 90, 77, 13, 20, 8, 3], [11], list(range(40, 55)), [42, 7, 7], [88, 3, 5, 1]]
ABORTED = 3
NUM_TOKENS = [9, 34, 20, 30, 10]


def _request(key: int, **more: object) -> EngineRequest:
    params = SamplingParams(
        temperature=1.2 if key % 2 else 0.0, top_k=40, seed=key, max_tokens=NUM_TOKENS[key], ignore_eos=True, **more
    )
    return EngineRequest(key=key, prompt_token_ids=PROMPTS[key], params=params)


def _core(directory: Path, device: str, **config: object) -> tuple[EngineCore, ModelRunner]:
    options = EngineConfig(model=str(directory), device=device, max_num_seqs=4, num_threads=1, **config)  # pyright: ignore[reportArgumentType]
    runner = ModelRunner(options, lambda line: None)
    return EngineCore(runner, options), runner


def _alone(directory: Path) -> list[list[int]]:
    """The tokens of each request, computed on the CPU with nothing beside it."""
    core, _ = _core(directory, "cpu", num_blocks=8)
    found = []
    for key in range(len(PROMPTS)):
        core.add_request(_request(key))
        tokens: list[int] = []
        while core.has_unfinished():
            tokens += [token for output in core.step().get(b"", []) for token in output.token_ids]
        found.append(tokens)
    return found


def test_steps_begun_ahead_change_no_token(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Qwen3ForCausalLM(Qwen3ForCausalLM.config_class(**SHAPE)).eval()
    model.save_pretrained(tmp_path)
    alone = _alone(tmp_path)
    # Two stop where the host alone sees it; one with a penalty, behind which no step is begun, comes and goes.
    stops = {0: alone[0][5], 4: alone[4][2]}
    core, runner = _core(tmp_path, "cuda", num_blocks=4, max_num_batched_tokens=16)
    found: list[list[int]] = [[] for _ in PROMPTS]
    penalised: list[int] = []
    is_aborted = False
    for step in range(150):
        if step % 2 == 0 and step // 2 < len(PROMPTS):
            key = step // 2
            more = {"stop_token_ids": [stops[key]]} if key in stops else {}
            core.add_request(_request(key, **more))
        if step == 10:
            params = SamplingParams(temperature=0, presence_penalty=0.5, max_tokens=3, ignore_eos=True)
            core.add_request(EngineRequest(key=99, prompt_token_ids=[9, 8], params=params))
        if len(found[ABORTED]) >= 4 and not is_aborted:
            is_aborted = True
            core.abort(b"", [ABORTED])
        for output in core.step().get(b"", []):
            assert output.error is None
            (penalised if output.key == 99 else found[output.key]).extend(output.token_ids)
        if step > 10 and not core.has_unfinished():
            break
    assert not core.has_unfinished()
    assert is_aborted
    for key, tokens in enumerate(found):
        expected = alone[key]
        if key in stops:
            expected = expected[: expected.index(stops[key]) + 1]
        assert tokens == (expected[: len(tokens)] if key == ABORTED else expected), key
    assert len(penalised) == 3
    assert core.stats().num_preemptions > 0
    assert runner.num_ahead > 0.4 * sum(map(len, found))
    core.check()
