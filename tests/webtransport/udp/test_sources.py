from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from pingpong.webtransport.udp import sources
from pingpong.webtransport.udp.pump import Pump
from pingpong.webtransport.udp.sockets import bind_udp
from pingpong.webtransport.udp.sources import IP_PKTINFO, IPV6_PKTINFO, Sources


@contextlib.contextmanager
def answering(host: str, answers: int = 1) -> Iterator[Pump]:
    """A pump that answers each packet with as many, all of one size, together."""
    waiting: list[Any] = []

    def answer() -> None:
        for address in waiting:
            pump.send([b"pong"] * answers, address)
        waiting.clear()

    pump = Pump(
        bind_udp(host, 0),
        asyncio.get_running_loop(),
        receive=lambda packet, address, arrival: waiting.append(address),
        batch_received=answer,
    )
    try:
        yield pump
    finally:
        pump.close()


@pytest.mark.parametrize("host", ["::", "0.0.0.0"])
@pytest.mark.parametrize("answers", [1, 3])
async def test_an_answer_comes_from_the_address_that_was_asked(host: str, answers: int) -> None:
    loop = asyncio.get_running_loop()
    with answering(host, answers) as pump, socket.socket(type=socket.SOCK_DGRAM) as peer:
        peer.setblocking(False)
        # Connected: what comes from another address than this is not for it.
        peer.connect(("127.0.0.2", pump.local_address[1]))
        peer.send(b"ping")
        async with asyncio.timeout(10):
            for _ in range(answers):
                assert await loop.sock_recv(peer, 100) == b"pong"


async def test_a_socket_with_one_address_has_nothing_to_remember() -> None:
    with bind_udp("127.0.0.1", 0) as sock:
        assert not Sources(sock).enabled


def ipv4(host: str) -> bytes:
    return struct.pack("@i4s4s", 7, socket.inet_aton(host), socket.inet_aton(host))


async def test_an_address_that_is_ours_no_more_is_not_insisted_on() -> None:
    with answering("0.0.0.0") as pump, socket.socket(type=socket.SOCK_DGRAM) as peer:
        peer.setblocking(False)
        peer.bind(("127.0.0.1", 0))
        address = peer.getsockname()
        pump._sources.note(address, IP_PKTINFO, ipv4("192.0.2.77"))
        pump.send([b"x"], address)
        async with asyncio.timeout(10):
            assert await asyncio.get_running_loop().sock_recv(peer, 100) == b"x"
        assert pump._sources.get(address) is None


def test_no_more_peers_are_remembered_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_PEERS", 3)
    with bind_udp("0.0.0.0", 0) as sock:
        remembered = Sources(sock)
    for port in range(10):
        remembered.note(("127.0.0.1", port), IP_PKTINFO, ipv4("127.0.0.1"))
    assert [remembered.get(("127.0.0.1", port)) is None for port in range(10)] == [True] * 7 + [
        False
    ] * 3


def test_the_interface_is_left_to_the_route() -> None:
    with bind_udp("0.0.0.0", 0) as sock:
        remembered = Sources(sock)
    remembered.note("peer", IPV6_PKTINFO, struct.pack("@16si", bytes(15) + b"\1", 9))
    ancillary = remembered.get("peer")
    assert ancillary is not None
    [(level, kind, value)] = ancillary
    assert (level, kind) == (socket.IPPROTO_IPV6, IPV6_PKTINFO)
    assert struct.unpack("@16si", value) == (bytes(15) + b"\1", 0)
