"""POST /classify: texts in, probabilities of classes out."""

from __future__ import annotations

import time

import msgspec
from starlette.types import Receive, Scope, Send

from ...engine_core.pooling.pooling_messages import Pooled
from ...engine_core.pooling.pooling_params import PoolingParams
from ..http.disconnect import cancel_on_disconnect
from ..http.request_body import decode, read_body
from ..http.request_id import answer_id
from ..protocol.pooling import ClassificationData, ClassificationRequest, ClassificationResponse
from ..services import Services
from .pooling_job import check_task, pool, read_inputs, refuse_unsupported, send_json, usage, wants_activation
from .vector_format import floats


class Classification:
    """The endpoint, raw ASGI."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._decoder = msgspec.json.Decoder(ClassificationRequest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        request = decode(await read_body(scope, receive, services.config.max_body_size), self._decoder)
        model = services.check_model(request.model)
        check_task(services, "classify")
        refuse_unsupported(request)
        params = PoolingParams(task="classify", use_activation=wants_activation(request))
        inputs = await read_inputs(services, request)
        id = answer_id("classify", scope, request.request_id)
        async with cancel_on_disconnect(receive):
            pooled = await pool(services, id, model, inputs, params, request.priority)
            data = [self._data(index, result) for index, result in enumerate(pooled)]
            await send_json(
                send,
                ClassificationResponse(id=id, created=int(time.time()), model=model, data=data, usage=usage(inputs)),
            )

    def _data(self, index: int, pooled: Pooled) -> ClassificationData:
        probs = floats(pooled)
        best = max(range(len(probs)), key=probs.__getitem__)
        label = self._services.pooling_config.labels.get(best)
        return ClassificationData(index=index, label=label, probs=probs, num_classes=len(probs))
