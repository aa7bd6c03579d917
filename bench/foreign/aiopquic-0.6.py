"""The smallest WebTransport server on aiopquic.

    aiopquic-0.6.py PORT CERTIFICATE KEY

It prints `ready`, and answers pings on /ping.
"""

# mypy: ignore-errors
# Only its own environment has what it imports.

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from aiopquic.asyncio.webtransport import serve_webtransport
from aiopquic.quic.configuration import QuicConfiguration
from aiopquic.quic.events import (
    WebTransportDatagramReceived,
    WebTransportNewStream,
    WebTransportStreamDataReceived,
)


async def answer(session: Any) -> None:
    streams: set[asyncio.Future[None]] = set()
    async for event in session.events():
        if isinstance(event, WebTransportDatagramReceived):
            session.send_datagram_frame(bytes(event.data).replace(b"ping", b"pong", 1))
        elif isinstance(event, WebTransportNewStream):
            stream = asyncio.ensure_future(answer_stream(session, event.stream_id))
            streams.add(stream)
            stream.add_done_callback(streams.discard)


async def answer_stream(session: Any, stream_id: int) -> None:
    async for event in session.receive_stream_data(stream_id):
        if isinstance(event, WebTransportStreamDataReceived):
            data = bytes(event.data).replace(b"ping", b"pong")
            session.send_stream_data(stream_id, data, event.end_stream)


async def main(port: int, certificate: str, key: str) -> None:
    server = await serve_webtransport(
        "127.0.0.1",
        port,
        "/ping",
        handler=answer,
        cert_file=certificate,
        key_file=key,
        configuration=QuicConfiguration(is_client=False, idle_timeout=600, max_connections=1000),
    )
    print("ready", flush=True)
    await asyncio.Event().wait()
    del server


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), *sys.argv[2:]))
