"""Texts of one length, as the models of the pooling runner take them: no padding, hence no mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from .pooling_messages import PoolingRequest


@dataclass(frozen=True)
class TextGroup:
    """Requests of a step whose texts have the same number of tokens."""

    numbers: list[int]
    """Places of the requests in the step."""
    token_ids: torch.Tensor
    """int64 [count, length]."""
    token_type_ids: torch.Tensor | None = None
    """int64 [count, length]; None when all tokens belong to one part."""

    @property
    def shape(self) -> tuple[int, int]:
        """(count, length)."""
        count, length = self.token_ids.shape
        return count, length

    @property
    def num_tokens(self) -> int:
        return self.token_ids.numel()

    def part(self, start: int, end: int) -> TextGroup:
        """The texts from `start` to before `end`."""
        types = self.token_type_ids
        return TextGroup(
            self.numbers[start:end], self.token_ids[start:end], None if types is None else types[start:end]
        )


class PooledModel(Protocol):
    """A model whose last layer is asked for, and no next token."""

    def run(self, groups: Sequence[TextGroup]) -> Iterable[tuple[TextGroup, torch.Tensor]]:
        """The groups, or parts of them, each with the states of its last layer [count, length, hidden_size] or with a
        classifier's output: [count, num_labels], or [count, length, num_labels] where it classifies tokens.
        """
        ...


def group_by_length(requests: Sequence[PoolingRequest], device: torch.device) -> list[TextGroup]:
    """The requests of a step in groups of equal length, the shortest first."""
    by_length: dict[int, list[int]] = {}
    for number, request in enumerate(requests):
        by_length.setdefault(len(request.prompt_token_ids), []).append(number)
    groups = []
    for length, numbers in sorted(by_length.items()):
        token_ids = torch.tensor([requests[number].prompt_token_ids for number in numbers], device=device)
        types = [requests[number].token_type_ids for number in numbers]
        token_type_ids = None
        if any(types):
            token_type_ids = torch.tensor([given or [0] * length for given in types], device=device)
        groups.append(TextGroup(numbers, token_ids, token_type_ids))
    return groups
