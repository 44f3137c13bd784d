"""From the logits of beams to the tokens that may follow each: the part of a beam search that touches tensors."""

from __future__ import annotations

import torch

from ..scheduling.step import Candidates


def likeliest(scores: torch.Tensor, reported: torch.Tensor, count: int, num_top: int | None) -> Candidates:
    """The candidates of one beam.

    scores, reported: float32 [vocab_size], log-probabilities to search by (-inf: forbidden) and to report. count: most
    candidates. num_top: likeliest tokens to report, -1 for all; None: no ranks either.
    """
    best = scores.topk(min(count, len(scores)))
    values: list[float] = best.values.tolist()
    num_allowed = sum(value > -torch.inf for value in values)
    token_ids = best.indices[:num_allowed]
    own = reported[token_ids]
    candidates = Candidates(token_ids.tolist(), values[:num_allowed], own.tolist())
    if num_top is not None:
        candidates.ranks = ((reported > own[:, None]).sum(-1) + 1).tolist()
        top = reported.topk(len(reported) if num_top < 0 else min(num_top, len(reported)))
        candidates.top_token_ids, candidates.top_logprobs = top.indices.tolist(), top.values.tolist()
    return candidates
