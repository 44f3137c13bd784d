"""The ASGI application: routes, middleware, and the parts that they share.

A request passes, from the outside in: its id, the request counter, CORS, the net for unexpected errors, the
key, and the route. Generation endpoints are raw ASGI and write to `send` themselves; the others are
Starlette's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Route

from ..engine_core.errors import EngineDeadError, InvalidRequestError, RequestFailedError
from . import errors
from .auth import AuthMiddleware
from .chat_completions import ChatCompletions
from .classification import Classification
from .completions import Completions
from .config import ServerConfig
from .embeddings import Embeddings, Pooling
from .errors import ApiError, UnexpectedErrors
from .health import HealthEndpoints
from .metrics import HttpRequestCounter
from .models import ModelEndpoints
from .pooling_job import NotGenerating
from .request_id import RequestIdMiddleware
from .scoring import Rerank, Score
from .services import Services, load_services
from .tokenization import TokenizationEndpoints

logger = logging.getLogger(__name__)

OPEN_PATHS = ("/health", "/ping", "/version")
"""What needs no key: the probes of whoever runs the server."""

HANDLED_ERRORS = (HTTPException, ApiError, InvalidRequestError, RequestFailedError, EngineDeadError)


def create_app(config: ServerConfig, model_dir: str, engine_address: str) -> Starlette:
    """The application for the model at `model_dir`, whose engine listens on `engine_address`.

    Raises ValueError or OSError when the tokenizer or the chat template cannot be read.
    """
    services = load_services(config, model_dir, engine_address)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await services.engine.start()
        announcement = asyncio.create_task(_when_ready(services))
        try:
            yield
        finally:
            announcement.cancel()
            await services.grammar_compiler.close()
            await services.engine.close()

    routes = _routes(services)
    app = Starlette(
        routes=routes,
        middleware=_middleware(services, paths=[route.path for route in routes if isinstance(route, Route)]),
        exception_handlers=dict.fromkeys(HANDLED_ERRORS, errors.handle),
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a wrong path is a 404 like any other
    return app


def _routes(services: Services) -> list[BaseRoute]:
    health = HealthEndpoints(services)
    models = ModelEndpoints(services)
    tokenization = TokenizationEndpoints(services)
    generates = services.mode.generates
    return [
        Route("/v1/completions", Completions(services) if generates else NotGenerating(services), methods=["POST"]),
        Route(
            "/v1/chat/completions",
            ChatCompletions(services) if generates else NotGenerating(services),
            methods=["POST"],
        ),
        *_pooling_routes(services),
        Route("/v1/models", models.list_models),
        Route("/v1/models/{model:path}", models.get_model),
        Route("/tokenize", tokenization.tokenize, methods=["POST"]),
        Route("/detokenize", tokenization.detokenize, methods=["POST"]),
        Route("/health", health.health),
        Route("/ping", health.health, methods=["GET", "POST"]),
        Route("/version", health.version),
        Route("/load", health.load),
        Route("/metrics", health.metrics),
    ]


def _pooling_routes(services: Services) -> list[BaseRoute]:
    rerank = Rerank(services)
    return [
        Route("/v1/embeddings", Embeddings(services), methods=["POST"]),
        Route("/v1/score", Score(services, as_list=True), methods=["POST"]),
        Route("/score", Score(services, as_list=False), methods=["POST"]),
        Route("/rerank", rerank, methods=["POST"]),
        Route("/v1/rerank", rerank, methods=["POST"]),
        Route("/v2/rerank", rerank, methods=["POST"]),
        Route("/classify", Classification(services), methods=["POST"]),
        Route("/pooling", Pooling(services), methods=["POST"]),
    ]


def _middleware(services: Services, paths: list[str]) -> list[Middleware]:
    config = services.config
    middleware = [
        Middleware(RequestIdMiddleware),
        Middleware(HttpRequestCounter, metrics=services.metrics, paths=paths, root_path=config.root_path),
    ]
    if config.allowed_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=config.allowed_origins,
                allow_methods=config.allowed_methods,
                allow_headers=config.allowed_headers,
                allow_credentials=config.allow_credentials,
                expose_headers=["x-request-id"],
            )
        )
    middleware.append(Middleware(UnexpectedErrors))
    if config.api_key:
        open_paths = OPEN_PATHS if config.guard_metrics else (*OPEN_PATHS, "/metrics")
        middleware.append(
            Middleware(AuthMiddleware, keys=config.api_key, open_paths=open_paths, root_path=config.root_path)
        )
    return middleware


async def _when_ready(services: Services) -> None:
    """Log what is served, and a command that tries it; then start what the first guided request would wait for."""
    while services.engine.ready is None:
        await asyncio.sleep(0.05)
    if services.mode.generates:
        services.grammar_compiler.warm_up()
    ready, config = services.engine.ready, services.config
    logger.info(
        "Serving %s (%s, %s), context %d tokens, KV cache %d tokens.",
        services.model_name,
        services.model.architecture,
        ready.dtype,
        ready.max_model_len,
        ready.num_blocks * ready.block_size,
    )
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host
    target = f"--unix-socket {config.uds} http://localhost" if config.uds else f"http://{host}:{config.port}"
    key = " -H 'Authorization: Bearer KEY'" if config.api_key else ""
    path, body = "/v1/completions", '{"prompt": "The capital of France is", "max_tokens": 8}'
    if not services.mode.generates:
        path = {"embed": "/v1/embeddings", "classify": "/classify"}.get(services.mode.pooling or "", "/pooling")
        body = '{"input": "The capital of France is Paris."}'
    logger.info("Ready. Try: curl %s%s%s%s -d '%s'", target, config.root_path, path, key, body)
