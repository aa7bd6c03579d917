"""The clients that are compared: aioquic's asyncio client, the bare engine, and ours.

Each session has its own connection and socket. Each ping is sent at once, in its own packet, as a
client does that measures send times. Our client encodes, matches and counts pings; the others send
constant bytes and count answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Protocol

from aioquic.asyncio.client import connect as aioquic_connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DatagramReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent, StreamDataReceived

from pingpong.link.pinger import Pinger, SendError
from pingpong.ping import DEFAULT_SIZE, PROTOCOL, Mode, encode_ping, frame
from pingpong.statistics import Answer
from pingpong.webtransport.asyncio import (
    ClientConnection,
    EndpointConfig,
    Limits,
    Target,
    establish,
    open_connection,
)
from pingpong.webtransport.asyncio.endpoint import UdpEndpoint
from pingpong.webtransport.quic.config import ServerIdentity, Windows
from pingpong.webtransport.quic.engine import QuicConnection

from .servers import HOST, IDLE_TIMEOUT

MODES: tuple[Mode, ...] = ("datagram", "stream", "streams")

_MESSAGE = encode_ping(1, 1, DEFAULT_SIZE)
_FRAMED = frame(_MESSAGE)
_PING_TIMEOUT = 1_000_000_000
_LOST = 1.0
"""Seconds without any answer after which waiting pings are lost."""
_GIVE_UP = 30.0


class Client(Protocol):
    """A session that pings; `answered` is called with the number of answers."""

    def begin(self, mode: Mode) -> None:
        """Use this mode from now on."""

    def send(self) -> bool:
        """Send a ping now; false if the server allows no more streams at the moment."""

    def end(self) -> None:
        """The measurement is over."""


Answered = Callable[[int], None]


class AioquicClient(QuicConnectionProtocol):
    """The smallest client on aioquic's asyncio client and H3Connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.answered: Answered
        self.established: asyncio.Future[None] = self._loop.create_future()
        self._h3: H3Connection
        self._mode: Mode = "datagram"
        self._session = -1
        self._stream: int | None = None
        self._received = 0

    def quic_event_received(self, event: QuicEvent) -> None:
        # H3Connection would parse the answers on these streams as HTTP/3 frames.
        if isinstance(event, StreamDataReceived) and self._is_own(event.stream_id):
            if event.stream_id == self._stream:
                # An answer may come in two parts.
                before, self._received = self._received, self._received + len(event.data)
                self.answered(self._received // len(_FRAMED) - before // len(_FRAMED))
            elif event.end_stream:
                self.answered(1)
            return
        if isinstance(event, ProtocolNegotiated):
            self._h3 = H3Connection(self._quic, enable_webtransport=True)
            return
        for received in self._h3.handle_event(event):
            if isinstance(received, DatagramReceived):
                self.answered(1)
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
            (b"wt-available-protocols", f'"{PROTOCOL}"'.encode()),
        ]
        self._h3.send_headers(self._session, headers)
        self.transmit()
        await self.established

    def begin(self, mode: Mode) -> None:
        self._mode = mode

    def send(self) -> bool:
        if self._mode == "datagram":
            self._h3.send_datagram(self._session, _MESSAGE)
        elif self._mode == "stream":
            if self._stream is None:
                self._stream = self._h3.create_webtransport_stream(self._session)
            self._quic.send_stream_data(self._stream, _FRAMED)
        else:
            stream = self._h3.create_webtransport_stream(self._session)
            self._quic.send_stream_data(stream, _FRAMED, True)
        self.transmit()
        return True

    def end(self) -> None: ...


class BareClient:
    """Pings on raw QUIC."""

    __slots__ = ("_answered", "_endpoint", "_mode", "_quic", "_ready", "_received", "_stream")

    def __init__(self, endpoint: UdpEndpoint, answered: Answered) -> None:
        self._endpoint = endpoint
        self._answered = answered
        self._mode: Mode = "datagram"
        self._quic: QuicConnection
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._received = 0
        self._stream: int | None = None

    async def connect(self, port: int) -> None:
        """Wait for the handshake."""

        def attach(quic: QuicConnection) -> BareClient:
            self._quic = quic
            return self

        self._endpoint.connect((HOST, port), ServerIdentity(HOST, insecure=True), attach)
        await self._ready

    def begin(self, mode: Mode) -> None:
        self._mode = mode

    def send(self) -> bool:
        quic = self._quic
        if self._mode == "datagram":
            quic.send_datagram(_MESSAGE)
        elif self._mode == "stream":
            if self._stream is None:
                self._stream = quic.open_stream(b"", False)
            quic.send_stream(self._stream, _FRAMED)
        elif quic.can_open_stream(False):
            quic.send_stream(quic.open_stream(b"", False), _FRAMED, True)
        else:
            return False
        self._endpoint.flush()
        return True

    def end(self) -> None: ...

    def buffered_bytes(self) -> int:
        return 0

    def handshake_completed(self) -> None:
        self._ready.set_result(None)

    def stream_data_received(
        self, stream_id: int, data: bytes, end_stream: bool, arrival: int
    ) -> None:
        if stream_id == self._stream:
            before, self._received = self._received, self._received + len(data)
            self._answered(self._received // len(_FRAMED) - before // len(_FRAMED))
        elif end_stream:
            self._answered(1)

    def stream_reset_received(self, stream_id: int, code: int, final_size: int) -> None: ...

    def stop_sending_received(self, stream_id: int, code: int) -> None: ...

    def stream_writable(self, stream_id: int) -> None: ...

    def stream_credit_received(self) -> None: ...

    def datagram_received(self, data: bytes, arrival: int) -> None:
        self._answered(1)

    def deadline_passed(self, now: float) -> None: ...

    def connection_terminated(
        self, code: int, reason: str, by_peer: bool, is_application: bool, timed_out: bool
    ) -> None:
        if not self._ready.done():
            self._ready.set_exception(ConnectionError(reason))


class _Pinger(Pinger):
    def __init__(self, client: ClientConnection, answered: Answered) -> None:
        super().__init__(DEFAULT_SIZE, _PING_TIMEOUT)
        self.flush = client.endpoint.flush  # type: ignore[method-assign]
        self._note = answered

    def answered(self, answer: Answer, size: int, at_ns: int) -> None:
        self._note(1)


class OurClient:
    """Our own client's handler, without its terminal."""

    __slots__ = ("_client", "_mode", "_pinger", "_seq")

    def __init__(self, client: ClientConnection, answered: Answered) -> None:
        self._client = client
        self._seq = 0
        self._mode: Mode = "datagram"
        self._pinger = _Pinger(client, answered)

    async def establish(self) -> None:
        """Wait for the session."""
        await establish(self._client, self._pinger, protocols=(PROTOCOL,), timeout=30)
        assert self._pinger.is_v1

    def begin(self, mode: Mode) -> None:
        self._mode = mode

    def send(self) -> bool:
        self._seq += 1
        try:
            self._pinger.ping(self._seq, self._mode)
        except SendError:
            return False
        return True

    def end(self) -> None:
        self._pinger.statistics.expire(time.monotonic_ns())


class Clients:
    """Sessions of one kind, which ping round-robin."""

    def __init__(self, kind: str) -> None:
        self.clients: list[Client] = []
        self._kind = kind
        self.port = 0
        self._stack = contextlib.AsyncExitStack()
        self._loop = asyncio.get_running_loop()
        self._connections: list[ClientConnection] = []
        self._config = EndpointConfig(idle_timeout=IDLE_TIMEOUT, windows=Windows(streams_uni=1024))
        self._next = 0
        self._may_send = 0
        self._unsent = 0
        self._unanswered = 0
        self._sending = False
        self._done: asyncio.Future[None] | None = None
        self.lost = 0

    async def connect(self, count: int, at_once: int) -> None:
        """Establish `count` more sessions, each on its own connection."""
        begin = {
            "aioquic": self._connect_aioquic,
            "bare": self._connect_bare,
            "ours": self._connect_ours,
        }[self._kind]
        left = iter(range(count))

        async def work() -> None:
            for _ in left:
                self.clients.append(await begin())

        await asyncio.gather(*(work() for _ in range(at_once)))

    async def add_sessions(self, count: int) -> None:
        """Ours: establish `count` more sessions on the first connection."""
        first = self._connections[0]
        for _ in range(count):
            await OurClient(first, self.answered).establish()

    async def ping(self, mode: Mode, outstanding: int, count: int) -> None:
        """Send `count` pings, with at most `outstanding` unanswered at a time.

        Lost pings are counted and sent again.
        """
        for client in self.clients:
            client.begin(mode)
        self._may_send, self._unsent, self._unanswered = outstanding, count, count
        self._done = self._loop.create_future()
        self._send()
        async with asyncio.timeout(_GIVE_UP):
            while not self._done.done():
                left = self._unanswered
                await asyncio.wait([self._done], timeout=_LOST)
                if self._unanswered == left and not self._done.done():
                    lost = outstanding - self._may_send
                    self.lost += lost
                    self._unsent += lost
                    self._may_send = outstanding
                    self._send()
        for client in self.clients:
            client.end()

    def answered(self, count: int) -> None:
        """Answers arrived: send as many pings, after this turn of the event loop."""
        self._unanswered -= count
        self._may_send += count
        if not self._sending:
            self._sending = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._sending = False
        while self._may_send and self._unsent:
            if not self.clients[self._next].send():
                self._sending = True
                self._loop.call_later(0.001, self._send)
                return
            self._next = (self._next + 1) % len(self.clients)
            self._may_send -= 1
            self._unsent -= 1
        if self._unanswered <= 0 and self._done is not None and not self._done.done():
            self._done.set_result(None)

    async def _connect_aioquic(self) -> Client:
        configuration = QuicConfiguration(
            alpn_protocols=H3_ALPN,
            is_client=True,
            idle_timeout=IDLE_TIMEOUT,
            max_datagram_frame_size=65_535,
            max_data=self._config.windows.connection,
            max_stream_data=self._config.windows.stream,
            server_name=HOST,
            verify_mode=ssl.CERT_NONE,
        )
        client = await self._stack.enter_async_context(
            aioquic_connect(
                HOST, self.port, configuration=configuration, create_protocol=AioquicClient
            )
        )
        assert isinstance(client, AioquicClient)
        client.answered = self.answered
        await client.request(f"{HOST}:{self.port}")
        return client

    async def _connect_bare(self) -> Client:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.connect((HOST, self.port))
        client = BareClient(UdpEndpoint(sock, self._config), self.answered)
        await client.connect(self.port)
        return client

    async def _connect_ours(self) -> Client:
        target = Target(HOST, self.port, "/ping", insecure=True)
        connection = await open_connection(
            target,
            config=self._config,
            limits=Limits(),
            timeout=30,
            addresses=[(socket.AF_INET, (HOST, self.port))],
        )
        self._connections.append(connection)
        client = OurClient(connection, self.answered)
        await client.establish()
        return client
