from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.integration.services import PORT, own_address
from tests.soak.impaired import ImpairedRelay, impaired
from tests.soak.world import host_of
from tests.support.network.path import Impairment
from tests.support.running import wait_until


class Ends:
    """A client and a server with a relay between them."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        place = own_address()
        self.client, self.server = (
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in "cs"
        )
        for end in (self.client, self.server):
            end.settimeout(10)
        self.server.bind((place, PORT))
        self.relay: ImpairedRelay = stack.enter_context(impaired(place, "seed"))
        self.client.connect((host_of(self.relay.url), PORT))

    def ask(self, text: bytes) -> tuple[str, int]:
        """Send to the server; where it seems to come from."""
        self.client.send(text)
        data, (host, port) = self.server.recvfrom(100)
        assert data == text
        return host, port


@pytest.fixture
def ends() -> Iterator[Ends]:
    with contextlib.ExitStack() as stack:
        yield Ends(stack)


def test_passes_on_both_ways(ends: Ends) -> None:
    address = ends.ask(b"ping")
    ends.server.sendto(b"pong", address)
    assert ends.client.recv(100) == b"pong"
    assert ends.ask(b"again") == address


def test_moves(ends: Ends) -> None:
    before = ends.ask(b"ping")
    ends.relay.move()
    wait_until(lambda: ends.ask(b"ping") != before, "it sends from another port")


def test_loses_and_doubles(ends: Ends) -> None:
    ends.relay.impair(Impairment(blackhole=True))
    ends.client.send(b"lost")
    wait_until(lambda: ends.relay.lost == 1, "the packet has come to the relay")
    ends.relay.impair(Impairment(duplicate=1.0))
    ends.ask(b"twice")
    assert ends.server.recv(100) == b"twice"


def test_delays(ends: Ends) -> None:
    ends.relay.impair(Impairment(delay=0.1))
    ends.client.send(b"first")
    wait_until(lambda: ends.relay.held == 1, "the packet is held")
    ends.relay.impair(Impairment())
    ends.client.send(b"second")
    assert [ends.server.recv(100) for _ in range(2)] == [b"second", b"first"]
