"""POST /v1/embeddings and /pooling: texts in, vectors out."""

from __future__ import annotations

import time

import msgspec
from starlette.types import Receive, Scope, Send

from ...engine_core.pooling.pooling_messages import Pooled
from ...engine_core.pooling.pooling_params import PoolingParams, PoolingTask
from ..http.disconnect import cancel_on_disconnect
from ..http.request_body import decode, read_body
from ..http.request_id import answer_id
from ..protocol.pooling import (
    EmbeddingData,
    EmbeddingRequest,
    EmbeddingResponse,
    PoolingBody,
    PoolingData,
    PoolingResponse,
    VectorFields,
)
from ..services import Services
from .pooling_job import check_task, pool, read_inputs, refuse_unsupported, send_json, usage, wants_activation
from .vector_format import base64_text, float_rows, floats


class Embeddings:
    """/v1/embeddings, raw ASGI."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._decoder = msgspec.json.Decoder(EmbeddingRequest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        request = decode(await read_body(scope, receive, services.config.max_body_size), self._decoder)
        model = services.check_model(request.model)
        check_task(services, "embed")
        refuse_unsupported(request)
        params = PoolingParams(
            task="embed", dimensions=_dimensions(services, request), use_activation=wants_activation(request)
        )
        inputs = await read_inputs(services, request)
        id = answer_id("embd", scope, request.request_id)
        async with cancel_on_disconnect(receive):
            pooled = await pool(services, id, model, inputs, params, request.priority)
            data = [
                EmbeddingData(index=index, embedding=_vector(request, result)) for index, result in enumerate(pooled)
            ]
            await send_json(
                send,
                EmbeddingResponse(id=id, created=int(time.time()), model=model, data=data, usage=usage(inputs)),
            )


class Pooling:
    """/pooling, raw ASGI: the model's numbers, for whatever task it is served."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._decoder = msgspec.json.Decoder(PoolingBody)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        request = decode(await read_body(scope, receive, services.config.max_body_size), self._decoder)
        model = services.check_model(request.model)
        tasks = services.mode.pooling_tasks
        task: PoolingTask = tasks[0] if tasks else "embed"
        if request.task is not None and request.task != "encode":
            task = request.task
        check_task(services, task)
        refuse_unsupported(request)
        params = PoolingParams(
            task=task, dimensions=_dimensions(services, request), use_activation=wants_activation(request)
        )
        inputs = await read_inputs(services, request)
        id = answer_id("pool", scope, request.request_id)
        async with cancel_on_disconnect(receive):
            pooled = await pool(services, id, model, inputs, params, request.priority)
            is_base64 = request.encoding_format == "base64"
            data = [
                PoolingData(
                    index=index, data=base64_text(result, request.endianness) if is_base64 else float_rows(result)
                )
                for index, result in enumerate(pooled)
            ]
            await send_json(
                send, PoolingResponse(id=id, created=int(time.time()), model=model, data=data, usage=usage(inputs))
            )


def _vector(request: VectorFields, pooled: Pooled) -> list[float] | str:
    return base64_text(pooled, request.endianness) if request.encoding_format == "base64" else floats(pooled)


def _dimensions(services: Services, request: VectorFields) -> int | None:
    """The size that vectors are to be cut to. Raises `InvalidRequestError`."""
    if request.dimensions is not None:
        services.pooling_processor.check_dimensions(request.dimensions)
    return request.dimensions
