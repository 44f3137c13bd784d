"""Masking logits by automata: the CPU form against Python's `re`."""

from __future__ import annotations

import re

import torch

from zqserve.kernels.token_mask import MAX_ENDINGS, AutomatonTable, TokenBytes, mask_logits

TOKENS = [b"", b"a", b"b", b"ab", b"aab", b"ba", b"bb", b"abab", b"c", b"", b"aaaaaaaaaaaab"]
# (ab|b)*: state 0 may end; 1 is behind an a.
CELLS = torch.full((2, 256), -1, dtype=torch.int32)
CELLS[0, ord("a")], CELLS[0, ord("b")], CELLS[1, ord("b")] = 1, 0, 0
AUTOMATON = AutomatonTable(CELLS, torch.tensor([1, 0], dtype=torch.uint8))


def _allowed(logits: torch.Tensor) -> list[set[int]]:
    return [set(torch.isfinite(row).nonzero().flatten().tolist()) for row in logits]


def test_tokens_are_allowed_that_lead_on_and_the_end_where_the_text_may_end():
    logits = torch.randn(3, len(TOKENS))
    before = logits.clone()
    endings = torch.full((3, MAX_ENDINGS), -1, dtype=torch.int32)
    endings[:, 3], endings[:, 5] = 0, 2  # the latter has text
    mask_logits(logits, torch.tensor([0, 1, -1], dtype=torch.int32), AUTOMATON, TokenBytes.of(TOKENS), endings)
    expected = [
        {t for t, text in enumerate(TOKENS) if (text and re.fullmatch(rb"(ab|b)*a?", text)) or t == 0},
        {t for t, text in enumerate(TOKENS) if text and t != 2 and re.fullmatch(rb"b(ab|b)*a?", text)},
        set(range(len(TOKENS))),
    ]
    assert _allowed(logits) == expected
    assert torch.equal(logits[torch.isfinite(logits)], before[torch.isfinite(logits)])
