"""Decode steps whose state stays on the device, against prompts computed afresh."""

from __future__ import annotations

from pathlib import Path

import torch

from zqserve.bench.common.gpu_model import BLOCK_SIZE, TINY_CONFIGS, GpuModel, write_config

CONTEXT_LEN = BLOCK_SIZE - 2
"""The steps cross into another block."""
NUM_STEPS = 4


def test_each_step_follows_from_the_one_before_without_the_host(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = GpuModel.load(write_config(TINY_CONFIGS["Qwen3-0.6B"], tmp_path / "model"), 64, num_seqs=3)
    tokens = torch.randint(3, 500, (3, CONTEXT_LEN + 1))
    model.prefill(tokens[:, :-1])
    steps = model.decode_steps(tokens[:, -1], CONTEXT_LEN)
    # The last row has no sequence.
    steps.state.num_keys[2], steps.state.slots[2] = 0, -1
    own_blocks = torch.from_numpy(model.block_tables(3))[2]
    before = [cache[own_blocks].clone() for pair in model.loaded.attention.caches() for cache in pair]
    found = []
    with torch.inference_mode():
        for _ in range(NUM_STEPS):
            steps.run()
            found.append(steps.tokens[:2].clone())
    after = [cache[own_blocks] for pair in model.loaded.attention.caches() for cache in pair]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert steps.state.positions.tolist() == [CONTEXT_LEN + NUM_STEPS] * 2 + [CONTEXT_LEN]
    for expected in found:
        assert model.prefill(tokens)[:2].argmax(-1).tolist() == expected.tolist()
        tokens = torch.cat([tokens, torch.cat([expected, expected[:1]])[:, None]], 1)
