"""POST /score and /rerank: how well texts go together, by a cross-encoder or by the cosine of their vectors."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
from starlette.types import Receive, Scope, Send

from ...engine_core.errors import InvalidRequestError
from ...engine_core.pooling.pooling_params import PoolingParams
from ..engine_link.pooling_processor import PoolingInput
from ..http.disconnect import cancel_on_disconnect
from ..http.errors import ApiError, unsupported
from ..http.request_body import decode, read_body
from ..http.request_id import answer_id
from ..protocol.pooling import (
    RerankDocument,
    RerankRequest,
    RerankResponse,
    RerankResult,
    ScoreData,
    ScoreRequest,
    ScoreResponse,
    ScoringFields,
    TextDocument,
    Texts,
)
from ..services import Services
from .pooling_job import MAX_TEXTS, check_task, pool, refuse_unsupported, send_json, truncation, usage, wants_activation
from .vector_format import cosine, floats

PAIRS = (
    ("text_1", "text_2"),
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
)
"""Names of the two sides of a score request."""


class Score:
    """The endpoint, raw ASGI."""

    def __init__(self, services: Services, *, as_list: bool) -> None:
        """`as_list`: a score is a list of one number, unless the server is told another form."""
        self._services = services
        self._decoder = msgspec.json.Decoder(ScoreRequest)
        given = services.config.score_format
        self._as_list = as_list if given == "auto" else given == "list"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        request = decode(await read_body(scope, receive, services.config.max_body_size), self._decoder)
        model = services.check_model(request.model)
        refuse_unsupported(request)
        firsts, seconds = _sides(request)
        id = answer_id("score", scope, request.request_id)
        async with cancel_on_disconnect(receive):
            scores, inputs = await _scores(services, id, model, request, firsts, seconds)
            data = [
                ScoreData(index=index, score=[score] if self._as_list else score) for index, score in enumerate(scores)
            ]
            await send_json(
                send, ScoreResponse(id=id, created=int(time.time()), model=model, data=data, usage=usage(inputs))
            )


class Rerank:
    """The endpoint, raw ASGI."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._decoder = msgspec.json.Decoder(RerankRequest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        request = decode(await read_body(scope, receive, services.config.max_body_size), self._decoder)
        model = services.check_model(request.model)
        refuse_unsupported(request)
        documents = _texts("documents", request.documents)
        top_n = request.top_n or len(documents)
        if top_n < 0:
            raise InvalidRequestError("top_n", f"top_n must not be negative, got {top_n}.")
        id = answer_id("rerank", scope, request.request_id)
        async with cancel_on_disconnect(receive):
            scores, inputs = await _scores(services, id, model, request, [request.query], documents)
            best = sorted(range(len(scores)), key=lambda index: -scores[index])[:top_n]
            shows = request.return_documents is not False
            results = [
                RerankResult(
                    index=index,
                    document=RerankDocument(text=documents[index]) if shows else None,
                    relevance_score=scores[index],
                )
                for index in best
            ]
            await send_json(send, RerankResponse(id=id, model=model, usage=usage(inputs), results=results))


def _sides(request: ScoreRequest) -> tuple[list[str], list[str]]:
    """The texts of both sides, as many as each other or one against all. Raises `InvalidRequestError`."""
    given = [pair for pair in PAIRS if any(getattr(request, name) is not None for name in pair)]
    complete = [pair for pair in given if all(getattr(request, name) is not None for name in pair)]
    if len(complete) != 1:
        raise InvalidRequestError("text_1", "A request has text_1 and text_2, or queries and documents.")
    first_name, second_name = complete[0]
    firsts = _texts(first_name, getattr(request, first_name))
    seconds = _texts(second_name, getattr(request, second_name))
    if len(firsts) not in (1, len(seconds)):
        raise InvalidRequestError(
            first_name,
            f"{first_name} holds one text or as many as {second_name}, got {len(firsts)} and {len(seconds)}.",
        )
    return firsts, seconds


def _texts(name: str, given: Texts | Sequence[str | TextDocument]) -> list[str]:
    items = [given] if isinstance(given, str) else given
    if not items:
        raise InvalidRequestError(name, f"{name} must not be empty.")
    if len(items) > MAX_TEXTS:
        raise InvalidRequestError(name, f"{name} takes at most {MAX_TEXTS} texts, got {len(items)}.")
    return [item if isinstance(item, str) else item.text for item in items]


async def _scores(
    services: Services, id: str, model: str, request: ScoringFields, firsts: list[str], seconds: list[str]
) -> tuple[list[float], list[PoolingInput]]:
    """A score for each pair, and the inputs that were read for them."""
    if request.chat_template_kwargs is not None:
        raise unsupported("chat_template_kwargs", "A template for pairs of texts")
    limits = {name: getattr(request, name) or 0 for name in ("max_tokens_per_query", "max_tokens_per_doc")}
    for name, limit in limits.items():
        if limit < 0:
            raise InvalidRequestError(name, f"{name} must not be negative, got {limit}.")
    per_query, per_document = limits.values()
    processor = services.pooling_processor
    mode, config = services.mode, services.pooling_config
    if mode.pooling == "classify":
        if len(config.labels) != 1:
            raise ApiError(
                400,
                f"{services.model_name} tells {len(config.labels)} classes apart; a score needs a cross-encoder with "
                "one. Ask POST /classify.",
            )
        pairs = list(zip(firsts if len(firsts) > 1 else firsts * len(seconds), seconds, strict=True))
        cut = truncation(request, max_first=per_query, max_second=per_document)
        inputs = await processor.encode_pairs(pairs, cut)
        params = PoolingParams(task="classify", use_activation=wants_activation(request))
        pooled = await pool(services, id, model, inputs, params, request.priority)
        return [floats(result)[0] for result in pooled], inputs
    check_task(services, "embed")
    queries = await processor.encode(firsts, truncation(request, max_first=per_query))
    documents = await processor.encode(seconds, truncation(request, max_first=per_document))
    inputs = [*queries, *documents]
    pooled = await pool(services, id, model, inputs, PoolingParams(task="embed"), request.priority)
    vectors = [floats(result) for result in pooled]
    first_vectors, second_vectors = vectors[: len(firsts)], vectors[len(firsts) :]
    if len(firsts) == 1:
        first_vectors = first_vectors * len(seconds)
    return [cosine(*pair) for pair in zip(first_vectors, second_vectors, strict=True)], inputs
