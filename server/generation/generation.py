"""One HTTP request that generates: its prompts go to the engine, the deltas of all its answers come back as
one stream, and a writer turns them into a whole answer or into events.

`completions.py` makes the `Generation` of texts, `chat_generation.py` that of a conversation; each endpoint brings a
writer of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

from starlette.types import Receive, Send

from ...engine_core.messages import Grammar, TokenLogprobs
from ...engine_core.sampling_params import SamplingParams
from ..admission.admission import current_ticket
from ..admission.deadlines import Deadlines
from ..constraints.constraint import Constraint
from ..engine_link.engine_client import RequestStream
from ..engine_link.input_processor import Prompt
from ..engine_link.output_processor import SampleDelta, merge_deltas
from ..http.disconnect import cancel_on_disconnect
from ..http.errors import ApiError, to_api_error
from ..http.sse import SERVER_SENT_EVENTS, EventStream, StreamFormat, with_pauses
from ..protocol.sampling import GenerationFields, PromptTokensDetails, UsageInfo
from ..services import Services
from ..tools.tool_choice import ToolPlan
from .event_encoder import EventEncoder
from .logprobs import LogprobsFormatter
from .request_timing import RequestTiming

MAX_ANSWER_SIZE = 4 * 2**20
"""Tokens and log-probabilities of an answer that is not streamed, over all its choices: it is held as a whole."""
LONG_ANSWER_SIZE = 20_000
"""From here on it is written in a thread."""


@dataclass(slots=True)
class Answer:
    """An answer, put together from its deltas."""

    index: int
    pieces: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def add(self, delta: SampleDelta) -> None:
        """The next piece."""
        self.pieces.append(delta.text)
        self.token_ids += delta.token_ids
        self.logprobs += delta.logprobs or ()
        self.finish_reason = delta.finish_reason
        self.stop_reason = delta.stop_reason


class Writer(Protocol):
    """Turns deltas into what the client gets: one kind for each endpoint."""

    def response(self, answers: list[Answer]) -> bytes:
        """The whole answer as JSON."""
        ...

    def events(self, deltas: Sequence[SampleDelta]) -> bytes:
        """The stream events that these deltas make; may be empty."""
        ...

    def last_events(self) -> bytes:
        """What ends a stream that went well."""
        ...

    def failure(self, error: ApiError) -> bytes:
        """What ends a stream that did not: the status has been sent already."""
        ...


class Generation:
    """The prompts of one HTTP request and the answers to them, numbered through: prompt × n + sample.

    Sends the prompts to the engine when it is entered; raises `InvalidRequestError` or `EngineDeadError`
    there, before anything is answered. Leaving it aborts what is not finished. A constraint is compiled before
    (`compile_constraint`).
    """

    def __init__(
        self,
        services: Services,
        *,
        id: str,
        model: str,
        request: GenerationFields,
        params: SamplingParams,
        prompts: list[Prompt],
        constraint: Constraint | None = None,
        tools: ToolPlan | None = None,
    ) -> None:
        self.id = id
        self.model = model
        self.created = int(time.time())
        self._arrival = time.monotonic()
        self.prompts = prompts
        self.params = params
        self.tools = tools
        """What its tools mean for the answers; None without any."""
        self.num_answers = len(prompts) * params.n
        self._services = services
        self._request = request
        self.timing = RequestTiming(services.metrics, services.config, id, model, params, prompts)
        self._constraint = constraint
        self._grammar: Grammar | None = None
        self._streams: list[RequestStream] = []
        services.input_processor.check_sizes(prompts, params)
        if constraint is not None:
            services.input_processor.check_constraint(constraint)

    async def compile_constraint(self) -> None:
        """Get the grammar that the answers must follow. Raises `InvalidRequestError` and `ApiError`."""
        for schema in () if self.tools is None else self.tools.schemas:
            await self._services.grammar_compiler.compile(schema)
        if self._constraint is not None:
            self._grammar = await self._services.grammar_compiler.compile(self._constraint)

    def check(self) -> None:
        """Raise what entering would raise for what is wrong with the request: `InvalidRequestError`."""
        for prompt in self.prompts:
            self._services.input_processor.requests(prompt, self.params)

    def __enter__(self) -> Generation:
        config, ticket = self._services.config, current_ticket()
        num_prompt_tokens = sum(len(prompt.token_ids) for prompt in self.prompts)
        ticket.add_tokens(num_prompt_tokens * self.params.num_samples)
        with ExitStack() as stack:
            for prompt in self.prompts:
                stream = self._services.engine.generate(
                    prompt,
                    self.params,
                    priority=self._request.priority or 0,
                    cache_salt=self._request.cache_salt or "",
                    grammar=self._grammar,
                    user=ticket.user,
                    on_start=ticket.leave,
                )
                stack.callback(stream.close)
                self._streams.append(stream)
            stack.enter_context(
                Deadlines(
                    ticket,
                    self._give_up,
                    arrival=self._arrival,
                    queue_seconds=config.max_queue_time,
                    request_seconds=config.request_timeout,
                )
            )
            self._close = stack.pop_all().close
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close()
        self.timing.finish(self._queue_seconds())

    def _give_up(self, error: ApiError) -> None:
        for stream in self._streams:
            stream.give_up(error)

    @property
    def keep_alive_seconds(self) -> float:
        """How long its stream may be silent; 0 for ever."""
        return self._services.config.sse_keep_alive_interval

    def encoder(self, object: str) -> EventEncoder:
        """What encodes the stream events of this request; `object` is their kind."""
        return EventEncoder(
            id=self.id,
            object=object,
            created=self.created,
            model=self.model,
            request=self._request,
            prompt_lengths=[len(self.prompt(index).token_ids) for index in range(self.num_answers)],
            force_usage=self._services.config.enable_force_include_usage,
        )

    def logprobs_formatter(self) -> LogprobsFormatter:
        """What writes the log probabilities of this request."""
        return LogprobsFormatter(
            self._services.tokenizer,
            as_ids=self._services.tokens_as_ids(self._request.return_tokens_as_token_ids),
            skip_special_tokens=self.params.skip_special_tokens,
        )

    def prompt(self, index: int) -> Prompt:
        """The prompt of answer `index`."""
        return self.prompts[index // self.params.n]

    def deltas(self) -> AsyncIterator[list[SampleDelta]]:
        """What each step brings; the indices are those of the whole request. Whoever takes it tells `timing`."""
        if len(self._streams) == 1:
            source: AsyncIterator[list[SampleDelta]] = self._streams[0]
        else:
            source = _merge(self._streams, self.params.n)
        interval = self._request.stream_interval or self._services.config.stream_interval
        if interval > 1 and self._request.stream:
            source = _at_least(interval, source)
        return source

    def prompt_logprobs(self, prompt_index: int) -> list[TokenLogprobs]:
        """Of the prompt's positions 1, 2, …; complete with the first delta, empty when not asked for."""
        return self._streams[prompt_index].state.prompt_logprobs or []

    @property
    def num_prompt_logprobs(self) -> int:
        """About how many log-probabilities of prompts are reported; at most what was let in."""
        asked = self.params.prompt_logprobs
        return 0 if asked is None else sum(len(prompt.token_ids) for prompt in self.prompts) * (1 + max(0, asked))

    def usage(self) -> UsageInfo:
        """The counts of the whole request."""
        details = None
        if self._services.config.enable_prompt_tokens_details:
            details = PromptTokensDetails(sum(stream.state.num_cached_tokens for stream in self._streams))
        num_prompt_tokens = sum(len(prompt.token_ids) for prompt in self.prompts)
        num_output_tokens = sum(stream.state.num_output_tokens for stream in self._streams)
        return UsageInfo(num_prompt_tokens, num_prompt_tokens + num_output_tokens, num_output_tokens, details)

    def _queue_seconds(self) -> float | None:
        waits = [stream.state.queue_seconds for stream in self._streams]
        return max((wait for wait in waits if wait is not None), default=None)


async def respond(
    generation: Generation,
    writer: Writer,
    *,
    stream: bool,
    receive: Receive,
    send: Send,
    stream_format: StreamFormat = SERVER_SENT_EVENTS,
) -> None:
    """Answer the request. A client that leaves ends it within a step."""
    async with cancel_on_disconnect(receive):
        await generation.compile_constraint()
        with generation:
            if stream:
                # In a task of its own: each token would pass through all that has called this function otherwise.
                await asyncio.create_task(_stream(generation, writer, send, stream_format))
            else:
                await _answer(generation, writer, send)


async def check(generation: Generation, receive: Receive) -> None:
    """Raise what `respond` would raise for what is wrong with the request, and answer nothing."""
    async with cancel_on_disconnect(receive):
        await generation.compile_constraint()
        generation.check()


async def _answer(generation: Generation, writer: Writer, send: Send) -> None:
    answers = [Answer(index) for index in range(generation.num_answers)]
    size = generation.num_prompt_logprobs
    async for deltas in generation.deltas():
        generation.timing.add(deltas)
        for delta in deltas:
            answers[delta.index].add(delta)
            size += _size(delta)
        if size > MAX_ANSWER_SIZE:
            raise ApiError(
                400,
                f"The answer has more than {MAX_ANSWER_SIZE} tokens and logprobs; a longer one must be streamed.",
                param="stream",
            )
    # A beam search may have found fewer than were asked for: all that there are.
    finished = [answer for answer in answers if answer.finish_reason is not None]
    body = writer.response(finished) if size < LONG_ANSWER_SIZE else await asyncio.to_thread(writer.response, finished)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _size(delta: SampleDelta) -> int:
    """Its tokens and log-probabilities."""
    return len(delta.token_ids) + sum(len(position.token_ids) for position in delta.logprobs or ())


async def _stream(generation: Generation, writer: Writer, send: Send, form: StreamFormat) -> None:
    stream = EventStream(send, form)
    source: AsyncIterator[list[SampleDelta] | None] = generation.deltas()
    if generation.keep_alive_seconds:
        source = with_pauses(source, generation.keep_alive_seconds)
    try:
        async for deltas in source:
            if deltas is None:
                events = form.keep_alive
            else:
                generation.timing.add(deltas)
                events = writer.events(deltas)
            if events:
                await stream.write(events)
        last_events = writer.last_events()
    except Exception as error:
        if not stream.started:
            raise
        last_events = writer.failure(to_api_error(error))
    await stream.end(last_events)


async def _merge(streams: Sequence[RequestStream], num_answers: int) -> AsyncIterator[list[SampleDelta]]:
    """Deltas of several prompts in the order in which they come, numbered through."""
    pending = {asyncio.ensure_future(anext(stream)): number for number, stream in enumerate(streams)}
    try:
        while pending:
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                number = pending.pop(future)
                try:
                    deltas = future.result()
                except StopAsyncIteration:
                    continue
                pending[asyncio.ensure_future(anext(streams[number]))] = number
                for delta in deltas:
                    delta.index += number * num_answers
                yield deltas
    finally:
        for future in pending:
            future.cancel()


async def _at_least(num_tokens: int, source: AsyncIterator[list[SampleDelta]]) -> AsyncIterator[list[SampleDelta]]:
    """Deltas put together until each has `num_tokens` tokens or ends its answer."""
    held: dict[int, SampleDelta] = {}
    async for deltas in source:
        full = []
        for delta in deltas:
            before = held.get(delta.index)
            whole = delta if before is None else merge_deltas([before, delta])
            if len(whole.token_ids) >= num_tokens or whole.finish_reason is not None:
                held.pop(delta.index, None)
                full.append(whole)
            else:
                held[delta.index] = whole
        if full:
            yield full
