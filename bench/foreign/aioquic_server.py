"""The smallest WebTransport server on aioquic's asyncio server and H3Connection.

    aioquic_server.py PORT CERTIFICATE KEY

It prints `ready`, and answers pings on any path.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DatagramReceived, HeadersReceived, WebTransportStreamDataReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent


class Server(QuicConnectionProtocol):
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
                headers = [(b":status", b"200"), (b"sec-webtransport-http3-draft", b"draft02")]
                self._h3.send_headers(received.stream_id, headers)


async def main(port: int, certificate: str, key: str) -> None:
    configuration = QuicConfiguration(
        alpn_protocols=H3_ALPN,
        is_client=False,
        idle_timeout=600,
        max_datagram_frame_size=65_535,
    )
    configuration.load_cert_chain(certificate, key)
    await serve("127.0.0.1", port, configuration=configuration, create_protocol=Server)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), *sys.argv[2:]))
