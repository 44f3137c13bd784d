"""What the offline API returns for embeddings, scores and classes, named and shaped as users of vLLM know it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


@dataclass(slots=True)
class PoolingOutput:
    """The numbers as they are."""

    data: torch.Tensor
    """float32 [size], or [num_tokens, size] for the tasks that answer for each token."""


@dataclass(slots=True, repr=False)
class EmbeddingOutput:
    """A vector."""

    embedding: list[float]

    @property
    def hidden_size(self) -> int:
        return len(self.embedding)

    def __repr__(self) -> str:
        return f"EmbeddingOutput(hidden_size={self.hidden_size})"


@dataclass(slots=True, repr=False)
class ClassificationOutput:
    """Probabilities of the classes."""

    probs: list[float]

    @property
    def num_classes(self) -> int:
        return len(self.probs)

    def __repr__(self) -> str:
        return f"ClassificationOutput(num_classes={self.num_classes})"


@dataclass(slots=True)
class ScoringOutput:
    """How well two texts go together."""

    score: float


@dataclass(slots=True)
class PoolingRequestOutput(Generic[T]):
    """A text, or a pair of texts, and what the model made of it."""

    request_id: str
    outputs: T
    prompt_token_ids: list[int]
    finished: bool = True
    num_cached_tokens: int = 0
    """Always 0: pooling does not use the prefix cache."""
