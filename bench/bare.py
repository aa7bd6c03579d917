"""A server that is only our socket pump and a QUIC engine, or only the pump.

    python -m bench.bare aioquic|quinn|none PORT CERTIFICATE

It prints `ready`, and answers pings on raw QUIC (or UDP): the least that an answer costs.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, cast

import uvloop

from pingpong.lifecycle import collect_garbage_seldom
from pingpong.webtransport.asyncio import EndpointConfig
from pingpong.webtransport.asyncio.endpoint import UdpEndpoint
from pingpong.webtransport.certificates import parse_certificate
from pingpong.webtransport.quic.config import Engine
from pingpong.webtransport.quic.engine import QuicConnection
from pingpong.webtransport.udp.pump import Pump
from pingpong.webtransport.udp.sockets import bind_udp

HOST = "127.0.0.1"


class BareServer:
    """Answers on raw QUIC."""

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


class UdpServer:
    """Answers on UDP, when a batch of packets is received."""

    def __init__(self, port: int) -> None:
        self._answers: list[tuple[bytes, Any]] = []
        self._pump = Pump(
            bind_udp(HOST, port),
            asyncio.get_running_loop(),
            receive=self._receive,
            batch_received=self._batch_received,
        )

    def _receive(self, data: bytes, address: Any, arrival: int) -> None:
        self._answers.append((data.replace(b"ping", b"pong", 1), address))

    def _batch_received(self) -> None:
        for data, address in self._answers:
            self._pump.send([data], address)
        self._answers.clear()


async def main(engine: str, port: int, certificate: Path) -> None:
    kept: object
    if engine == "none":
        kept = UdpServer(port)
    else:
        pem = certificate.read_bytes()
        config = EndpointConfig(
            certificate=parse_certificate(pem, pem, certificate, certificate),
            engine=cast(Engine, engine),
            idle_timeout=600,
        )
        kept = UdpEndpoint(bind_udp(HOST, port), config, BareServer)
    collect_garbage_seldom()
    print("ready", flush=True)
    await asyncio.Event().wait()
    del kept


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
