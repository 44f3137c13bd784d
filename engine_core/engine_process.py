"""The engine's process, forked from a `fork_server`.

Loads the model and then turns one loop: drain the socket, step, send each front-end what the step brought it. Idle, it
sleeps in poll. It ends with exit code 0 on SIGTERM and SIGINT, and dies with its parent. Importing this module does not
bring torch.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from types import FrameType
from typing import NoReturn

import zmq

from .config import EngineConfig
from .dropped_messages import DroppedMessages
from .errors import InvariantError, UnsupportedModelError
from .log import configure_logging
from .messages import (
    AbortRequests,
    EngineOutput,
    EngineReady,
    EngineRequest,
    EngineStats,
    FromEngine,
    Heartbeat,
    Hello,
    MessageLost,
    ResetPrefixCache,
    StepOutputs,
)
from .pooling.pooling_messages import PoolingRequest
from .pulse import Pulse
from .serving_core import Core, build_core
from .wire import IncomingNumbers, WireError, pack, unpack_to_engine

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
MAX_MESSAGES_PER_STEP = 256
"""So that a burst of arrivals does not hold up the streams that run."""
SEND_HIGH_WATER_MARK = 10_000
"""Messages, one a step, that wait for a front-end before it counts as stalled."""
RECEIVE_HIGH_WATER_MARK = 100_000
MAX_MESSAGE_BYTES = 64 << 20
"""From a front-end; whoever sends more is disconnected. The longest prompt and the largest grammar are far below."""
COLLECTOR_THRESHOLDS = (20_000, 20, 20)
"""New objects that start a garbage collection, and collections of each generation that start one of the next."""

ACCOUNTS_WRONG = 3
"""Exit status of an engine whose accounts contradict themselves."""


@dataclass(frozen=True, kw_only=True)
class EngineProcessArgs:
    """What the launcher says to the process."""

    config: EngineConfig
    address: str
    """Endpoint to bind, `ipc://` in a folder that only this user may enter."""
    log_level: str = "info"
    log_config_file: str | None = None
    """What says how to log instead of the level."""
    incarnation: int = 0
    """How many engines of this server came before it."""


def run_engine(args: EngineProcessArgs, *, parent_pid: int, pulse_pipe: int | None = None) -> int:
    """Run the engine in this process until a signal ends it; the exit code.

    parent_pid: the process to die with. pulse_pipe: file descriptor on which the loop shows that it turns; see `pulse`.
    """
    begin_process(b"zqserve-engine", parent_pid)
    configure_logging(args.log_level, args.log_config_file)
    context = zmq.Context()
    try:
        # Bound before the model loads, so that what front-ends say meanwhile waits here.
        socket = bind_socket(context, args.address)
        core = build_core(args.config)
        # What has been loaded stays: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        # Little of what a step makes is cyclic, and the collector's default pace costs guided streams some percent.
        gc.set_threshold(*COLLECTOR_THRESHOLDS)
        core.prepare_guided_decoding(when_done=gc.freeze)
        EngineServer(core, socket, Pulse(pulse_pipe), args.incarnation).run()
    except UnsupportedModelError as error:
        logger.error("%s", error)
        return 1
    except InvariantError as error:
        logger.error("The accounts of requests and blocks contradict themselves, so the engine ends: %s.", error)
        return ACCOUNTS_WRONG
    except Exception:
        logger.exception("The engine stopped.")
        return 1
    finally:
        context.destroy(linger=0)


def begin_process(name: bytes, parent_pid: int) -> None:
    """End at once on a signal and with the parent, and bear a name (at most 15 bytes) in `ps` and `top`."""
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, _exit)
    _die_with(parent_pid)
    _name_process(name)


def bind_socket(
    context: zmq.Context[zmq.Socket[bytes]],
    address: str,
    *,
    send_high_water_mark: int = SEND_HIGH_WATER_MARK,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> zmq.Socket[bytes]:
    """The engine's ROUTER. A send to a peer that is gone or full fails, instead of being dropped in silence."""
    socket = context.socket(zmq.ROUTER)
    socket.set(zmq.ROUTER_MANDATORY, 1)
    socket.set(zmq.SNDHWM, send_high_water_mark)
    socket.set(zmq.RCVHWM, RECEIVE_HIGH_WATER_MARK)
    socket.set(zmq.MAXMSGSIZE, max_message_bytes)
    socket.set(zmq.LINGER, 0)
    socket.bind(address)
    return socket


@dataclass(slots=True)
class _FrontEnd:
    """Whoever is connected."""

    incoming: IncomingNumbers = field(default_factory=IncomingNumbers)
    num_sent: int = 0
    is_lost: bool = False
    """Whether something that it said has not come through: what follows that is not read."""


class EngineServer:
    """The busy loop around an `EngineCore`.

    A front-end that vanished has its requests aborted. So has one that does not read for
    `SEND_HIGH_WATER_MARK` steps; should it read again, it is told of each request that it lost. The loop
    never waits for a front-end.
    """

    def __init__(self, core: Core, socket: zmq.Socket[bytes], pulse: Pulse, incarnation: int = 0) -> None:
        self._core = core
        self._socket = socket
        self._pulse = pulse
        self._incarnation = incarnation
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        self._clients: dict[bytes, _FrontEnd] = {}
        self._lost_requests: dict[bytes, list[int]] = {}
        """Keys of aborted requests of which a stalled front-end does not know yet."""
        self._next_heartbeat = time.monotonic() + HEARTBEAT_SECONDS
        self._dropped = DroppedMessages("a front-end")

    def run(self) -> NoReturn:
        """Turn the loop for ever; a signal ends the process."""
        self._pulse.beat()
        while True:
            self.turn()

    def turn(self) -> None:
        """Take in what has arrived, compute one step, send. Waits up to a heartbeat when there is no work."""
        if not self._core.has_unfinished():
            seconds = max(0.0, self._next_heartbeat - time.monotonic())
            self._poller.poll(math.ceil(seconds * 1000))
        self._drain()
        if self._core.has_unfinished():
            outputs = self._core.step()
            if outputs:
                stats = self._stats()
                for client, client_outputs in outputs.items():
                    self._send(client, StepOutputs(client_outputs, stats))
        if time.monotonic() >= self._next_heartbeat:
            self._beat()

    def _drain(self) -> None:
        for _ in range(MAX_MESSAGES_PER_STEP):
            # Asked for first: that costs half of an attempt that fails, and most steps find nothing.
            if not self._socket.poll(0):
                return
            client, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            front_end = self._clients.setdefault(client, _FrontEnd())
            if front_end.is_lost:
                continue
            try:
                message = unpack_to_engine(frames, front_end.incoming)
            except WireError as error:
                self._drop(client, error)
                continue
            if isinstance(message, EngineRequest | PoolingRequest):
                self._core.add_request(message, client)
            elif isinstance(message, AbortRequests):
                self._core.abort(client, message.keys)
            elif isinstance(message, Hello):
                self._send(client, self._describe())
            elif isinstance(message, ResetPrefixCache):
                self._core.reset_prefix_cache()

    def _describe(self) -> EngineReady:
        ready = self._core.describe()
        ready.incarnation = self._incarnation
        return ready

    def _stats(self) -> EngineStats:
        stats = self._core.stats()
        stats.num_dropped_messages = self._dropped.number
        return stats

    def _beat(self) -> None:
        self._pulse.beat()
        self._next_heartbeat = time.monotonic() + HEARTBEAT_SECONDS
        if not self._core.has_unfinished():
            self._core.check()
        stats = self._stats()
        for client, keys in list(self._lost_requests.items()):
            error = "The front-end did not read its answers for too long."
            lost = [EngineOutput(key, [], "error", error=error) for key in keys]
            if self._send(client, StepOutputs(lost, stats)):
                self._lost_requests.pop(client, None)
        heartbeat = Heartbeat(stats)
        for client, front_end in list(self._clients.items()):
            self._send(client, MessageLost() if front_end.is_lost else heartbeat)

    def _send(self, client: bytes, message: FromEngine) -> bool:
        """Hand a message to a front-end without waiting; False when it is gone or does not read."""
        front_end = self._clients.setdefault(client, _FrontEnd())
        try:
            self._socket.send_multipart([client, *pack(message, front_end.num_sent + 1)], zmq.NOBLOCK)
            front_end.num_sent += 1
            return True
        except zmq.Again:
            self._stalled(client, message)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._gone(client)
        return False

    def _stalled(self, client: bytes, message: FromEngine) -> None:
        """Stop working for a front-end whose queue is full; its tokens would pile up."""
        keys = self._core.abort_client(client)
        if isinstance(message, StepOutputs):
            keys += [output.key for output in message.outputs if output.finish_reason is not None]
        if keys:
            known = self._lost_requests.get(client, [])
            if not known:
                logger.warning("A front-end does not read its answers: %d requests are aborted.", len(keys))
            self._lost_requests[client] = list(dict.fromkeys(known + keys))

    def _gone(self, client: bytes) -> None:
        keys = self._core.abort_client(client)
        self._clients.pop(client, None)
        self._lost_requests.pop(client, None)
        logger.info("A front-end is gone; %d of its requests are aborted.", len(keys))

    def _drop(self, client: bytes, error: WireError) -> None:
        """What was said is not known, so nothing of this front-end is certain: have it begin anew. Should it not read
        that now, it is told again with each beat.
        """
        self._dropped.add(error)
        if error.loses_something:
            self._clients[client].is_lost = True
            self._core.abort_client(client)
            self._send(client, MessageLost(is_senders_fault=error.fault == "undecodable"))


def _exit(signal_number: int, frame: FrameType | None) -> None:
    """End the process at once: it holds nothing that outlives it.

    No SystemExit, which a library that is being imported or a destructor may swallow.
    """
    os._exit(0)


def _die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends."""
    pr_set_pdeathsig = 1
    _prctl(pr_set_pdeathsig, signal.SIGKILL)
    # The parent may have ended before the line above.
    if os.getppid() != parent_pid:
        raise SystemExit(0)


def _name_process(name: bytes) -> None:
    pr_set_name = 15
    _prctl(pr_set_name, ctypes.create_string_buffer(name))


def _prctl(option: int, argument: ctypes.Array[ctypes.c_char] | int) -> None:
    """Linux only; elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)
