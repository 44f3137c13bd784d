"""Masking logits by automata: the GPU form against the CPU form."""

from __future__ import annotations

import torch

from zqserve.kernels import token_mask
from zqserve.kernels.triton.token_mask import mask_launch


def test_the_same_tokens_are_forbidden() -> None:
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(-3, 6, (6, 256), dtype=torch.int32, generator=generator).clamp(min=-1)
    automata = token_mask.AutomatonTable(cells, torch.randint(0, 2, (6,), dtype=torch.uint8, generator=generator))
    texts = [bytes(torch.randint(0, 256, (i % 7,), generator=generator).tolist()) for i in range(600)]
    tokens = token_mask.TokenBytes.of(texts, [0, 7])
    states = torch.tensor([0, 3, -1, 5], dtype=torch.int32)
    one = torch.randn(4, 600, generator=generator)
    other = one.clone()
    token_mask.mask_logits(one, states, automata, tokens)
    mask_launch(other, states, automata, tokens).run()
    assert torch.equal(one, other)
    assert torch.isinf(one[[0, 1, 3]]).any()
    assert torch.isfinite(one[2]).all()
