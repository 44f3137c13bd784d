"""Every path that the server answers, with what `/openapi.json` says of it.

An endpoint is added here and nowhere else: the document, the counter of requests and the key's guard read this list.
"""

from __future__ import annotations

from typing import Any

from .endpoints import unserved
from .endpoints.chat_batch import ChatBatch
from .endpoints.chat_completions import ChatCompletions
from .endpoints.classification import Classification
from .endpoints.completions import Completions
from .endpoints.dev_endpoints import DevEndpoints
from .endpoints.embeddings import Embeddings, Pooling
from .endpoints.generate import Generate
from .endpoints.health import HealthEndpoints
from .endpoints.invocations import Invocations, Target
from .endpoints.messages_routes import messages_endpoints
from .endpoints.models import ModelEndpoints
from .endpoints.pooling_job import NotGenerating
from .endpoints.responses_routes import responses_endpoints
from .endpoints.scoring import Rerank, Score
from .endpoints.tokenization import TokenizationEndpoints
from .http.endpoint import ENGINE_ERRORS, NOT_SERVED, Endpoint
from .protocol.chat import ChatBatchRequest, ChatCompletionRequest, ChatCompletionResponse
from .protocol.completions import CompletionRequest, CompletionResponse
from .protocol.events import ChatCompletionEvent, CompletionEvent
from .protocol.generate import GenerateRequest, GenerateResponse
from .protocol.health import ServerInfo, ServerLoad, ServerVersion
from .protocol.models import ModelCard, ModelList
from .protocol.pooling import (
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
from .protocol.tokenization import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeChatRequest,
    TokenizeCompletionRequest,
    TokenizeResponse,
)
from .services import Services

_CONVERSATION = [{"role": "user", "content": "What is the capital of France?"}]


def endpoints(services: Services) -> list[Endpoint]:
    """The endpoints of one application."""
    generation = [*_generation(services), *responses_endpoints(services), *messages_endpoints(services)]
    pooling = _pooling(services)
    return [
        *generation,
        *pooling,
        _invocations(services, [*generation, *pooling]),
        *_tokenization(services),
        *_models(services),
        *_probes(services),
        *(_development(services) if services.config.dev_endpoints else ()),
        *_unserved(),
    ]


def _generation(services: Services) -> list[Endpoint]:
    generates = services.mode.generates
    return [
        Endpoint(
            "POST",
            "/v1/completions",
            Completions(services) if generates else NotGenerating(services),
            tag="Generation",
            summary="Continue texts, given as text or token ids.",
            request=CompletionRequest,
            example={"prompt": "The capital of France is", "max_tokens": 16},
            answer=CompletionResponse,
            event=CompletionEvent,
            errors=ENGINE_ERRORS,
        ),
        Endpoint(
            "POST",
            "/v1/chat/completions",
            ChatCompletions(services) if generates else NotGenerating(services),
            tag="Generation",
            summary="Answer a conversation.",
            request=ChatCompletionRequest,
            example={"messages": _CONVERSATION, "max_tokens": 64},
            answer=ChatCompletionResponse,
            event=ChatCompletionEvent,
            errors=ENGINE_ERRORS,
        ),
        Endpoint(
            "POST",
            "/v1/chat/completions/batch",
            ChatBatch(services) if generates else NotGenerating(services),
            tag="Generation",
            summary="Answer several conversations, each with a choice.",
            request=ChatBatchRequest,
            example={"messages": [_CONVERSATION, _CONVERSATION], "max_tokens": 64},
            answer=ChatCompletionResponse,
            errors=ENGINE_ERRORS,
        ),
        Endpoint(
            "POST",
            "/generate",
            Generate(services) if generates else NotGenerating(services),
            tag="Generation",
            summary="Continue a text, as vLLM's demo server, Outlines' server and BentoML's guide do.",
            request=GenerateRequest,
            example={"prompt": "The capital of France is", "use_beam_search": True, "n": 4, "temperature": 0},
            answer=[GenerateResponse, Any],
            errors=ENGINE_ERRORS,
        ),
    ]


def _pooling(services: Services) -> list[Endpoint]:
    rerank = Rerank(services)
    scores = (("/v1/score", Score(services, as_list=True)), ("/score", Score(services, as_list=False)))
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
            errors=ENGINE_ERRORS,
        ),
        *(
            Endpoint(
                "POST",
                path,
                score,
                tag="Pooling",
                summary="Say how well pairs of texts go together.",
                request=ScoreRequest,
                example={"text_1": "What is the capital of France?", "text_2": ["Paris.", "Bread is made of flour."]},
                answer=ScoreResponse,
                errors=ENGINE_ERRORS,
            )
            for path, score in scores
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
                errors=ENGINE_ERRORS,
            )
            for path in ("/rerank", "/v1/rerank", "/v2/rerank")
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
            errors=ENGINE_ERRORS,
        ),
        Endpoint(
            "POST",
            "/pooling",
            Pooling(services),
            tag="Pooling",
            summary="The model's own numbers for each text or token.",
            request=PoolingBody,
            example={"input": ["The capital of France is Paris."]},
            answer=PoolingResponse,
            errors=ENGINE_ERRORS,
        ),
    ]


def _invocations(services: Services, others: list[Endpoint]) -> Endpoint:
    """The endpoint that passes a body on; a conversation for a model that does not generate is to be embedded."""
    by_path = {endpoint.path: endpoint for endpoint in others}
    of_texts = "/classify" if services.mode.pooling == "classify" else "/v1/embeddings"
    fields = {
        ("messages",): "/v1/chat/completions" if services.mode.generates else of_texts,
        ("prompt",): "/v1/completions",
        ("input",): of_texts,
        ("query", "documents"): "/rerank",
        ("text_1", "text_2"): "/score",
        ("queries", "documents"): "/score",
    }
    served = [by_path[path] for path in dict.fromkeys(fields.values())]
    return Endpoint(
        "POST",
        "/invocations",
        Invocations(services, [Target(names, by_path[path].app) for names, path in fields.items()]),
        tag="Generation",
        summary="One path for all: the body goes to the endpoint whose fields it has.",
        request=[request for endpoint in served for request in endpoint.requests],
        example={"prompt": "The capital of France is", "max_tokens": 16},
        answer=[answer for endpoint in served for answer in endpoint.answers],
        event=[event for endpoint in served for event in endpoint.events],
        errors=ENGINE_ERRORS,
    )


def _tokenization(services: Services) -> list[Endpoint]:
    tokenization = TokenizationEndpoints(services)
    endpoints = [
        Endpoint(
            "POST",
            "/tokenize",
            tokenization.tokenize,
            tag="Tokens",
            summary="The token ids of a text or a conversation.",
            request=(TokenizeCompletionRequest, TokenizeChatRequest),
            example={"prompt": "The capital of France is", "return_token_strs": True},
            answer=TokenizeResponse,
        ),
        Endpoint(
            "POST",
            "/detokenize",
            tokenization.detokenize,
            tag="Tokens",
            summary="The text of token ids.",
            request=DetokenizeRequest,
            example={"tokens": [1, 2, 3]},
            answer=DetokenizeResponse,
        ),
    ]
    if services.config.enable_tokenizer_info_endpoint:
        endpoints.append(
            Endpoint(
                "GET",
                "/tokenizer_info",
                tokenization.tokenizer_info,
                tag="Tokens",
                summary="The tokenizer's configuration and the chat template.",
                answer=dict[str, Any],
            )
        )
    return endpoints


def _models(services: Services) -> list[Endpoint]:
    models = ModelEndpoints(services)
    return [
        Endpoint(
            "GET",
            "/v1/models",
            models.list_models,
            tag="Models",
            summary="The names under which the model is served.",
            answer=ModelList,
        ),
        Endpoint(
            "GET",
            "/v1/models/{model:path}",
            models.get_model,
            tag="Models",
            summary="One name of the model; it may hold slashes.",
            answer=ModelCard,
            errors=(404,),
        ),
    ]


def _probes(services: Services) -> list[Endpoint]:
    health = HealthEndpoints(services)
    return [
        Endpoint(
            "GET",
            "/health",
            health.health,
            tag="Server",
            summary="200 while the engine's loop turns, 503 while the model loads or when the engine is dead.",
            errors=(503,),
        ),
        Endpoint(
            ("GET", "POST"),
            "/ping",
            health.health,
            tag="Server",
            summary="The same as /health.",
            errors=(503,),
        ),
        Endpoint(
            "GET",
            "/version",
            health.version,
            tag="Server",
            summary="The version of the server.",
            answer=ServerVersion,
        ),
        Endpoint(
            "GET",
            "/load",
            health.load,
            tag="Server",
            summary="How many requests the engine has, running or waiting.",
            answer=ServerLoad,
        ),
        Endpoint(
            "GET",
            "/metrics",
            health.metrics,
            tag="Server",
            summary="Figures in Prometheus' text format.",
            answer=str,
            media_type="text/plain",
        ),
    ]


def _development(services: Services) -> list[Endpoint]:
    development = DevEndpoints(services)
    return [
        Endpoint(
            "POST",
            "/reset_prefix_cache",
            development.reset_prefix_cache,
            tag="Development",
            summary="Forget every cached prefix that no running request uses.",
            errors=(503,),
        ),
        Endpoint(
            "GET",
            "/server_info",
            development.server_info,
            tag="Development",
            summary="What the server was told at its start, and what the engine says of itself.",
            answer=ServerInfo,
        ),
    ]


def _unserved() -> list[Endpoint]:
    return [
        *(
            Endpoint(
                "POST", path, unserved.audio, tag=NOT_SERVED, summary="Speech to text.", errors=(404,), refuses=True
            )
            for path in ("/v1/audio/transcriptions", "/v1/audio/translations")
        ),
        *(
            Endpoint(
                "POST",
                path,
                unserved.lora_adapters,
                tag=NOT_SERVED,
                summary="LoRA adapters.",
                errors=(501,),
                refuses=True,
            )
            for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
        ),
    ]
