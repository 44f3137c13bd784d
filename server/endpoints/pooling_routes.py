"""The paths of models whose output is pooled: vectors, scores, ranks, classes."""

from __future__ import annotations

from collections.abc import Mapping

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
    return [
        Endpoint(
            "POST",
            "/v1/embeddings",
            Embeddings(services),
            tag="Pooling",
            summary="Make a vector of each text.",
            request=EmbeddingRequest,
            example={"input": ["The capital of France is Paris."]},
            answer=EmbeddingResponse,
            errors=(504,),
        ),
        *(
            Endpoint(
                "POST",
                path,
                Score(services, as_list=path == "/v1/score"),
                tag="Pooling",
                summary="Say how well pairs of texts go together.",
                request=ScoreRequest,
                example={"text_1": "What is the capital of France?", "text_2": ["Paris.", "Bread is made of flour."]},
                answer=ScoreResponse,
                errors=(504,),
            )
            for path in SCORE_PATHS
        ),
        *(
            Endpoint(
                "POST",
                path,
                rerank,
                tag="Pooling",
                summary="Order documents by how well they answer a query.",
                request=RerankRequest,
                example={"query": "What is the capital of France?", "documents": ["Paris.", "Bread is made of flour."]},
                answer=RerankResponse,
                errors=(504,),
            )
            for path in RERANK_PATHS
        ),
        Endpoint(
            "POST",
            "/classify",
            Classification(services),
            tag="Pooling",
            summary="Say which class each text belongs to.",
            request=ClassificationRequest,
            example={"input": ["I like it."]},
            answer=ClassificationResponse,
            errors=(504,),
        ),
        Endpoint(
            "POST",
            "/pooling",
            Pooling(services),
            tag="Pooling",
            summary="Give the model's own numbers for each text or token.",
            request=PoolingBody,
            example={"input": ["The capital of France is Paris."]},
            answer=PoolingResponse,
            errors=(504,),
        ),
    ]
