"""Every path that the server answers, with what `/openapi.json` says of it.

An endpoint is added here and nowhere else: the document, the counter of requests and the key's guard read this list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .endpoints import unserved
from .endpoints.chat_batch import ChatBatch
from .endpoints.chat_completions import ChatCompletions
from .endpoints.completions import Completions
from .endpoints.dev_endpoints import DevEndpoints
from .endpoints.generate import SEPARATORS, Generate
from .endpoints.health import HealthEndpoints
from .endpoints.invocations import Invocations, Target
from .endpoints.messages_routes import messages_endpoints
from .endpoints.models import ModelEndpoints
from .endpoints.pooling_job import NotGenerating, path_for_texts
from .endpoints.pooling_routes import pooling_endpoints
from .endpoints.responses_routes import responses_endpoints
from .endpoints.scoring import PAIRS
from .endpoints.tokenization import TokenizationEndpoints
from .http.endpoint import NOT_SERVED, PROBES, Endpoint, ObjectSequence, ServerSentEvents
from .protocol.chat import ChatBatchRequest, ChatCompletionRequest, ChatCompletionResponse
from .protocol.completions import CompletionRequest, CompletionResponse
from .protocol.error import ErrorResponse
from .protocol.events import ChatCompletionEvent, CompletionEvent
from .protocol.generate import GenerateRequest, GenerateResponse
from .protocol.health import ServerInfo, ServerLoad, ServerVersion
from .protocol.models import ModelCard, ModelList
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
    of_the_model = [*_generating(services), *pooling_endpoints(services)]
    return [
        *of_the_model,
        _invocations(services, of_the_model),
        *_tokenization(services),
        *_models(services),
        *_probes(services),
        *(_development(services) if services.config.dev_endpoints else ()),
        *_unserved(),
    ]


def _generating(services: Services) -> list[Endpoint]:
    """What a model that generates answers; another one tells what to do."""
    endpoints = [*_generation(services), *responses_endpoints(services), *messages_endpoints(services)]
    if services.mode.generates:
        return endpoints
    return [endpoint if endpoint.refuses else endpoint.refused_by(NotGenerating(services)) for endpoint in endpoints]


def _generation(services: Services) -> list[Endpoint]:
    return [
        Endpoint(
            "POST",
            "/v1/completions",
            Completions(services),
            tag="Generation",
            summary="Continue texts, given as text or token ids.",
            request=CompletionRequest,
            example={"prompt": "The capital of France is", "max_tokens": 16},
            answer=CompletionResponse,
            stream=ServerSentEvents((CompletionEvent, ErrorResponse), ends_with_done=True),
            errors=(504,),
        ),
        Endpoint(
            "POST",
            "/v1/chat/completions",
            ChatCompletions(services),
            tag="Generation",
            summary="Answer a conversation.",
            request=ChatCompletionRequest,
            example={"messages": _CONVERSATION, "max_tokens": 64},
            answer=ChatCompletionResponse,
            stream=ServerSentEvents((ChatCompletionEvent, ErrorResponse), ends_with_done=True),
            errors=(504,),
        ),
        Endpoint(
            "POST",
            "/v1/chat/completions/batch",
            ChatBatch(services),
            tag="Generation",
            summary="Answer several conversations, each with a choice.",
            request=ChatBatchRequest,
            example={"messages": [_CONVERSATION, _CONVERSATION], "max_tokens": 64},
            answer=ChatCompletionResponse,
            errors=(504,),
        ),
        Endpoint(
            "POST",
            "/generate",
            Generate(services),
            tag="Generation",
            summary="Continue a text, as vLLM's demo server, Outlines' server and BentoML's guide do.",
            request=GenerateRequest,
            example={"prompt": "The capital of France is", "use_beam_search": True, "n": 4, "temperature": 0},
            answer=[GenerateResponse, Any],
            stream=ObjectSequence((GenerateResponse, ErrorResponse), SEPARATORS),
            errors=(504,),
        ),
    ]


def _invocations(services: Services, others: Sequence[Endpoint]) -> Endpoint:
    """The endpoint that passes a body on; a conversation for a model that does not generate is to be pooled."""
    by_path = {endpoint.path: endpoint for endpoint in others}
    for_texts = path_for_texts(services.mode)
    fields = {
        ("messages",): "/v1/chat/completions" if services.mode.generates else for_texts,
        ("prompt",): "/v1/completions",
        ("input",): for_texts,
        ("query", "documents"): "/rerank",
        **dict.fromkeys(PAIRS, "/score"),
    }
    targets = [Target(names, by_path[path]) for names, path in fields.items()]
    served = [by_path[path] for path in dict.fromkeys(fields.values()) if not by_path[path].refuses]
    streams = [endpoint.stream for endpoint in served if isinstance(endpoint.stream, ServerSentEvents)]
    objects = dict.fromkeys(type_ for stream in streams for type_ in stream.objects)
    return Endpoint(
        "POST",
        "/invocations",
        Invocations(services, targets),
        tag="Generation" if services.mode.generates else "Pooling",
        summary="One path for all: the body goes to the endpoint whose fields it has.",
        request=[request for endpoint in served for request in endpoint.requests],
        example=served[0].example,
        answer=[answer for endpoint in served for answer in endpoint.answers],
        stream=ServerSentEvents(tuple(objects), ends_with_done=True) if objects else None,
        errors=(504,),
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
            tag=PROBES,
            summary="200 while the engine's loop turns, 503 while the model loads or when the engine is dead.",
            errors=(503,),
        ),
        Endpoint(
            ("GET", "POST"),
            "/ping",
            health.health,
            tag=PROBES,
            summary="The same as /health.",
            errors=(503,),
        ),
        Endpoint(
            "GET",
            "/version",
            health.version,
            tag=PROBES,
            summary="The version of the server.",
            answer=ServerVersion,
        ),
        Endpoint(
            "GET",
            "/load",
            health.load,
            tag=PROBES,
            summary="How many requests the engine has, running or waiting.",
            answer=ServerLoad,
        ),
        Endpoint(
            "GET",
            "/metrics",
            health.metrics,
            tag=PROBES,
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
