"""The paths of models whose output is pooled: vectors, scores, ranks, classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...engine_core.serving_mode import PoolingKind
from ..http.endpoint import Endpoint
from ..protocol.pooling import (
    ClassificationRequest,
    ClassificationResponse,
    EmbeddingRequest,
    EmbeddingResponse,
    PoolingBody,
    PoolingResponse,
    RerankRequest,
    RerankResponse,
    ScoreRequest,
    ScoreResponse,
)
from ..services import Services
from .classification import Classification
from .embeddings import Embeddings, Pooling
from .scoring import Rerank, Score

SCORE_PATHS = ("/v1/score", "/score")
RERANK_PATHS = ("/rerank", "/v1/rerank", "/v2/rerank")

_ANSWERED_BY: Mapping[str, tuple[PoolingKind, ...]] = {
    "/v1/embeddings": ("embed",),
    **dict.fromkeys((*SCORE_PATHS, *RERANK_PATHS), ("embed", "classify")),
    "/classify": ("classify",),
    "/pooling": ("embed", "classify", "token_classify"),
}
"""Which kinds of models answer a path; it tells the others what to do."""


def pooling_endpoints(services: Services) -> list[Endpoint]:
    """The endpoints of models that pool."""
    kind = services.mode.pooling
    return [
        endpoint if kind in _ANSWERED_BY[endpoint.path] else endpoint.refused_by(endpoint.app)
        for endpoint in _endpoints(services)
    ]


def _endpoints(services: Services) -> list[Endpoint]:
    rerank = Rerank(services)
    pair = {"text_1": "What is the capital of France?", "text_2": ["Paris.", "Bread is made of flour."]}
    ranked = {"query": "What is the capital of France?", "documents": ["Paris.", "Bread is made of flour."]}
    capital = {"input": ["The capital of France is Paris."]}
    return [
        _endpoint(
            "/v1/embeddings",
            Embeddings(services),
            "Make a vector of each text.",
            EmbeddingRequest,
            capital,
            EmbeddingResponse,
        ),
        *(
            _endpoint(
                path,
                Score(services, as_list=path == "/v1/score"),
                "Say how well pairs of texts go together.",
                ScoreRequest,
                pair,
                ScoreResponse,
            )
            for path in SCORE_PATHS
        ),
        *(
            _endpoint(
                path,
                rerank,
                "Order documents by how well they answer a query.",
                RerankRequest,
                ranked,
                RerankResponse,
            )
            for path in RERANK_PATHS
        ),
        _endpoint(
            "/classify",
            Classification(services),
            "Say which class each text belongs to.",
            ClassificationRequest,
            {"input": ["I like it."]},
            ClassificationResponse,
        ),
        _endpoint(
            "/pooling",
            Pooling(services),
            "Give the model's own numbers for each text or token.",
            PoolingBody,
            capital,
            PoolingResponse,
        ),
    ]


def _endpoint(
    path: str, app: Callable[..., Any], summary: str, request: Any, example: Mapping[str, Any], answer: Any
) -> Endpoint:
    """One that takes such a request and gives such an answer."""
    return Endpoint(
        "POST",
        path,
        app,
        tag="Pooling",
        summary=summary,
        request=request,
        example=example,
        answer=answer,
        errors=(504,),
    )
