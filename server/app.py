"""The ASGI application: routes, middleware, and the parts that they share.

A request passes, from the outside in: its id, the request counter, the operator's own middleware, CORS, the net for
unexpected errors, the key, and the route. Generation endpoints are raw ASGI and write to `send` themselves; the
others are Starlette's.
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
from starlette.routing import Route

from ..engine_core.errors import EngineDeadError, InvalidRequestError, RequestFailedError
from .admission.admission import AdmissionMiddleware
from .admission.client_watch import ClientWatchMiddleware
from .admission.drain import DrainMiddleware
from .admission.rate_limits import RateLimits
from .config import ServerConfig
from .endpoints.pooling_job import path_for_texts
from .http import errors
from .http.auth import AuthMiddleware
from .http.body_timeout import BodyTimeoutMiddleware
from .http.custom_middleware import load_middleware
from .http.docs_page import DOCS_PATHS, docs_routes
from .http.errors import ApiError, UnexpectedErrors
from .http.metrics import HttpRequestCounter
from .http.request_id import RequestIdMiddleware
from .routes import endpoints
from .server_folder import ServerFolder
from .server_status import ServerStatus
from .services import Services, load_services

logger = logging.getLogger(__name__)

PROBE_PATHS = ("/health", "/ping", "/version", "/metrics", "/load")
"""What is answered to the end."""

LOAD_SECONDS = 3600.0
"""Between two looks at whether a model that loads is there; it is told when it is."""

HANDLED_ERRORS = (HTTPException, ApiError, InvalidRequestError, RequestFailedError, EngineDeadError)


def create_app(config: ServerConfig, model_dir: str, folder: ServerFolder, status: ServerStatus) -> Starlette:
    """The application for the model at `model_dir`; where its engine listens is found in `folder`.

    Raises ValueError or OSError when the tokenizer or the chat template cannot be read.
    """
    services = load_services(config, model_dir, folder, status)
    services.metrics.show_worker(services.figures)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        services.drain.listen()
        await services.engine.start()
        announcement = asyncio.create_task(_when_ready(services))
        try:
            yield
        finally:
            announcement.cancel()
            await services.grammar_compiler.close()
            await services.template_renderer.close()
            await services.engine.close()

    routes = _routes(services)
    app = Starlette(
        routes=routes,
        middleware=_middleware(services, paths=[route.path for route in routes]),
        exception_handlers=dict.fromkeys(HANDLED_ERRORS, errors.handle),
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a wrong path is a 404 like any other
    return app


def _middleware(services: Services, paths: list[str]) -> list[Middleware]:
    config = services.config
    middleware = [
        Middleware(RequestIdMiddleware),
        Middleware(HttpRequestCounter, metrics=services.metrics, paths=paths, root_path=config.root_path),
        *map(load_middleware, config.middleware),
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
    middleware.append(
        Middleware(DrainMiddleware, drain=services.drain, open_paths=PROBE_PATHS, root_path=config.root_path)
    )
    if not services.keys.is_empty:
        middleware.append(
            Middleware(AuthMiddleware, keys=services.keys, open_paths=_open_paths(config), root_path=config.root_path)
        )
    limits = RateLimits(num_workers=config.workers)
    middleware.append(Middleware(AdmissionMiddleware, admission=services.admission, rate_limits=limits))
    middleware.append(
        Middleware(
            ClientWatchMiddleware,
            send_timeout=config.send_timeout,
            count_left=services.metrics.clients_left.inc,
            count_stalled=services.metrics.clients_stalled.inc,
        )
    )
    middleware.append(Middleware(BodyTimeoutMiddleware, seconds=config.body_timeout))
    return middleware


def _routes(services: Services) -> list[Route]:
    config = services.config
    described = endpoints(services)
    if config.disable_fastapi_docs:
        return [*described]
    open_paths = None if services.keys.is_empty else _open_paths(config)
    return [*described, *docs_routes(described, root_path=config.root_path, open_paths=open_paths)]


def _open_paths(config: ServerConfig) -> set[str]:
    """What needs no key: the probes of whoever runs the server, and what the flags open."""
    paths = {"/health", "/ping", "/version"}
    if not config.guard_metrics:
        paths.add("/metrics")
    if not config.guard_docs:
        paths.update(DOCS_PATHS)
    return paths


async def _when_ready(services: Services) -> None:
    """Log what is served, and a command that tries it; then start what the first guided request would wait for."""
    while (ready := services.engine.ready) is None:
        await services.engine.wait_until_ready(LOAD_SECONDS)
    if services.mode.generates:
        services.grammar_compiler.warm_up()
    config = services.config
    logger.info(
        "Serving %s (%s, %s), context %d tokens, KV cache %d tokens.",
        services.model_name,
        services.model.architecture,
        ready.dtype,
        ready.max_model_len,
        ready.num_blocks * ready.block_size,
    )
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host
    host = f"[{host}]" if ":" in host else host
    scheme = "https" if config.ssl_certfile else "http"
    target = f"--unix-socket {config.uds} {scheme}://localhost" if config.uds else f"{scheme}://{host}:{config.port}"
    key = "" if services.keys.is_empty else " -H 'Authorization: Bearer KEY'"
    path, body = "/v1/completions", '{"prompt": "The capital of France is", "max_tokens": 8}'
    if not services.mode.generates:
        path = path_for_texts(services.mode)
        body = '{"input": "The capital of France is Paris."}'
    logger.info("Ready. Try: curl %s%s%s%s -d '%s'", target, config.root_path, path, key, body)
