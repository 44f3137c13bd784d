"""What a connection has from the socket that it was accepted from."""

from __future__ import annotations

import socket

import pytest

from zqserve.server.processes.listeners import PATIENCE, listen


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_connection_sends_at_once_and_ends_when_nobody_takes_what_was_sent(host: str) -> None:
    with listen(host, 0, backlog=4, send_timeout=7.0) as listener:
        listener.setblocking(True)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == PATIENCE * 7000


def test_several_may_share_an_address() -> None:
    with (
        listen("127.0.0.1", 0, backlog=4, send_timeout=1.0) as first,
        listen("127.0.0.1", first.getsockname()[1], backlog=4, send_timeout=1.0) as second,
    ):
        assert first.getsockname() == second.getsockname()
