"""Masking logits by automata, and following what is drawn: the GPU form against the CPU form."""

from __future__ import annotations

import torch

from zqserve.kernels import token_mask
from zqserve.kernels.triton.token_mask import follow_launch, mask_launch


def test_the_same_tokens_are_forbidden_and_the_states_follow() -> None:
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(-3, 6, (6, 256), dtype=torch.int32, generator=generator).clamp(min=-1)
    automata = token_mask.AutomatonTable(cells, torch.randint(0, 2, (6,), dtype=torch.uint8, generator=generator))
    texts = [bytes(torch.randint(0, 256, (i % 7,), generator=generator).tolist()) for i in range(600)]
    tokens = token_mask.TokenBytes.of(texts)
    states = torch.tensor([0, 3, -1, 5, 2], dtype=torch.int32)
    endings = torch.full((5, token_mask.MAX_ENDINGS), -1, dtype=torch.int32)
    endings[:, 2:4] = torch.tensor([0, 8])
    row_of = torch.tensor([3, 0, 2, 1], dtype=torch.int32)
    one = torch.randn(4, 600, generator=generator)
    other = one.clone()
    rows = row_of.long()
    token_mask.mask_logits(one, states[rows], automata, tokens, endings[rows])
    mask_launch(other, row_of, states, automata, tokens, endings).run()
    assert torch.equal(one, other)
    assert torch.isinf(one[[0, 1, 3]]).any()
    assert torch.isfinite(one[2]).all()

    for drawn in range(0, 600, 37):
        expected = states.tolist()
        for request in row_of.tolist():
            state = expected[request]
            for byte in texts[drawn]:
                state = int(cells[state, byte]) if state >= 0 else -1
            expected[request] = state if state >= 0 else expected[request]
        after = states.clone()
        follow_launch(torch.full((4,), drawn), row_of, after, automata, tokens).run()
        assert after.tolist() == expected
    follow_launch(torch.full((4,), -1), row_of, states, automata, tokens).run()
    assert states.tolist() == [0, 3, -1, 5, 2]
