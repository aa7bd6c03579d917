"""aioquic's own H3Connection, as client and as server.

It reads the answer on a bidirectional stream that it opened itself as HTTP frames, so that what
comes back on one can be seen below it only; everything else is its own doing.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aioquic.asyncio.client import connect as quic_connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve as quic_serve
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import (
    DatagramReceived,
    H3Event,
    HeadersReceived,
    WebTransportStreamDataReceived,
)
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import (
    ConnectionTerminated,
    ProtocolNegotiated,
    QuicEvent,
    StreamDataReceived,
)

from pingpong.webtransport.asyncio import Cause, ConnectError, connect
from pingpong.webtransport.certificates import Certificate
from tests.interop import reflector
from tests.support.engines import on_each_engine

pytestmark = [pytest.mark.interop, *on_each_engine]

LARGE = bytes(range(256)) * 2048


class Peer(QuicConnectionProtocol):
    """An HTTP/3 endpoint: `whole` are the streams that ended, in the order in which they did."""

    web_transport = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.http: H3Connection
        self.headers: asyncio.Queue[HeadersReceived] = asyncio.Queue()
        self.datagrams: asyncio.Queue[bytes] = asyncio.Queue()
        self.whole: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self.answers: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self.terminated: asyncio.Queue[ConnectionTerminated] = asyncio.Queue()
        self._own: set[int] = set()
        self._data: dict[int, bytes] = {}

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic, enable_webtransport=self.web_transport)
        elif isinstance(event, ConnectionTerminated):
            self.terminated.put_nowait(event)
        if isinstance(event, StreamDataReceived) and event.stream_id in self._own:
            self._collect(event.stream_id, event.data, event.end_stream, self.answers)
        elif hasattr(self, "http"):
            for received in self.http.handle_event(event):
                self.http_event_received(received)

    def http_event_received(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived):
            self.headers.put_nowait(event)
        elif isinstance(event, DatagramReceived):
            self.datagrams.put_nowait(event.data)
        elif isinstance(event, WebTransportStreamDataReceived):
            self._collect(event.stream_id, event.data, event.stream_ended, self.whole)

    def open(self, session_id: int, data: bytes, *, unidirectional: bool = False) -> int:
        """Open a stream, with all that is ever sent on it."""
        stream_id = self.http.create_webtransport_stream(session_id, unidirectional)
        if not unidirectional:
            self._own.add(stream_id)
        self.send(stream_id, data)
        return stream_id

    def send(self, stream_id: int, data: bytes) -> None:
        """Send the last bytes of a stream."""
        self._quic.send_stream_data(stream_id, data, end_stream=True)
        self.transmit()

    def datagram(self, session_id: int, data: bytes) -> None:
        self.http.send_datagram(session_id, data)
        self.transmit()

    async def request(self, path: str = "/ping") -> tuple[int, bytes]:
        """Ask for a session; returns its id and the status of the answer."""
        session_id = self._quic.get_next_available_stream_id()
        self.http.send_headers(
            session_id,
            [
                (b":method", b"CONNECT"),
                (b":scheme", b"https"),
                (b":authority", b"localhost"),
                (b":path", path.encode()),
                (b":protocol", b"webtransport"),
            ],
        )
        self.transmit()
        answer = await self.headers.get()
        assert answer.stream_id == session_id
        return session_id, dict(answer.headers)[b":status"]

    def _collect(
        self, stream_id: int, data: bytes, ended: bool, done: asyncio.Queue[tuple[int, bytes]]
    ) -> None:
        self._data[stream_id] = self._data.get(stream_id, b"") + data
        if ended:
            done.put_nowait((stream_id, self._data.pop(stream_id)))


class ReflectingPeer(Peer):
    """A server that does what `reflector` does, for the streams that it can."""

    def http_event_received(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived):
            headers = dict(event.headers)
            found = headers[b":path"] == b"/ping"
            status = b"200" if found and headers[b":protocol"] == b"webtransport" else b"404"
            self.http.send_headers(event.stream_id, [(b":status", status)], not found)
        elif isinstance(event, DatagramReceived):
            self.http.send_datagram(event.stream_id, reflector.answer(event.data))
        elif isinstance(event, WebTransportStreamDataReceived):
            self._reflect(event)
        self.transmit()

    def _reflect(self, event: WebTransportStreamDataReceived) -> None:
        self._collect(event.stream_id, event.data, event.stream_ended, self.whole)
        while not self.whole.empty():
            stream_id, data = self.whole.get_nowait()
            if data == b"open bidirectional":
                self.open(event.session_id, b"hello")
            elif stream_id & 2:
                self.open(event.session_id, reflector.answer(data), unidirectional=True)
            else:
                self.send(stream_id, reflector.answer(data))


class PlainPeer(Peer):
    """A server of HTTP/3 without WebTransport."""

    web_transport = False


def configuration(**options: Any) -> QuicConfiguration:
    return QuicConfiguration(alpn_protocols=["h3"], max_datagram_frame_size=65_536, **options)


@asynccontextmanager
async def client(port: int) -> AsyncIterator[Peer]:
    async with quic_connect(
        "127.0.0.1",
        port,
        configuration=configuration(verify_mode=ssl.CERT_NONE),
        create_protocol=Peer,
    ) as peer:
        assert isinstance(peer, Peer)
        yield peer


@asynccontextmanager
async def server(kind: type[Peer], files: tuple[Path, Path]) -> AsyncIterator[str]:
    config = configuration(is_client=False)
    config.load_cert_chain(*files)
    listening = await quic_serve("127.0.0.1", 0, configuration=config, create_protocol=kind)
    try:
        assert listening._transport is not None
        port = listening._transport.get_extra_info("sockname")[1]
        yield f"https://127.0.0.1:{port}"
    finally:
        listening.close()


class TestAsClient:
    async def test_session_and_its_end(self, certificate: Certificate) -> None:
        async with (
            reflector.reflecting(certificate) as (listening, reflecting),
            client(listening.port) as peer,
        ):
            session_id, status = await peer.request()
            assert (session_id, status) == (0, b"200")
            peer.send(session_id, b"")
            closed = await reflecting.ended.get()
            assert (closed.code, closed.reason, closed.by_peer) == (0, "", True)

    async def test_unknown_path(self, certificate: Certificate) -> None:
        async with (
            reflector.reflecting(certificate) as (listening, _),
            client(listening.port) as peer,
        ):
            assert (await peer.request("/nothing-here"))[1] == b"404"

    async def test_datagrams(self, certificate: Certificate) -> None:
        async with (
            reflector.reflecting(certificate) as (listening, _),
            client(listening.port) as peer,
        ):
            session_id, _ = await peer.request()
            peer.datagram(session_id, b"ping datagram")
            assert await peer.datagrams.get() == b"pong datagram"

    @pytest.mark.parametrize("data", [b"ping stream", LARGE], ids=["small", "large"])
    async def test_bidirectional(self, certificate: Certificate, data: bytes) -> None:
        async with (
            reflector.reflecting(certificate) as (listening, _),
            client(listening.port) as peer,
        ):
            session_id, _ = await peer.request()
            stream_id = peer.open(session_id, data)
            assert await peer.answers.get() == (stream_id, reflector.answer(data))

    @pytest.mark.parametrize("data", [b"ping uni", LARGE], ids=["small", "large"])
    async def test_unidirectional(self, certificate: Certificate, data: bytes) -> None:
        async with (
            reflector.reflecting(certificate) as (listening, _),
            client(listening.port) as peer,
        ):
            session_id, _ = await peer.request()
            peer.open(session_id, data, unidirectional=True)
            stream_id, received = await peer.whole.get()
            assert stream_id & 3 == 3
            assert received == reflector.answer(data)

    async def test_bidirectional_of_the_server(self, certificate: Certificate) -> None:
        async with (
            reflector.reflecting(certificate) as (listening, _),
            client(listening.port) as peer,
        ):
            session_id, _ = await peer.request()
            peer.open(session_id, b"open bidirectional", unidirectional=True)
            stream_id, received = await peer.whole.get()
            assert stream_id & 3 == 1
            assert received == b"hello"
            peer.send(stream_id, b"an answer")
            assert (await peer.whole.get())[1] == b"an answer"

    async def test_many_streams(self, certificate: Certificate) -> None:
        async with (
            reflector.reflecting(certificate) as (listening, _),
            client(listening.port) as peer,
        ):
            session_id, _ = await peer.request()
            for number in range(300):
                stream_id = peer.open(session_id, b"%d" % number)
                assert await peer.answers.get() == (stream_id, b"%d" % number)

    async def test_sessions_one_after_the_other(self, certificate: Certificate) -> None:
        async with (
            reflector.reflecting(certificate) as (listening, reflecting),
            client(listening.port) as peer,
        ):
            for expected in (0, 4, 8):
                session_id, status = await peer.request()
                assert (session_id, status) == (expected, b"200")
                peer.send(session_id, b"")
                await reflecting.ended.get()

    async def test_a_plain_request_is_answered_as_one(self, certificate: Certificate) -> None:
        async with (
            reflector.reflecting(certificate) as (listening, _),
            client(listening.port) as peer,
        ):
            get = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/")]
            peer.http.send_headers(0, [*get, (b":authority", b"localhost")], end_stream=True)
            peer.transmit()
            answer = dict((await peer.headers.get()).headers)
            assert (answer[b":status"], answer[b"allow"]) == (b"405", b"CONNECT")


class TestAsServer:
    @pytest.mark.parametrize(
        "mode", ["datagram", "bidirectional", "unidirectional", "large", "many"]
    )
    async def test_modes(
        self, certificate: Certificate, certificate_files: tuple[Path, Path], mode: str
    ) -> None:
        async with server(ReflectingPeer, certificate_files) as url:
            session = await connect(f"{url}/ping", certificate_hash=certificate.sha256)
            async with session:
                assert str(session.draft) == "draft-02"
                await getattr(reflector, mode)(session)

    async def test_bidirectional_of_the_server(
        self, certificate: Certificate, certificate_files: tuple[Path, Path]
    ) -> None:
        async with server(ReflectingPeer, certificate_files) as url:
            session = await connect(f"{url}/ping", certificate_hash=certificate.sha256)
            async with session:
                await reflector.send_whole(session, b"open bidirectional")
                stream = await session.incoming_bidirectional_streams.get()
                assert await stream.readable.read_all() == b"hello"

    async def test_unknown_path(
        self, certificate: Certificate, certificate_files: tuple[Path, Path]
    ) -> None:
        async with server(ReflectingPeer, certificate_files) as url:
            with pytest.raises(ConnectError) as caught:
                await connect(f"{url}/other", certificate_hash=certificate.sha256)
        assert (caught.value.cause, caught.value.status) == (Cause.STATUS, 404)

    async def test_without_webtransport(
        self, certificate: Certificate, certificate_files: tuple[Path, Path]
    ) -> None:
        async with server(PlainPeer, certificate_files) as url:
            with pytest.raises(ConnectError, match="no WebTransport on that server") as caught:
                await connect(f"{url}/ping", certificate_hash=certificate.sha256)
        assert caught.value.cause is Cause.NO_WEBTRANSPORT
