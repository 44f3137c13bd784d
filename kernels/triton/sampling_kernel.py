"""The host's side of choosing tokens on a GPU, with the calls of the CPU's `SamplingKernel`."""

from __future__ import annotations

import numpy as np
import torch

from ..sampling import AllowedTokens, SamplingRows
from .logits import adjust_launch
from .paged_attention import send_arrays
from .sampling import SamplingState, sample_launch, score_launch


def send_rows(rows: SamplingRows, device: torch.device) -> SamplingState:
    """The parameters of rows on the device, in one copy."""
    floats = rows.temperature, rows.top_p, rows.min_p
    longs = rows.top_k, rows.seed, rows.sample_index, rows.position
    return SamplingState(*send_arrays([*floats, *longs], device))


class SamplingKernel:
    """Draws one token a row."""

    def sample(self, logits: torch.Tensor, rows: SamplingRows, allowed: AllowedTokens | None = None) -> np.ndarray:
        """See `kernels.sampling.SamplingKernel.sample`."""
        device = logits.device
        num_rows = len(logits)
        row_of = torch.arange(num_rows, dtype=torch.int32, device=device)
        if allowed is not None:
            words = torch.from_numpy(allowed.words.view(np.int32)).to(device)
            mask_of = torch.from_numpy(allowed.row.astype(np.int32)).to(device)
            adjust_launch(logits, row_of, None, None, mask_of, words).run()
        state = send_rows(rows, device)
        tokens = torch.empty(num_rows, dtype=torch.int64, device=device)
        sample_launch(tokens, logits, row_of, state).run()
        return tokens.cpu().numpy()

    def score(self, logits: torch.Tensor, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `kernels.sampling.SamplingKernel.score`."""
        log_sums, logprobs = torch.empty(2, len(logits), dtype=torch.float64, device=logits.device)
        chosen = torch.from_numpy(tokens).to(logits.device)
        ranks = torch.empty_like(chosen)
        score_launch(log_sums, logprobs, ranks, logits, chosen).run()
        return log_sums.cpu().numpy(), logprobs.cpu().numpy(), ranks.cpu().numpy()
