"""What the pooling endpoints share: which requests the model answers, their inputs, and the way through the engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, NoReturn, cast

import msgspec
from starlette.types import Receive, Scope, Send

from ...engine_core.errors import InvalidRequestError
from ...engine_core.pooling.pooling_messages import Pooled
from ...engine_core.pooling.pooling_params import PoolingParams, PoolingTask
from ...engine_core.serving_mode import ServingMode
from ..admission.admission import current_ticket
from ..admission.deadlines import Deadlines
from ..engine_link.pooling_processor import PoolingInput, Truncation
from ..http.errors import ApiError, unsupported
from ..prompts.chat_prompt import render_chat_prompt
from ..protocol.pooling import InputFields, PoolingFields, PoolingUsage
from ..protocol.tokenization import TokenizeChatRequest
from ..services import Services

logger = logging.getLogger(__name__)

MAX_TEXTS = 16_384
"""Texts of one request."""

_REFUSED = {
    "additional_data": "Data beside the text",
    "mm_processor_kwargs": "Any input but text",
    "padding": "Padding",
    "instruction": "An instruction in front of the texts",
}


class NotGenerating:
    """Stands in the place of the endpoints that generate where the model does not: says what to do. Raw ASGI."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> NoReturn:
        mode = self._services.mode
        advice = f"Ask POST {path_for_texts(mode)}."
        if mode.architecture.endswith(("ForCausalLM", "LMHeadModel")):
            advice += " To generate with it as well, start the server with --runner generate --task embedding."
        raise ApiError(400, f"This model ({mode.architecture}) does not generate text here. {advice}")


def path_for_texts(mode: ServingMode) -> str:
    """Where a model that pools answers for single texts."""
    return {"embed": "/v1/embeddings", "classify": "/classify"}.get(mode.pooling or "", "/pooling")


def check_task(services: Services, task: PoolingTask) -> None:
    """Raise `ApiError` 400, with what to do about it, when the model does not answer this task."""
    mode = services.mode
    if task in mode.pooling_tasks:
        return
    name = f"This model ({mode.architecture})"
    if mode.pooling is None:
        what = "embeddings" if task in ("embed", "token_embed") else "classes"
        advice = (
            "Start the server with --task embedding to serve embeddings beside it."
            if what == "embeddings"
            else "Serve a model whose architecture ends in ForSequenceClassification."
        )
        raise ApiError(400, f"{name} is served for text generation and gives no {what}. {advice}")
    if task in ("embed", "token_embed"):
        advice = "Start the server with --convert embed to make vectors of it."
    else:
        kind = "ForTokenClassification" if task == "token_classify" else "ForSequenceClassification"
        advice = f"Serve a model whose architecture ends in {kind}."
    raise ApiError(400, f"{name} does not answer the task {task}, but {', '.join(mode.pooling_tasks)}. {advice}")


def refuse_unsupported(request: PoolingFields) -> None:
    """Raise `ApiError` for a field that we know, cannot honour and must not ignore."""
    for field, what in _REFUSED.items():
        if getattr(request, field, None) is not None:
            raise unsupported(field, what)


def wants_activation(request: Any) -> bool | None:
    """`use_activation` under any of its names. Raises `InvalidRequestError` when they contradict each other."""
    names = ("use_activation", "normalize", "activation", "softmax")
    given = {name: value for name in names if (value := getattr(request, name, None)) is not None}
    if len(set(given.values())) > 1:
        raise InvalidRequestError(next(iter(given)), f"{' and '.join(given)} contradict each other.")
    return next(iter(given.values()), None)


def truncation(request: PoolingFields, **limits: int) -> Truncation:
    """How the texts of a request are shortened."""
    return Truncation(limit=request.truncate_prompt_tokens, side=request.truncation_side or "right", **limits)


async def read_inputs(services: Services, request: InputFields) -> list[PoolingInput]:
    """The texts of `input`, or the one that the chat template makes of `messages`."""
    processor = services.pooling_processor
    if (request.input is None) == (request.messages is None):
        raise InvalidRequestError("input", "A request has either input or messages.")
    if request.messages is None:
        adds = request.add_special_tokens is not False
        return await processor.encode(split_input(request.input), truncation(request), add_special_tokens=adds)
    chat = TokenizeChatRequest(
        messages=request.messages,
        add_generation_prompt=bool(request.add_generation_prompt),
        continue_final_message=request.continue_final_message,
        documents=request.documents,
        chat_template=request.chat_template,
        chat_template_kwargs=request.chat_template_kwargs,
        reasoning_effort=request.reasoning_effort,
    )
    text = await render_chat_prompt(services, chat)
    adds = bool(request.add_special_tokens)
    return await processor.encode([text], truncation(request), add_special_tokens=adds)


def split_input(given: str | list[str | int | list[int]] | None) -> list[str | list[int]]:
    """One text, several texts, one list of ids or several. Raises `InvalidRequestError`."""
    if isinstance(given, str):
        return [given]
    if not given:
        raise InvalidRequestError("input", "input must not be empty.")
    if all(isinstance(item, int) for item in given):
        return [cast("list[int]", given)]
    if any(isinstance(item, int) for item in given):
        raise InvalidRequestError("input", "input must hold either texts, or token ids, or lists of token ids.")
    if len(given) > MAX_TEXTS:
        raise InvalidRequestError("input", f"input takes at most {MAX_TEXTS} texts, got {len(given)}.")
    return cast("list[str | list[int]]", given)


async def pool(
    services: Services,
    id: str,
    model: str,
    inputs: Sequence[PoolingInput],
    params: PoolingParams,
    priority: int | None,
) -> list[Pooled]:
    """An answer for each input. Raises `ApiError` 503, `RequestFailedError` and `EngineDeadError`.

    Cancelled, it aborts what the engine has not computed yet.
    """
    await services.check_engine()
    start, arrival = time.perf_counter(), time.monotonic()
    config, ticket = services.config, current_ticket()
    ticket.add_tokens(usage(inputs).prompt_tokens)
    batch = services.engine.pool(inputs, params, priority=priority or 0, user=ticket.user, on_start=ticket.leave)
    finished = False
    try:
        with Deadlines(
            ticket,
            batch.fail,
            arrival=arrival,
            queue_seconds=config.max_queue_time,
            request_seconds=config.request_timeout,
        ):
            results = await batch.results()
        finished = True
        return results
    finally:
        batch.close()
        seconds = time.perf_counter() - start
        _count(services, inputs, finished, seconds, batch.queue_seconds)
        if services.config.log_requests:
            logger.info(
                "%s model=%s texts=%d prompt_tokens=%d finished=%s queue=%s total=%.3f",
                id,
                model,
                len(inputs),
                usage(inputs).prompt_tokens,
                "stop" if finished else "aborted",
                "-" if batch.queue_seconds is None else f"{batch.queue_seconds:.3f}",
                seconds,
            )


def usage(inputs: Sequence[PoolingInput]) -> PoolingUsage:
    """The tokens that were read."""
    num_tokens = sum(len(given.token_ids) for given in inputs)
    return PoolingUsage(num_tokens, num_tokens)


async def send_json(send: Send, answer: msgspec.Struct) -> None:
    """Answer 200."""
    body = msgspec.json.encode(answer)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _count(
    services: Services, inputs: Sequence[PoolingInput], finished: bool, seconds: float, queue_seconds: float | None
) -> None:
    """Tell the metrics of a request that is over."""
    metrics = services.metrics
    metrics.e2e_latency.observe(seconds)
    if queue_seconds is not None:
        metrics.queue_time.observe(queue_seconds)
        metrics.inference_time.observe(max(0.0, seconds - queue_seconds))
    for given in inputs:
        metrics.prompt_tokens.inc(len(given.token_ids))
        metrics.request_prompt_tokens.observe(len(given.token_ids))
        if finished:
            metrics.count_finished("stop")
