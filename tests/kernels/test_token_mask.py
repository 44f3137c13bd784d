"""Masking logits by automata: the CPU form against Python's `re`, the GPU form against the CPU form."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap

import pytest
import torch

from zqserve.kernels.token_mask import AutomatonTable, TokenBytes, mask_logits

TOKENS = [b"", b"a", b"b", b"ab", b"aab", b"ba", b"bb", b"abab", b"c", b"", b"aaaaaaaaaaaab"]
ENDS = [0]
# (ab|b)*: state 0 may end; 1 is behind an a.
CELLS = torch.full((2, 256), -1, dtype=torch.int32)
CELLS[0, ord("a")], CELLS[0, ord("b")], CELLS[1, ord("b")] = 1, 0, 0
AUTOMATON = AutomatonTable(CELLS, torch.tensor([1, 0], dtype=torch.uint8))


def _allowed(logits: torch.Tensor) -> list[set[int]]:
    return [set(torch.isfinite(row).nonzero().flatten().tolist()) for row in logits]


def test_tokens_are_allowed_that_lead_on_and_the_end_where_the_text_may_end():
    logits = torch.randn(3, len(TOKENS))
    before = logits.clone()
    mask_logits(logits, torch.tensor([0, 1, -1], dtype=torch.int32), AUTOMATON, TokenBytes.of(TOKENS, ENDS))
    expected = [
        {t for t, text in enumerate(TOKENS) if (text and re.fullmatch(rb"(ab|b)*a?", text)) or t == 0},
        {t for t, text in enumerate(TOKENS) if text and re.fullmatch(rb"b(ab|b)*a?", text)},
        set(range(len(TOKENS))),
    ]
    assert _allowed(logits) == expected
    assert torch.equal(logits[torch.isfinite(logits)], before[torch.isfinite(logits)])


def _run(code: str, **environment: str) -> str:
    """The output of Python code in a process of its own: Triton reads its environment when it is imported."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_gpu_form_gives_the_same_in_tritons_interpreter():
    pytest.importorskip("triton")
    _run(
        """
        import torch
        from zqserve.kernels import token_mask, token_mask_triton
        torch.manual_seed(0)
        cells = torch.randint(-3, 6, (6, 256), dtype=torch.int32).clamp(min=-1)
        automata = token_mask.AutomatonTable(cells, torch.randint(0, 2, (6,), dtype=torch.uint8))
        texts = [bytes(torch.randint(0, 256, (i % 7,)).tolist()) for i in range(600)]
        tokens = token_mask.TokenBytes.of(texts, [0, 7])
        states = torch.tensor([0, 3, -1, 5], dtype=torch.int32)
        one = torch.randn(4, 600)
        other = one.clone()
        token_mask.mask_logits(one, states, automata, tokens)
        token_mask_triton.mask_logits(other, states, automata, tokens)
        assert torch.equal(one, other)
        assert torch.isinf(one[[0, 1, 3]]).any() and torch.isfinite(one[2]).all()
        """,
        TRITON_INTERPRET="1",
    )


@pytest.mark.parametrize("capability", [80, 90])
def test_the_gpu_form_compiles_without_spills(capability):
    pytest.importorskip("triton")
    output = _run(
        f"""
        import pathlib, re, subprocess, tempfile, triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource
        from zqserve.kernels.token_mask_triton import BLOCK, mask_logits_kernel
        types = "*fp32 i32 *i32 *i32 *u8 *u8 *i32 *u8 i32".split()
        names = mask_logits_kernel.arg_names
        signature = dict(zip(names, [*types, "constexpr"]))
        aligned = {{(place,): [["tt.divisibility", 16]] for place, kind in enumerate(types) if kind[0] == "*"}}
        source = ASTSource(mask_logits_kernel, signature, {{(len(types),): BLOCK}}, aligned)
        kernel = triton.compile(source, target=GPUTarget("cuda", {capability}, 32))
        tools = pathlib.Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(kernel.asm["cubin"])
            file.flush()
            print(subprocess.run([tools / "cuobjdump", "-res-usage", file.name], capture_output=True, text=True).stdout)
        """
    )
    assert "STACK:0" in output, output
