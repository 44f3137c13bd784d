"""Whether each GPU kernel computes the right thing on the device that is here, against plain torch in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from zqserve.kernels import philox
from zqserve.kernels.attention_batch import make_batch
from zqserve.kernels.reference import ReferenceAttention, kept_weights, rotate_heads
from zqserve.kernels.rotary import Rotary
from zqserve.kernels.token_mask import MAX_ENDINGS, AutomatonTable, TokenBytes, mask_logits
from zqserve.kernels.triton.decode_attention import split_size
from zqserve.kernels.triton.gated_activation import GatedActivation
from zqserve.kernels.triton.logits import adjust_launch
from zqserve.kernels.triton.paged_attention import PagedAttention
from zqserve.kernels.triton.rms_norm import RMSNormKernel
from zqserve.kernels.triton.rotary import rotate_launch
from zqserve.kernels.triton.sampling import SamplingState, sample_launch, score_launch
from zqserve.kernels.triton.token_mask import follow_launch, mask_launch

BLOCK_SIZE = 16
Shape = tuple[int, int, int]
"""Query heads, key/value heads, head size."""


class Checks:
    """Each method runs a kernel and returns the largest error, as a share of the largest number expected."""

    def __init__(self, device: torch.device, dtype: torch.dtype, capability: int) -> None:
        self._device = device
        self._dtype = dtype
        self._capability = capability
        self._generator = torch.Generator().manual_seed(1)

    @property
    def tolerance(self) -> float:
        """What rounding explains."""
        return 1e-4 if self._dtype == torch.float32 else 2e-2

    def all(self, shapes: dict[str, Shape], lens: list[tuple[int, int]], vocab_size: int) -> dict[str, float]:
        """Errors by kernel and shape; `lens` are (tokens in the cache, tokens to compute) of each sequence."""
        found: dict[str, float] = {}
        for name, shape in shapes.items():
            for label, window, softcap in (("", 0, 0.0), (", window and softcap", 24, 8.0)):
                found[f"attention, {name}{label}"] = self.attention(shape, lens, window, softcap)
            found[f"rotary, {name}"] = self.rotary(shape)
        parts: dict[str, Callable[[], float]] = {"norm": self.norm, "gate": self.gate}
        found |= {name: check() for name, check in parts.items()}
        found["sampling"] = self.sampling(vocab_size)
        found["logprobs"] = self.logprobs(vocab_size)
        found["masks"] = self.masks(vocab_size)
        found["automata"] = self.automata(vocab_size)
        return found

    def attention(self, shape: Shape, lens: list[tuple[int, int]], window: int, softcap: float) -> float:
        """Decodes and chunks in one batch."""
        heads, kv_heads, dim = shape
        context, new = (np.array(part, np.int32) for part in zip(*lens, strict=True))
        blocks = -(-(context + new) // BLOCK_SIZE)
        table = np.zeros((len(lens), max(blocks)), np.int32)
        for seq, first in enumerate(np.cumsum(blocks) - blocks):
            table[seq, : blocks[seq]] = np.arange(first, first + blocks[seq])
        batch = make_batch(new, context, table, BLOCK_SIZE, heads // kv_heads)
        query, key, value = (self._draw(int(new.sum()), count, dim) for count in (heads, kv_heads, kv_heads))
        caches = [self._draw(int(blocks.sum()), kv_heads, BLOCK_SIZE, dim) for _ in range(2)]
        options = {"scale": dim**-0.5, "sliding_window": window, "softcap": softcap}
        # The plain form has the CPU's layout: keys transposed.
        plain = [caches[0].float().cpu().transpose(2, 3).contiguous(), caches[1].float().cpu()]
        expected = ReferenceAttention()(*(part.float().cpu() for part in (query, key, value)), *plain, batch, **options)
        kernel = PagedAttention(self._capability, split_size(8192))
        return _error(kernel(query, key, value, *caches, batch, **options), expected)

    def rotary(self, shape: Shape) -> float:
        """Queries and keys, with norms."""
        heads, kv_heads, dim = shape
        query, key, value = (self._draw(5, count, dim) for count in (heads, kv_heads, kv_heads))
        norm = RMSNormKernel(self._draw(dim), 1e-6, round_before_weight=False)
        rotary = Rotary(self._draw(5, dim), self._draw(5, dim), norm, norm)
        caches = [self._draw(1, kv_heads, BLOCK_SIZE, dim) for _ in range(2)]
        turned, slots = torch.empty_like(query), torch.arange(5, device=self._device)
        rotate_launch(turned, query, key, value, *caches, slots, rotary).run()
        expected = [
            rotate_heads(_normed(part.double(), norm), rotary.cos.double(), rotary.sin.double(), None)
            for part in (query, key)
        ]
        return max(_error(turned, expected[0]), _error(caches[0][0, :, :5].transpose(0, 1), expected[1]))

    def norm(self) -> float:
        """With the residual added."""
        x, residual = self._draw(3, 1000), self._draw(3, 1000)
        norm = RMSNormKernel(self._draw(1000), 1e-6, round_before_weight=False)
        return _error(norm.add(x, residual)[0], _normed((x + residual).double(), norm))

    def gate(self) -> float:
        """Both activations."""
        x = self._draw(3, 2000)
        gate, up = x.double().chunk(2, -1)
        functional = torch.nn.functional
        return max(
            _error(GatedActivation("silu")(x), functional.silu(gate) * up),
            _error(GatedActivation("gelu_tanh")(x), functional.gelu(gate, approximate="tanh") * up),
        )

    def sampling(self, vocab_size: int) -> float:
        """How far, as a share of the mass, draws fall from the tokens that float64 gives."""
        logits = (3 * torch.randn(4, vocab_size, generator=self._generator)).to(self._device)
        limits = [(1.0, 1.0, 0.0, 0), (0.7, 0.9, 0.0, 0), (1.3, 0.95, 0.01, 50), (1.0, 0.5, 0.0, 7)]
        temperature, top_p, min_p = torch.tensor([row[:3] for row in limits]).T.contiguous().to(self._device)
        top_k, seed, index, position = (
            torch.tensor(row, device=self._device) for row in ([row[3] for row in limits], [3] * 4, [0] * 4, range(4))
        )
        tokens = torch.empty(4, dtype=torch.int64, device=self._device)
        state = SamplingState(temperature, top_p, min_p, top_k, seed, index, position)
        sample_launch(tokens, logits, torch.arange(4, dtype=torch.int32, device=self._device), state).run()
        worst = 0.0
        for i, (heat, p, least, k) in enumerate(limits):
            weights = kept_weights(logits[i].cpu(), heat, k, p, least)
            running, token = weights.cumsum(0) / weights.sum(), int(tokens[i])
            draw, share = philox.uniform(3, 0, i), float(weights[token] / weights.sum())
            worst = max(worst, draw - float(running[token]), float(running[token]) - share - draw)
        return worst

    def logprobs(self, vocab_size: int) -> float:
        """Of given tokens."""
        logits = torch.randn(4, vocab_size, generator=self._generator).to(self._device)
        tokens = torch.arange(4, device=self._device)
        doubles = torch.empty(2, 4, dtype=torch.float64, device=self._device)
        score_launch(doubles[0], doubles[1], torch.empty_like(tokens), logits, tokens).run()
        return _error(doubles[1], logits.double().log_softmax(-1).gather(1, tokens[:, None])[:, 0])

    def masks(self, vocab_size: int) -> float:
        """0 where exactly the forbidden tokens are gone, else 1."""
        logits = torch.randn(2, vocab_size, generator=self._generator).to(self._device)
        words = torch.randint(-(2**31), 2**31 - 1, (1, -(-vocab_size // 32)), generator=self._generator).int()
        rows = torch.tensor([0, -1], dtype=torch.int32, device=self._device)
        row_of = torch.arange(2, dtype=torch.int32, device=self._device)
        adjust_launch(logits, row_of, None, None, rows, words.to(self._device)).run()
        token = torch.arange(vocab_size)
        allowed = (words[0, token // 32] >> (token % 32)) & 1 == 1
        kept = logits.isfinite().cpu()
        return float(not (torch.equal(kept[0], allowed) and bool(kept[1].all())))

    def automata(self, vocab_size: int) -> float:
        """0 where a random automaton forbids the tokens that it forbids on a CPU, and follows a token, else 1."""
        device, generator = self._device, self._generator
        cells = torch.randint(-3, 6, (6, 256), dtype=torch.int32, generator=generator).clamp(min=-1)
        table = AutomatonTable(cells, torch.tensor([0, 1] * 3, dtype=torch.uint8))
        tokens = TokenBytes.of([bytes([i % 251, i % 13, i % 7][: i % 4]) for i in range(vocab_size)])
        states, endings = torch.tensor([3, -1], dtype=torch.int32), torch.full((2, MAX_ENDINGS), 5, dtype=torch.int32)
        logits = torch.randn(2, vocab_size, generator=generator)
        found, row_of, reached = logits.to(device), torch.arange(2, dtype=torch.int32, device=device), states.to(device)
        there = AutomatonTable(table.cells.to(device), table.accepting.to(device))
        texts = TokenBytes(tokens.flat.to(device), tokens.start.to(device))
        mask_launch(found, row_of, reached, there, texts, endings.to(device)).run()
        mask_logits(logits, states, table, tokens, endings)
        token = int(logits[0].argmax())
        follow_launch(torch.tensor([token, token], device=device), row_of, reached, there, texts).run()
        state = 3
        for place in range(int(tokens.start[token]), int(tokens.start[token + 1])):
            state = int(cells[state, int(tokens.flat[place])])
        return float(not (torch.equal(found.cpu(), logits) and reached.tolist() == [state, -1]))

    def _draw(self, *size: int) -> torch.Tensor:
        return torch.randn(*size, generator=self._generator).to(self._device, self._dtype)


def _normed(x: torch.Tensor, norm: RMSNormKernel) -> torch.Tensor:
    return x * (x.square().mean(-1, keepdim=True) + norm.eps).rsqrt() * norm.weight.double()


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    expected = expected.double().cpu()
    return float((found.double().cpu() - expected).abs().max() / expected.abs().max())
