"""Fault: clients by the hundred that connect, keep their connections alive, and want nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter

from pingpong.webtransport.asyncio.endpoint import UdpEndpoint
from pingpong.webtransport.errors import ErrorCode
from pingpong.webtransport.limits import Limits
from pingpong.webtransport.quic.config import EndpointConfig, ServerIdentity
from pingpong.webtransport.quic.engine import Address
from tests.integration.services import PORT, Ping, ping, serving
from tests.support.engines import on_both
from tests.webtransport.raw import Raw

COUNT = 200
SILENCE = Limits().header_timeout
ALIVE = 2.0
"""Seconds between the PINGs of a client, far below the idle timeout."""

_P = "pingpong_server_"


class Silent(Raw):
    """Half of them send their settings, and begin a request that they do not finish."""

    def __init__(self, *, speaks: bool) -> None:
        super().__init__()
        self.speaks = speaks

    def handshake_completed(self) -> None:
        if self.speaks:
            self.send_settings()
            self.open(b"\x01\x40")


async def stay(address: Address) -> list[Silent]:
    """Connect, and keep every connection alive until the server has closed it."""
    clients = [Silent(speaks=bool(number % 2)) for number in range(COUNT)]
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    endpoint = UdpEndpoint(sock, EndpointConfig(engine="aioquic"))
    with contextlib.closing(endpoint):
        for client in clients:
            endpoint.connect(address, ServerIdentity("localhost", insecure=True), client.attach)
        async with asyncio.timeout(6 * SILENCE):
            while any(client.closed is None for client in clients):
                await asyncio.sleep(ALIVE)
                for client in clients:
                    client.quic.ping()
                endpoint.flush()
    return clients


@on_both
def test_silent_clients_are_gone_in_the_end_and_others_see_nothing_of_it() -> None:
    with serving(self_ping_interval=0) as server, Ping(server, "-i0.05") as session:
        session.wait_replies(20)
        clients = asyncio.run(stay((server.address, PORT)))
        codes = Counter((client.speaks, client.closed.code) for client in clients if client.closed)
        assert codes == {
            (False, ErrorCode.H3_MISSING_SETTINGS): COUNT // 2,
            (True, ErrorCode.H3_NO_ERROR): COUNT // 2,
        }
        resets = [client.resets for client in clients if client.speaks]
        assert resets == [{0: ErrorCode.H3_REQUEST_INCOMPLETE}] * (COUNT // 2)
        metrics = server.wait_metrics(
            lambda found: found.total(f"{_P}connections_active") == 1, "the others are gone"
        )
        assert metrics.total(f"{_P}handshakes_total", result="completed") == COUNT + 1
        assert metrics.total(f"{_P}protocol_errors_total") == COUNT
        assert metrics.total(f"{_P}connections_unused_total") == COUNT // 2
        # Who comes now gets in, and who was there has missed nothing.
        assert ping(server, "-c5", "-i0.02")["received"] == 5
        session.popen.terminate()
        report = session.report()
        assert report["sent"] > SILENCE / 0.05
        assert report["lost"] + report["send_errors"] == 0
        assert report["connections"] == 1
