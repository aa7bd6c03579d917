"""The servers that are compared: aioquic's own, the bare engine with our pump, and ours.

All have the same certificate, windows and event loop, and answers have the size of the ping. Only
ours parses pings; the others replace "ping" by "pong". Ours and the bare engine use the garbage
collection of `pingpong serve`, aioquic's uses Python's default.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve as aioquic_serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DatagramReceived, HeadersReceived, WebTransportStreamDataReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent

from pingpong.lifecycle import collect_garbage_seldom
from pingpong.ping import PROTOCOL
from pingpong.server.workers.endpoint import endpoint_config
from pingpong.server.workers.worker import Worker
from pingpong.settings import ServeSettings
from pingpong.webtransport.asyncio import EngineChoice
from pingpong.webtransport.asyncio.endpoint import UdpEndpoint
from pingpong.webtransport.certificates import Certificate, parse_certificate
from pingpong.webtransport.quic.engine import QuicConnection
from pingpong.webtransport.udp.sockets import bind_udp

HOST = "127.0.0.1"
IDLE_TIMEOUT = 600.0


def read_certificate(file: Path) -> Certificate:
    """Read a file that holds both a certificate and its key."""
    pem = file.read_bytes()
    return parse_certificate(pem, pem, file, file)


def serve_settings(
    certificate: Path, max_sessions: int, engine: EngineChoice = "auto"
) -> ServeSettings:
    """The settings of our server: the defaults, except where a benchmark needs others."""
    return ServeSettings(
        bind_host=HOST,
        bind_port=0,
        tls_cert_file=certificate,
        tls_key_file=certificate,
        idle_timeout=IDLE_TIMEOUT,
        max_sessions=max_sessions,
        rate_limit=1_000_000,  # counted, but never reached
        self_ping_interval=0,
        engine=engine,
    )


class AioquicServer(QuicConnectionProtocol):
    """The smallest WebTransport server on aioquic's asyncio server and H3Connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._h3: H3Connection

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self._h3 = H3Connection(self._quic, enable_webtransport=True)
            return
        for received in self._h3.handle_event(event):
            if isinstance(received, DatagramReceived):
                answer = received.data.replace(b"ping", b"pong", 1)
                self._h3.send_datagram(received.stream_id, answer)
            elif isinstance(received, WebTransportStreamDataReceived):
                answer = received.data.replace(b"ping", b"pong")
                self._quic.send_stream_data(received.stream_id, answer, received.stream_ended)
            elif isinstance(received, HeadersReceived):
                protocol = f'"{PROTOCOL}"'.encode()
                headers = [
                    (b":status", b"200"),
                    (b"sec-webtransport-http3-draft", b"draft02"),
                    (b"wt-protocol", protocol),
                ]
                self._h3.send_headers(received.stream_id, headers)


class BareServer:
    """Answers on raw QUIC: the minimum cost with this engine and pump."""

    __slots__ = ("_quic",)

    def __init__(self, quic: QuicConnection) -> None:
        self._quic = quic

    def buffered_bytes(self) -> int:
        return 0

    def handshake_completed(self) -> None: ...

    def stream_data_received(
        self, stream_id: int, data: bytes, end_stream: bool, arrival: int
    ) -> None:
        self._quic.send_stream(stream_id, data.replace(b"ping", b"pong"), end_stream)

    def stream_reset_received(self, stream_id: int, code: int, final_size: int) -> None: ...

    def stop_sending_received(self, stream_id: int, code: int) -> None: ...

    def stream_writable(self, stream_id: int) -> None: ...

    def stream_credit_received(self) -> None: ...

    def datagram_received(self, data: bytes, arrival: int) -> None:
        self._quic.send_datagram(data.replace(b"ping", b"pong", 1))

    def deadline_passed(self, now: float) -> None: ...

    def connection_terminated(
        self, code: int, reason: str, by_peer: bool, is_application: bool, timed_out: bool
    ) -> None: ...


async def serve_aioquic(
    certificate: Path, max_sessions: int, engine: EngineChoice
) -> tuple[int, object]:
    """Start the server. Returns its port, and an object to keep alive."""
    windows = endpoint_config(
        serve_settings(certificate, max_sessions), read_certificate(certificate)
    ).windows
    configuration = QuicConfiguration(
        alpn_protocols=H3_ALPN,
        is_client=False,
        idle_timeout=IDLE_TIMEOUT,
        max_datagram_frame_size=65_535,
        max_data=windows.connection,
        max_stream_data=windows.stream,
    )
    configuration.load_cert_chain(certificate, certificate)
    server = await aioquic_serve(
        HOST, 0, configuration=configuration, create_protocol=AioquicServer
    )
    assert server._transport is not None
    return server._transport.get_extra_info("sockname")[1], server


async def serve_bare(
    certificate: Path, max_sessions: int, engine: EngineChoice
) -> tuple[int, object]:
    """Start the server. Returns its port, and an object to keep alive."""
    settings = serve_settings(certificate, max_sessions, engine)
    config = endpoint_config(settings, read_certificate(certificate))
    endpoint = UdpEndpoint(bind_udp(HOST, 0), config, BareServer)
    collect_garbage_seldom()
    return int(endpoint.local_address[1]), endpoint


async def serve_ours(
    certificate: Path, max_sessions: int, engine: EngineChoice
) -> tuple[int, object]:
    """Start the server. Returns its port, and an object to keep alive."""
    settings = serve_settings(certificate, max_sessions, engine)
    worker = Worker(settings, read_certificate(certificate))
    await worker.start()
    collect_garbage_seldom()
    return worker.port, worker


SERVERS: dict[str, Callable[[Path, int, EngineChoice], Awaitable[tuple[int, object]]]] = {
    "aioquic": serve_aioquic,
    "bare": serve_bare,
    "ours": serve_ours,
}
