"""The client's connection, against a server that cuts its answers at awkward places."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from zqserve.bench.common.http_stream import Exchange, HttpConnection

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=1\r\n world\r\n0\r\n\r\n"
SIZED = b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy"
UNSIZED = b"HTTP/1.0 200 OK\r\n\r\nto the end"


async def _exchanges(answers: Sequence[bytes], cut: int, *, then_close: bool) -> list[Exchange]:
    """What a client has of a server that writes these answers in pieces of `cut` bytes, on one connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            for place in range(0, len(answer), cut):
                writer.write(answer[place : place + cut])
                await writer.drain()
                await asyncio.sleep(0)
        if then_close:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    _, connection = await asyncio.get_running_loop().create_connection(HttpConnection, host, port)
    found = [await connection.exchange(b"GET / HTTP/1.1\r\n\r\n", 0.0) for _ in answers]
    connection.close()
    server.close()
    return found


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_bodies_come_whole_wherever_they_are_cut(cut: int) -> None:
    found = asyncio.run(_exchanges([CHUNKED, SIZED, CHUNKED, UNSIZED], cut, then_close=True))
    bodies = [(one.status, b"".join(piece for _, piece in one.pieces), one.error) for one in found]
    hello = (200, b"hello world", None)
    assert bodies == [hello, (503, b"busy", None), hello, (200, b"to the end", None)]


def test_times_are_in_order() -> None:
    (exchange,) = asyncio.run(_exchanges([CHUNKED], 1, then_close=False))
    times = [arrived for arrived, _ in exchange.pieces]
    assert len(times) == 2
    assert times == sorted(times)


@pytest.mark.parametrize("answer", [CHUNKED[:-5], SIZED[:-1], b"HTTP/1.1 200 OK\r\n"])
def test_a_connection_that_breaks_is_an_error(answer: bytes) -> None:
    (exchange,) = asyncio.run(_exchanges([answer], 1000, then_close=True))
    assert "connection ended" in (exchange.error or "")


def test_what_is_no_chunk_is_an_error() -> None:
    answer = CHUNKED.replace(b"5\r\n", b"no number\r\n")
    (exchange,) = asyncio.run(_exchanges([answer], 1000, then_close=True))
    assert "no HTTP" in (exchange.error or "")
