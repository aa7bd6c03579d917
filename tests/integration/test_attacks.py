"""Attacks on a real server, each beside a healthy session: what a hostile byte costs.

Times are CPU's, and compared with what an honest byte costs in the same run: a machine that is
busy with other tests changes neither.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

import pytest

from tests.integration.attacker import Attacker, udp
from tests.integration.services import Ping, Server, ping, serving
from tests.support.engines import ENGINES, on_both
from tests.webtransport.quic.packets import Stranger, ack_frame, crypto_frame, numbers, stream_frame

PACKETS = 300
ROOM = 1_150
HONEST_PINGS = 1_500
FACTOR = 4
"""A hostile byte may cost so many times what an honest one costs."""
PAUSE = 0.05
"""Seconds that the healthy session may wait for an answer at most."""
MEGABYTE = 1 << 20
_P = "pingpong_server_"


def honest_cost(server: Server) -> float:
    """Seconds of CPU for each byte of a ping that a server receives."""
    before = server.cpu()
    report = ping(server, "-f", f"-c{HONEST_PINGS}")
    assert report["received"] == HONEST_PINGS
    # 64 bytes, with what QUIC and UDP's payload need around them.
    return (server.cpu() - before) / (HONEST_PINGS * 100)


@pytest.fixture(scope="module", params=ENGINES)
def attacked(request: pytest.FixtureRequest) -> Iterator[tuple[Server, float]]:
    """A server that one connection after another attacks, and what honest bytes cost it."""
    with serving(self_ping_interval=0, engine=request.param) as server:
        yield server, honest_cost(server)


@contextlib.contextmanager
def healthy(server: Server) -> Iterator[Ping]:
    """A session beside the attack; at the end, none of its pings is lost or was late."""
    with Ping(server, "-i0.02") as session:
        session.wait_replies(10)
        waited = server.waited() + session.waited()
        yield session
        answers = len(session.out)
        session.wait_replies(answers + 10)
        waited = server.waited() + session.waited() - waited
        session.popen.terminate()
        report = session.report()
        assert report["lost"] + report["late"] == 0
        assert report["connections"] == 1
        # Without what it had to wait for a CPU on a machine that is busy.
        worst = (report["rtt_ms"]["max"] + report["server_ms"]["max"]) / 1_000
        assert worst < PAUSE + waited


def settle(server: Server) -> float:
    """CPU that a server has taken, when it has nothing more to do."""
    before = -1.0
    while (now := server.cpu()) - before > 0.02:
        before = now
        server.get("/metrics")
        time.sleep(0.1)
    return now


def gaps(frame: Callable[[int], bytes], first: int, packets: int) -> Iterator[bytes]:
    """Payloads full of frames that are a byte long and leave out the one before."""
    offset = first
    for _ in range(packets):
        payload = b""
        while len(payload) + len(frame(offset)) <= ROOM:
            payload += frame(offset)
            offset += 2
        yield payload


@on_both
@pytest.mark.parametrize("sources", [1, 8])
def test_first_packets_full_of_gaps(sources: int) -> None:
    with serving(self_ping_interval=0) as server:
        cost = honest_cost(server)
        strangers = [Stranger() for _ in range(sources)]
        socks = [udp(server) for _ in strangers]
        packets = [
            [
                stranger.initial(payload)
                for payload in gaps(lambda offset: crypto_frame(offset, b"x"), 1, PACKETS)
            ]
            for stranger in strangers
        ]
        with healthy(server):
            before, sent = settle(server), 0
            for together in zip(*packets, strict=True):
                for sock, data in zip(socks, together, strict=True):
                    sent += sock.send(data)
                time.sleep(0.0005)
            taken = settle(server) - before
        for sock in socks:
            sock.close()
        assert taken < FACTOR * cost * sent


@on_both
def test_first_packets_with_a_byte_far_away() -> None:
    with (
        serving(self_ping_interval=0, max_handshakes=1_000) as server,
        healthy(server),
        udp(server) as sock,
    ):
        before = server.memory()
        for _ in range(400):
            sock.send(Stranger().initial(crypto_frame(16_000, b"x")))
            time.sleep(0.001)
        settle(server)
        # Handshakes of strangers, who prove nothing, for ten seconds.
        assert server.memory() - before < 64 * MEGABYTE


FRAMES: dict[str, Callable[[int, int], bytes]] = {
    "ping": lambda n, session: b"\x01" * ROOM,
    "padding": lambda n, session: bytes(ROOM),
    "one ping": lambda n, session: b"\x01",
    "new connection ids": lambda n, session: b"".join(
        numbers(0x18, k, k) + b"\x08" + os.urandom(24) for k in range(8 + 30 * n, 38 + 30 * n)
    ),
    "a new connection id": lambda n, session: (
        numbers(0x18, 8 + n, 8 + n) + b"\x08" + os.urandom(24)
    ),
    "path challenges": lambda n, session: b"".join(b"\x1a" + os.urandom(8) for _ in range(60)),
    "path responses": lambda n, session: b"".join(b"\x1b" + os.urandom(8) for _ in range(125)),
    "stream limits": lambda n, session: b"".join(
        numbers(0x12, (1 << 31) + 120 * n + k) for k in range(120)
    ),
    "data limits": lambda n, session: b"".join(
        numbers(0x10, (1 << 31) + 120 * n + k) for k in range(120)
    ),
    "acknowledgements": lambda n, session: ack_frame(0) * 60,
    "ranges": lambda n, session: ack_frame(5, 0, *[(0, 0)] * 550),
    "datagrams of no session": lambda n, session: b"\x31\x05\x10abcd" * 160,
    "datagrams to the session": lambda n, session: b"\x31\x05\x00ping" * 160,
    "blocked": lambda n, session: b"\x14\x40\x40" * 250,
    "stop sending": lambda n, session: numbers(0x05, session, 0) * 250,
    "retired ids": lambda n, session: numbers(0x19, n),
    "gaps in a stream": lambda n, session: next(
        gaps(lambda offset: stream_frame(session, offset, b"x"), 4_001 + 340 * n, 1)
    ),
    "bytes of a stream": lambda n, session: b"".join(
        stream_frame(session, 4_001 + 160 * n + k, b"x") for k in range(160)
    ),
    "a far byte of a handshake": lambda n, session: crypto_frame(16_000, b"x"),
    "garbage": lambda n, session: os.urandom(ROOM),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_of_a_connection(kind: str, attacked: tuple[Server, float]) -> None:
    server, cost = attacked
    with healthy(server), contextlib.closing(Attacker(server)) as attacker:
        before, memory, sent = settle(server), server.memory(), 0
        for n in range(PACKETS):
            sent += attacker.attack(FRAMES[kind](n, attacker.session))
            if n % 8 == 0:
                attacker.exchange()
                time.sleep(0.002)
        taken = settle(server) - before
        # Each packet is at least what a ping is.
        assert taken < FACTOR * cost * max(sent, 100 * PACKETS)
        assert server.memory() - memory < 4 * MEGABYTE


@on_both
def test_far_bytes_of_streams() -> None:
    with (
        serving(self_ping_interval=0) as server,
        contextlib.ExitStack() as stack,
        healthy(server),
    ):
        attackers = [stack.enter_context(contextlib.closing(Attacker(server))) for _ in range(40)]
        settle(server)
        before = server.memory()
        for attacker in attackers:
            for n in range(1, 5):
                attacker.attack(stream_frame(4 * n, (256 << 10) - 1, b"x"))
        settle(server)
        assert server.memory() - before < len(attackers) * (128 << 10)
