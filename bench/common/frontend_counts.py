"""What the front-end does for a streamed token, counted: its application in this process, with an echo engine."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvloop
import zmq

from zqserve.engine_core.tokenizer import load_tokenizer
from zqserve.server.app import create_app
from zqserve.server.config import ServerConfig
from zqserve.server.engine_link.model_info import load_model_info
from zqserve.server.server_folder import ServerFolder
from zqserve.server.server_status import EnginePhase, ServerStatus

from .counting import counted_instructions
from .echo_engine import EchoEngine

STREAMS = 8
STEPS = 16
WARM_UP_STEPS = 4
PAUSE_SECONDS = 0.002
TEXT = "There is a time for many words and there is also a time for sleep."
BODIES = {
    "/v1/completions": {"prompt": TEXT},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": TEXT}]},
}


def frontend_counts(model: str) -> Iterator[tuple[str, float]]:
    """Of streams of `BODIES`."""
    yield from uvloop.run(_counts(model)).items()


class _Stream:
    """The server's side of one request's connection; counts what is written."""

    def __init__(self, path: str, body: dict[str, Any]) -> None:
        self.num_events = 0
        self.num_bytes = 0
        self.on_event: Callable[[], object] = lambda: None
        self.scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        self._body = json.dumps(body).encode()
        self._is_read = False

    async def receive(self) -> dict[str, Any]:
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await asyncio.Event().wait()
        raise AssertionError("this client does not leave")

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body" and message["body"]:
            self.num_events += 1
            self.num_bytes += len(message["body"])
            self.on_event()


async def _counts(model: str) -> dict[str, float]:
    info = load_model_info(model)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="zqserve-guard-") as path:
        folder = ServerFolder(Path(path))
        status = ServerStatus(folder.status)
        status.engine_phase = EnginePhase.SERVING
        engine = EchoEngine(
            context,
            folder.engine_address,
            vocab_size=info.vocab_size,
            max_model_len=info.max_model_len,
            token_ids=load_tokenizer(model).encode(TEXT, add_special_tokens=False),
        )
        app = create_app(ServerConfig(model, log_level="warning"), model, folder, status)
        async with app.router.lifespan_context(app):
            await _until(engine, lambda: engine.num_front_ends == 1)
            for name, body in BODIES.items():
                whole = body | {"max_tokens": STEPS + WARM_UP_STEPS + 4, "ignore_eos": True, "stream": True}
                streams = [_Stream(name, whole) for _ in range(STREAMS)]
                tasks = [asyncio.ensure_future(app(one.scope, one.receive, one.send)) for one in streams]
                await _until(engine, lambda: engine.num_live == STREAMS)
                found |= {f"{what}, {name}": number for what, number in (await _count(engine, streams)).items()}
                while engine.num_live:
                    engine.step()
                await asyncio.gather(*tasks)
        engine.close()
    context.destroy(linger=0)
    return found


async def _count(engine: EchoEngine, streams: list[_Stream]) -> dict[str, float]:
    """Of the steps behind the first ones, the cheapest: what comes now and then is not a token's."""
    for _ in range(WARM_UP_STEPS):
        engine.step()
        await asyncio.sleep(PAUSE_SECONDS)
    numbers: list[int] = []
    num_bytes = [stream.num_bytes for stream in streams]
    num_events = [stream.num_events for stream in streams]
    for _ in range(STEPS):
        missing = set(streams)
        all_told = asyncio.get_running_loop().create_future()
        for stream in streams:
            stream.on_event = lambda stream=stream, missing=missing, told=all_told: _tell(stream, missing, told)
        engine.step()
        with counted_instructions() as counter:
            await all_told
        numbers.append(counter.number)
        await asyncio.sleep(PAUSE_SECONDS)
    tokens = STEPS * len(streams)
    new_bytes = sum(stream.num_bytes - before for stream, before in zip(streams, num_bytes, strict=True))
    new_events = sum(stream.num_events - before for stream, before in zip(streams, num_events, strict=True))
    return {
        "instructions a token": round(min(numbers) / len(streams), 2),
        "events a token": round(new_events / tokens, 2),
        "bytes a token": round(new_bytes / tokens, 2),
    }


def _tell(stream: _Stream, missing: set[_Stream], told: asyncio.Future[None]) -> None:
    missing.discard(stream)
    if not missing and not told.done():
        told.set_result(None)


async def _until(engine: EchoEngine, condition: Callable[[], bool]) -> None:
    while not condition():
        engine.take_in(0)
        await asyncio.sleep(PAUSE_SECONDS)
