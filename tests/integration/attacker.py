"""A client that sends a server what no client means well with, over a real socket."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

from pingpong.webtransport.quic.config import EndpointConfig, ServerIdentity
from pingpong.webtransport.quic.endpoint import AioquicEndpoint
from tests.integration.services import PORT, Server
from tests.webtransport.quic.packets import packet
from tests.webtransport.raw import Raw

BUFFER = 4 << 20
PATIENCE = 30.0


def udp(server: Server) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    sock.connect((server.address, PORT))
    return sock


class Attacker:
    """A connection with a session, whose packets can have any frames."""

    def __init__(self, server: Server) -> None:
        self.raw = Raw()
        self._sock = udp(server)
        self._sock.setblocking(False)
        self._address = (server.address, PORT)
        self._end = AioquicEndpoint(EndpointConfig(), lambda: None)
        identity = ServerIdentity(server.address, insecure=True)
        self._end.connect(self._address, identity, self.raw.attach, time.monotonic())
        self.run(lambda: self.raw.data)
        self.raw.send_settings()
        self.session = self.raw.request()
        self.run(lambda: self.session in self.raw.data)
        assert self.raw.status(self.session) == 200

    def run(self, until: Callable[[], object], seconds: float = PATIENCE) -> bool:
        """Be an honest client until a condition holds; whether it does."""
        end = time.monotonic() + seconds
        while not until():
            if time.monotonic() > end:
                return False
            self.exchange()
            time.sleep(0.001)
        return True

    def exchange(self) -> None:
        """Take in what has come, and send what is to be sent."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                data = self._sock.recv(65_535)
                now = time.monotonic()
                self._end.receive(data, self._address, now, 0)
        now = time.monotonic()
        if (timer := self._end.next_timer()) is not None and timer <= now:
            self._end.handle_timers(now)
        for _, packets in self._end.transmit(now):
            for data in packets:
                self._send(data)

    def attack(self, payload: bytes) -> int:
        """Send a packet with these frames; its size, 0 where the connection has ended."""
        if self.raw.closed is not None:
            return 0
        data = packet(self.raw.quic._quic, payload)
        self._send(data)
        return len(data)

    def close(self) -> None:
        self.raw.quic.close(0x100)
        self.exchange()
        self._sock.close()

    def _send(self, data: bytes) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self._sock.send(data)
