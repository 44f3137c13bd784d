"""The socket to the engine: one ZeroMQ DEALER for each engine that lives, greeted as soon as it can be reached.

When an engine's process ends, its connection breaks. The socket is then thrown away with all that it still holds, and a
new one waits for the next engine at the same address: nothing that was meant for one engine can reach another, and
nothing that one has said can be taken for another's. The same is done where a message got lost or makes no sense, on
either side: what it said is not known, so both begin anew.

The event loop watches the descriptors of the socket and of its monitor; each time one wakes, everything that has
arrived is taken (the descriptor only tells of changes).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import cast

import zmq
from zmq.utils.monitor import recv_monitor_message

from ...engine_core.dropped_messages import DroppedMessages
from ...engine_core.messages import Hello, MessageLost, News, ToEngine
from ...engine_core.wire import IncomingNumbers, WireError, pack, unpack_from_engine

logger = logging.getLogger(__name__)

RECONNECT_MILLISECONDS = 20
"""Between attempts while no engine listens."""
SECONDS_BEFORE_NEW_BEGINNING = 0.1
"""When a message was dropped, so that two who never understand each other do not spend their time on it."""
_BREAKS = zmq.Event.DISCONNECTED | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL | zmq.Event.HANDSHAKE_FAILED_PROTOCOL

Socket = zmq.Socket[bytes]

_EVENTS, _READABLE = zmq.EVENTS, int(zmq.POLLIN)


class EngineConnection:
    """All methods belong to the event loop on which it was opened."""

    def __init__(
        self,
        address: str,
        *,
        on_message: Callable[[News], None],
        on_break: Callable[[bool], None],
        count_dropped: Callable[[], object],
    ) -> None:
        """on_break: the engine that was connected has forgotten all; what is sent from then on is for the next one, or
        for the same that begins anew. It is told whether that may be the fault of a request: whether the engine is
        gone, or something was said that makes no sense. count_dropped: called for each message that was dropped.
        """
        self.last_heard = 0.0
        """`time.monotonic()` of the last message of this engine."""
        self._address = address
        self._on_message = on_message
        self._on_break = on_break
        self._count_dropped = count_dropped
        self._dropped = DroppedMessages("the engine")
        self._incoming = IncomingNumbers()
        self._num_sent = 0
        self._context: zmq.Context[Socket] | None = None
        self._socket: Socket | None = None
        self._monitor: Socket | None = None

    def open(self) -> None:
        """Begin to connect; does not wait for an engine."""
        self._loop = asyncio.get_running_loop()
        self._context = zmq.Context()
        self._connect()

    def close(self) -> None:
        """Disconnect: the engine then forgets this front-end."""
        if self._context is not None:
            self._disconnect()
            self._context.destroy(linger=0)
            self._context = None

    def send(self, message: ToEngine) -> None:
        """Queue a message; dropped when the connection is closed."""
        if self._socket is None:
            return
        self._num_sent += 1
        self._socket.send_multipart(pack(message, self._num_sent), zmq.NOBLOCK)
        # Sending may have used up the descriptor's event of a message that arrived meanwhile.
        if _can_be_read(self._socket):
            self._loop.call_soon(self._receive)

    def _connect(self) -> None:
        if self._context is None or self._socket is not None:
            return  # it was closed meanwhile, or made anew for another reason
        try:
            self._open_socket(self._context)
        except zmq.ZMQError as error:
            logger.error("The engine cannot be reached: %s. It is tried again.", error)
            self._disconnect()
            self._loop.call_later(SECONDS_BEFORE_NEW_BEGINNING, self._connect)

    def _open_socket(self, context: zmq.Context[Socket]) -> None:
        """Raises `zmq.ZMQError`, when there are no file descriptors left."""
        self._incoming, self._num_sent = IncomingNumbers(), 0
        socket = self._socket = context.socket(zmq.DEALER)
        socket.set(zmq.LINGER, 0)
        # The requests are bounded where they are accepted, and what they bring by their max_tokens.
        socket.set(zmq.SNDHWM, 0)
        socket.set(zmq.RCVHWM, 0)
        socket.set(zmq.RECONNECT_IVL, RECONNECT_MILLISECONDS)
        self._monitor = cast("Socket", socket.get_monitor_socket(_BREAKS))
        socket.connect(self._address)
        self._loop.add_reader(socket.fileno(), self._receive)
        self._loop.add_reader(self._monitor.fileno(), self._watch)
        # A descriptor tells of nothing before its socket has been found empty once.
        self._loop.call_soon(self._receive)
        self._loop.call_soon(self._watch)
        self.send(Hello())

    def _disconnect(self) -> None:
        for socket in (self._monitor, self._socket):
            if socket is not None:
                self._loop.remove_reader(socket.fileno())
        if self._socket is not None:
            self._socket.disable_monitor()
            self._socket.close(linger=0)
        if self._monitor is not None:
            self._monitor.close(linger=0)
        self._socket = self._monitor = None

    def _receive(self) -> None:
        """Take in all that has arrived."""
        while (socket := self._socket) is not None and _can_be_read(socket):
            frames = socket.recv_multipart(zmq.NOBLOCK)
            try:
                message = unpack_from_engine(frames, self._incoming)
            except WireError as error:
                self._dropped.add(error)
                self._count_dropped()
                if error.loses_something:
                    self._begin_anew(may_be_a_requests_fault=error.fault == "undecodable")
                continue
            self.last_heard = time.monotonic()
            if isinstance(message, MessageLost):
                self._begin_anew(may_be_a_requests_fault=message.is_senders_fault)
            else:
                self._on_message(message)

    def _watch(self) -> None:
        """Look whether the connection has broken."""
        while self._monitor is not None:
            try:
                recv_monitor_message(self._monitor, zmq.NOBLOCK)
            except zmq.Again:
                return
            # What the engine still said counts: it will not have to be computed again.
            self._receive()
            if self._socket is None:
                return  # that made no sense
            self._disconnect()
            self.last_heard = 0.0
            self._connect()
            self._on_break(True)

    def _begin_anew(self, *, may_be_a_requests_fault: bool) -> None:
        self._disconnect()
        self.last_heard = 0.0
        self._loop.call_later(SECONDS_BEFORE_NEW_BEGINNING, self._connect)
        self._on_break(may_be_a_requests_fault)


def _can_be_read(socket: Socket) -> bool:
    """Whether a message has arrived. Cheaper than to try and be refused: that makes an exception at each step."""
    return bool(cast("int", socket.getsockopt(_EVENTS)) & _READABLE)
