"""/v1/embeddings, /score, /rerank, /classify and /pooling: requests and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from ...engine_core.pooling.pooling_params import PoolingTask
from .limits import Conversation, Priority


class PoolingFields(msgspec.Struct, kw_only=True):
    """Fields of every request that pools. None is the same as absent."""

    model: str | None = None
    user: str | None = None
    truncate_prompt_tokens: int | None = None
    """Longest text in tokens; -1: as many as the model takes. The special tokens stay."""
    truncation_side: Literal["left", "right"] | None = None
    """Where tokens are left out; right where a request does not say."""
    request_id: str | None = None
    priority: Priority | None = None
    use_activation: bool | None = None
    """Whether vectors are normalised, and scores made probabilities; default: what the model's files say."""

    # Known, not served: anything but null is refused.
    additional_data: Any = None
    mm_processor_kwargs: Any = None
    padding: Any = None


class InputFields(PoolingFields, kw_only=True):
    """A request about texts, token ids or one conversation."""

    input: str | list[str | int | list[int]] | None = None
    messages: Conversation | None = None
    add_special_tokens: bool | None = None
    """Default: true for texts, false for a conversation, whose template writes them."""
    add_generation_prompt: bool | None = None
    """Default: false."""
    continue_final_message: bool | None = None
    documents: list[dict[str, Any]] | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = None


class VectorFields(InputFields, kw_only=True):
    """How vectors are written."""

    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    normalize: bool | None = None
    """An older name of `use_activation`."""
    embed_dtype: Literal["float32"] | None = None
    endianness: Literal["native", "little", "big"] | None = None
    """Of base64; default: little."""


class EmbeddingRequest(VectorFields, kw_only=True):
    """The body of POST /v1/embeddings."""


class PoolingBody(VectorFields, kw_only=True):
    """The body of POST /pooling."""

    task: PoolingTask | Literal["encode"] | None = None
    """Default: what the model is served for."""
    softmax: bool | None = None
    activation: bool | None = None
    """Older names of `use_activation`."""


class ClassificationRequest(InputFields, kw_only=True):
    """The body of POST /classify."""

    softmax: bool | None = None
    activation: bool | None = None
    """Older names of `use_activation`."""


class TextDocument(msgspec.Struct, kw_only=True):
    """A document as Cohere's and Jina's clients send it."""

    text: str


Texts = str | list[str | TextDocument]


class ScoringFields(PoolingFields, kw_only=True):
    """Fields of every request that compares texts."""

    max_tokens_per_query: int | None = None
    """Longest query in tokens; None or 0: no limit."""
    max_tokens_per_doc: int | None = None
    """Longest document in tokens; None or 0: no limit."""
    encoding_format: Literal["float"] | None = None
    softmax: bool | None = None
    activation: bool | None = None
    """Older names of `use_activation`."""

    # Known, not served: anything but null is refused.
    instruction: Any = None
    chat_template_kwargs: Any = None


class ScoreRequest(ScoringFields, kw_only=True):
    """The body of POST /score: one of the pairs of fields."""

    text_1: Texts | None = None
    text_2: Texts | None = None
    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None


class RerankRequest(ScoringFields, kw_only=True):
    """The body of POST /rerank."""

    query: str
    documents: list[str | TextDocument]
    top_n: int | None = None
    """Results to return; None or 0: all."""
    return_documents: bool | None = None
    """Default: true."""


class PoolingUsage(msgspec.Struct):
    """Token counts; nothing is generated."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingData(msgspec.Struct, kw_only=True):
    """The vector of one text."""

    index: int
    object: Literal["embedding"] = "embedding"
    embedding: list[float] | str


class EmbeddingResponse(msgspec.Struct, kw_only=True):
    """The answer of POST /v1/embeddings."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[EmbeddingData]
    usage: PoolingUsage


class PoolingData(msgspec.Struct, kw_only=True):
    """The numbers of one text: a vector, one vector a token, or base64 of them."""

    index: int
    object: Literal["pooling"] = "pooling"
    data: Sequence[float | Sequence[float]] | str


class PoolingResponse(msgspec.Struct, kw_only=True):
    """The answer of POST /pooling."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[PoolingData]
    usage: PoolingUsage


class ClassificationData(msgspec.Struct, kw_only=True):
    """The classes of one text."""

    index: int
    label: str | None
    """The most likely one."""
    probs: list[float]
    num_classes: int


class ClassificationResponse(msgspec.Struct, kw_only=True):
    """The answer of POST /classify."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[ClassificationData]
    usage: PoolingUsage


class ScoreData(msgspec.Struct, kw_only=True):
    """The score of one pair."""

    index: int
    object: Literal["score"] = "score"
    score: float | list[float]


class ScoreResponse(msgspec.Struct, kw_only=True):
    """The answer of POST /score."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[ScoreData]
    usage: PoolingUsage


class RerankDocument(msgspec.Struct, kw_only=True):
    """A document of the request."""

    text: str


class RerankResult(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A document's place."""

    index: int
    document: RerankDocument | None = None
    relevance_score: float


class RerankResponse(msgspec.Struct, kw_only=True):
    """The answer of POST /rerank: the most relevant document first."""

    id: str
    model: str
    usage: PoolingUsage
    results: list[RerankResult]
