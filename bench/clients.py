"""Clients that are measured: aioquic's own asyncio client, and ours on each engine.

    python -m bench.clients aioquic|pingpong-aioquic|pingpong-quinn PORT

It does what `bench/generator` does when asked: a command is a line of JSON on standard input, and
each gets one as its answer, with times in nanoseconds. aioquic's client stands in for the generator
where there is no Go. Each session has its own connection and socket. Each ping is sent at once, in
its own packet, as a client does that measures.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

import uvloop
from aioquic.asyncio.client import connect as aioquic_connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DatagramReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent, StreamDataReceived

from pingpong.lifecycle import collect_garbage_seldom
from pingpong.link.pinger import Pinger
from pingpong.ping import Mode
from pingpong.statistics import Answer
from pingpong.webtransport.asyncio import (
    ClientConnection,
    EndpointConfig,
    Limits,
    Target,
    establish,
    open_connection,
)
from pingpong.webtransport.quic.config import Engine

HOST = "127.0.0.1"
IDLE_TIMEOUT = 600.0
SIZE = 32
_PING = b"ping".ljust(SIZE, b".")
_LOST = 1.0
"""Seconds without any answer after which the waiting pings are lost."""
_GIVE_UP = 60.0


class Client(Protocol):
    """A session that pings."""

    note: Callable[[int], None]
    """Called with the number of answers that came."""

    def send(self, mode: Mode) -> None:
        """Send a ping now."""


class AioquicClient(QuicConnectionProtocol):
    """The smallest client on aioquic's asyncio client and H3Connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.note: Callable[[int], None]
        self.established: asyncio.Future[None] = self._loop.create_future()
        self._h3: H3Connection
        self._session = -1
        self._stream: int | None = None
        self._tail = b""

    def quic_event_received(self, event: QuicEvent) -> None:
        # H3Connection would parse the answers on these streams as HTTP/3 frames.
        if isinstance(event, StreamDataReceived) and self._is_own(event.stream_id):
            if event.stream_id == self._stream:
                data = self._tail + event.data
                self._tail = data[-3:]
                self.note(data.count(b"pong"))
            elif event.end_stream:
                self.note(1)
            return
        if isinstance(event, ProtocolNegotiated):
            self._h3 = H3Connection(self._quic, enable_webtransport=True)
            return
        for received in self._h3.handle_event(event):
            if isinstance(received, DatagramReceived):
                self.note(1)
            elif isinstance(received, HeadersReceived) and received.stream_id == self._session:
                self.established.set_result(None)

    def _is_own(self, stream_id: int) -> bool:
        return stream_id > self._session >= 0 and not stream_id & 3

    async def request(self, authority: str) -> None:
        """Request a session, and wait until it is established."""
        self._session = self._quic.get_next_available_stream_id()
        headers = [
            (b":method", b"CONNECT"),
            (b":protocol", b"webtransport"),
            (b":scheme", b"https"),
            (b":authority", authority.encode()),
            (b":path", b"/ping"),
        ]
        self._h3.send_headers(self._session, headers)
        self.transmit()
        await self.established

    def send(self, mode: Mode) -> None:
        if mode == "datagram":
            self._h3.send_datagram(self._session, _PING)
        elif mode == "stream":
            if self._stream is None:
                self._stream = self._h3.create_webtransport_stream(self._session)
            self._quic.send_stream_data(self._stream, _PING)
        else:
            stream = self._h3.create_webtransport_stream(self._session)
            self._quic.send_stream_data(stream, _PING, True)
        self.transmit()


class OurClient(Pinger):
    """Our own client's session, without its terminal."""

    def __init__(self, client: ClientConnection) -> None:
        super().__init__(SIZE, int(_LOST * 1e9))
        self.flush = client.endpoint.flush  # type: ignore[method-assign]
        self.note: Callable[[int], None]
        self._client = client
        self._seq = 0

    async def establish(self) -> None:
        """Wait for the session."""
        await establish(self._client, self, timeout=30)

    def send(self, mode: Mode) -> None:
        self._seq += 1
        self.ping(self._seq, mode)

    def answered(self, answer: Answer, size: int, arrival: int) -> None:
        self.note(1)


class Clients:
    """Sessions of one kind, and the commands."""

    def __init__(self, name: str, port: int) -> None:
        self._connect = self._connect_aioquic if name == "aioquic" else self._connect_ours
        self._engine = cast(Engine, name.rpartition("-")[2])
        self._port = port
        self._clients: list[tuple[Client, contextlib.AsyncExitStack]] = []
        self._loop = asyncio.get_running_loop()
        self._times: list[int] = []
        self._next = 0

    async def do(self, command: dict[str, Any]) -> dict[str, Any]:
        """Run a command."""
        name, count = command["do"], command["count"]
        self._times = []
        lost = 0
        began = time.perf_counter_ns()
        if name == "connect":
            for _ in range(count):
                start = time.perf_counter_ns()
                stack = contextlib.AsyncExitStack()
                self._clients.append((await self._connect(stack), stack))
                self._times.append(time.perf_counter_ns() - start)
        elif name == "disconnect":
            for _ in range(count):
                _, stack = self._clients.pop()
                await stack.aclose()
        else:
            clients = [client for client, _ in self._clients[: command.get("sessions")]]
            outstanding = command.get("outstanding", 1)
            pause = command.get("pause", 0) / 1e6
            lost = await self._ping(clients, command["mode"], outstanding, count, pause)
        wall = time.perf_counter_ns() - began
        times = sorted(self._times) or [0]
        return {
            "count": count,
            "lost": lost,
            "sent": 0,
            "received": 0,
            "wall": wall,
            "p50": times[len(times) // 2],
            "p99": times[len(times) * 99 // 100],
        }

    async def _ping(
        self, clients: list[Client], mode: Mode, outstanding: int, count: int, pause: float
    ) -> int:
        """Ping on each in turn. Returns how many are lost, which are sent again."""
        done = self._loop.create_future()
        sent: deque[int] = deque()
        unsent = unanswered = count
        lost = 0
        sending = False

        def send() -> None:
            nonlocal unsent, sending
            sending = False
            while unsent and len(sent) < outstanding:
                sent.append(time.perf_counter_ns())
                clients[self._next % len(clients)].send(mode)
                self._next += 1
                unsent -= 1

        def note(answers: int) -> None:
            nonlocal unanswered, sending
            now = time.perf_counter_ns()
            for _ in range(min(answers, len(sent))):
                self._times.append(now - sent.popleft())
                unanswered -= 1
            if not unanswered and not done.done():
                done.set_result(None)
            elif not sending:
                # After this turn of the event loop, with all answers of a batch.
                sending = True
                if pause:
                    self._loop.call_later(pause, send)
                else:
                    self._loop.call_soon(send)

        for client in clients:
            client.note = note
        send()
        async with asyncio.timeout(_GIVE_UP):
            while not done.done():
                left = unanswered
                await asyncio.wait([done], timeout=_LOST)
                if unanswered == left and sent:
                    lost += len(sent)
                    unsent += len(sent)
                    sent.clear()
                    send()
        return lost

    async def _connect_aioquic(self, stack: contextlib.AsyncExitStack) -> Client:
        configuration = QuicConfiguration(
            alpn_protocols=H3_ALPN,
            is_client=True,
            idle_timeout=IDLE_TIMEOUT,
            max_datagram_frame_size=65_535,
            server_name="localhost",
            verify_mode=ssl.CERT_NONE,
        )
        client = await stack.enter_async_context(
            aioquic_connect(
                HOST, self._port, configuration=configuration, create_protocol=AioquicClient
            )
        )
        assert isinstance(client, AioquicClient)
        await client.request(f"{HOST}:{self._port}")
        return client

    async def _connect_ours(self, stack: contextlib.AsyncExitStack) -> Client:
        connection = await open_connection(
            Target(HOST, self._port, "/ping", insecure=True),
            config=EndpointConfig(idle_timeout=IDLE_TIMEOUT, engine=self._engine),
            limits=Limits(),
            timeout=30,
            addresses=[(socket.AF_INET, (HOST, self._port))],
        )
        stack.push_async_callback(connection.close)
        client = OurClient(connection)
        await client.establish()
        return client


async def main(name: str, port: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    clients = Clients(name, port)
    if name != "aioquic":
        collect_garbage_seldom()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    print("ready", flush=True)
    async for line in reader:
        print(json.dumps(await clients.do(json.loads(line))), flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
