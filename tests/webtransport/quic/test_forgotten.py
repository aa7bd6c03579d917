"""What has ended gives its memory back at once: nothing waits for Python's garbage collector.

The collector is off in all of these, and what is left of many connections is counted.
"""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from pingpong.server.sessions.handlers import Router
from pingpong.webtransport import SessionHandler
from pingpong.webtransport.events import Request
from pingpong.webtransport.quic.config import ServerIdentity
from pingpong.webtransport.session import Session
from pingpong.webtransport.streams import Stream, StreamHandler
from tests.webtransport.raw import first_packet
from tests.webtransport.wire import CLIENT, SERVER, Wire, hand_over, identity

TIMES = 6
FEW = 20
"""Objects that come and go by chance: entries of caches, and the like."""


@pytest.fixture(autouse=True)
def _log_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest keeps what is logged, aioquic logs exceptions, and those know where they came by."""
    monkeypatch.setattr(logging.getLogger("quic"), "disabled", True)


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector; what there was before is not looked at by it either."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def count() -> Counter[str]:
    """How many objects there are of each type."""
    return Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())


def assert_nothing_left(live: Callable[[Wire], None], wire: Wire) -> None:
    """Nothing more is there after many of these than after few."""

    def lives(times: int) -> None:
        for _ in range(times):
            live(wire)
            for side in (wire.client, wire.server):
                side.connections.clear()
                side.sessions.clear()
                side.ended.clear()
                side.errors.clear()
                side.refused.clear()
                side.closed = None

    with uncollected():
        lives(2)
        count()
        assert len(wire.server_end) == len(wire.client_end) == 0
        before = count()
        lives(TIMES)
        after = count()
    after.subtract(before)
    ours = {name: more for name, more in after.items() if more and "builtins" not in name}
    assert not {name for name in ours if name.startswith(("aioquic", "pingpong"))}, ours
    assert after.total() < FEW, after.most_common(10)


# Servers' handshakes, of clients that were made before: aioquic's own leave much behind.


def packets_of(alpn: str) -> Iterator[bytes]:
    """The first packets of as many clients as there may be."""
    packets = []
    for _ in range(4 * TIMES):
        configuration = QuicConfiguration(alpn_protocols=[alpn], is_client=True)
        client = QuicConnection(configuration=configuration)
        client.connect(SERVER, 1_000.0)
        packets.append(client.datagrams_to_send(1_000.0)[0][0])
    return iter(packets)


def silent(wire: Wire, packets: Iterator[bytes]) -> None:
    """A client that says nothing after its first packet."""
    hand_over(wire.server_end, next(packets), now=wire.now)


def undecipherable(wire: Wire, packets: Iterator[bytes]) -> None:
    packet = next(packets)
    hand_over(wire.server_end, packet[:-1] + bytes([packet[-1] ^ 1]), now=wire.now)


def crowded(wire: Wire, packets: Iterator[bytes]) -> None:
    """Some that have to make room for the next."""
    for _ in range(3):
        silent(wire, packets)
    assert wire.server_end.unfinished_handshakes < 3


def lossy(wire: Wire, packets: Iterator[bytes]) -> None:
    """The server's words don't arrive."""
    wire.lose = lambda packet, to_server: not to_server
    wire.connect()
    wire.run(60)
    wire.lose = lambda packet, to_server: False


def giving_up(wire: Wire, packets: Iterator[bytes]) -> None:
    """A client that closes before it is through."""
    made = wire.client_end.connect(SERVER, identity(), wire.client.attach, wire.now)
    wire.step()
    made.close(0, "no more")


@pytest.mark.parametrize("alpn", ["h3", "there is no protocol that both speak"])
@pytest.mark.parametrize("live", [silent, undecipherable, crowded, lossy, giving_up])
def test_handshakes_that_came_to_nothing_leave_nothing(
    live: Callable[[Wire, Iterator[bytes]], None], alpn: str
) -> None:
    wire = Wire(connect=False, handshake_timeout=2.0, max_validated_handshakes=2)
    packets = packets_of(alpn)

    def handshake(wire: Wire) -> None:
        live(wire, packets)
        wire.run(3)

    assert_nothing_left(handshake, wire)
    assert wire.server_end.counters.handshakes == 0
    assert wire.server_end.counters.connections >= TIMES


# Clients.


def another_certificate(wire: Wire) -> None:
    wire.connect(ServerIdentity("localhost", certificate_hash=bytes(32)))
    wire.run(3)


def unknown_authority(wire: Wire) -> None:
    wire.connect(ServerIdentity("localhost"))
    wire.run(3)


def nobody_there(wire: Wire) -> None:
    wire.lose = lambda packet, to_server: True
    wire.connect()
    wire.run(60)
    wire.lose = lambda packet, to_server: False


@pytest.mark.parametrize("live", [another_certificate, unknown_authority, nobody_there])
def test_clients_that_do_not_get_through_leave_nothing(live: Callable[[Wire], None]) -> None:
    assert_nothing_left(live, Wire(connect=False))


def test_refused_clients_leave_nothing() -> None:
    def refused(wire: Wire) -> None:
        wire.connect()
        wire.run(3)

    assert_nothing_left(refused, Wire(connect=False, max_connections=0))


# Connections with sessions and streams in all states.


class Quiet(SessionHandler, StreamHandler):
    """Takes all streams, and keeps none."""

    def stream_opened(self, stream: Stream) -> StreamHandler:
        return self


def use(wire: Wire, path: str) -> Session:
    """A session with streams that are open, ended and paused, and all that handlers keep."""
    wire.connect()
    handler = Quiet()
    session = wire.client.connection.open_session(Request("localhost", path), handler)
    wire.run(0.05)
    session.send_datagram(b"ping")
    for unidirectional in (False, True):
        for ends in (False, True):
            session.open_stream(handler, unidirectional=unidirectional).send(b"ping", ends)
        session.open_stream(handler, unidirectional=unidirectional).reset(3)
    session.open_stream(handler).send(bytes(100_000))
    wire.run(0.05)
    return session


def client_closes(wire: Wire, session: Session) -> None:
    wire.client.connection.close()
    wire.run(3)


def server_closes(wire: Wire, session: Session) -> None:
    wire.server.connection.close()
    wire.run(3)


def session_closes_first(wire: Wire, session: Session) -> None:
    session.close(1, "bye")
    wire.run(0.1)
    client_closes(wire, session)


def session_closes_unheard(wire: Wire, session: Session) -> None:
    """Its streams are still to end when the connection does."""
    wire.lose = lambda packet, to_server: True
    session.close(1, "bye")
    wire.step()
    wire.client.connection.close()
    wire.run(60)
    wire.lose = lambda packet, to_server: False


def both_fall_silent(wire: Wire, session: Session) -> None:
    wire.lose = lambda packet, to_server: True
    wire.run(60)
    wire.lose = lambda packet, to_server: False


def server_forgets(wire: Wire, session: Session) -> None:
    """The client is ended by a stateless reset."""
    engine = wire.server.engine
    engine.give_up_at = wire.now
    engine.handle_timer(wire.now)
    wire.server_end.request_transmit(engine)
    session.send_datagram(b"are you there")
    wire.run(3)
    assert wire.server_end.counters.resets_sent


@pytest.mark.parametrize("path", ["/ping", "/echo"])
@pytest.mark.parametrize(
    "end",
    [
        client_closes,
        server_closes,
        session_closes_first,
        session_closes_unheard,
        both_fall_silent,
        server_forgets,
    ],
)
def test_connections_that_end_leave_nothing(
    path: str, end: Callable[[Wire, Session], None]
) -> None:
    wire = Wire(connect=False)
    wire.server.decide = Router(1 << 16).session_requested
    assert_nothing_left(lambda wire: end(wire, use(wire, path)), wire)


def test_what_came_before_its_session_leaves_nothing() -> None:
    def early(wire: Wire) -> None:
        wire.connect()
        wire.raw.send_settings()
        wire.raw.send(wire.raw.request(), b"x")
        for unidirectional in (False, True):
            wire.raw.open_in(40, b"data", uni=unidirectional)
            wire.raw.open(b"\x40", uni=unidirectional)
        wire.raw.datagram(b"x", 40)
        wire.run()
        assert wire.server.connection.closed is None
        wire.raw.quic.close(0x100)
        wire.run(3)

    assert_nothing_left(early, Wire(connect=False, raw_client=True))


def test_protocol_error_leaves_nothing() -> None:
    def faulty(wire: Wire) -> None:
        wire.connect()
        wire.raw.send_settings()
        wire.raw.send(wire.raw.request(), b"\x04\x00")
        wire.run(3)
        assert wire.server.errors

    assert_nothing_left(faulty, Wire(connect=False, raw_client=True))


def test_fault_of_a_handler_leaves_nothing() -> None:
    def fault(session: Session) -> None:
        raise ZeroDivisionError

    def faulty(wire: Wire) -> None:
        wire.connect()
        wire.raw.send_settings()
        wire.raw.request()
        with pytest.raises(ZeroDivisionError):
            wire.run(3)
        wire.run(3)

    wire = Wire(connect=False, raw_client=True)
    wire.server.decide = fault
    assert_nothing_left(faulty, wire)


# The handshake.


def test_what_only_the_handshake_needed_is_forgotten_after_it() -> None:
    wire = Wire(connect=False)
    sent: list[tuple[bool, bytes]] = []

    def network(packets: list[bytes], to_server: bool) -> list[bytes]:
        sent.extend((to_server, packet) for packet in packets)
        return packets

    wire.network = network
    with uncollected():
        before = count()
        wire.connect()
        wire.run(1)
        after = count()
    after.subtract(before)
    # One of each side is left, for its 1-RTT packets.
    for kind in ("recovery.QuicPacketSpace", "crypto.CryptoPair"):
        assert after[f"aioquic.quic.{kind}"] <= 2
    # All that comes once more finds nobody, and does no harm.
    handshake = sent.copy()
    for to_server, packet in handshake:
        if to_server:
            wire.server_end.receive(packet, CLIENT, wire.now, 0)
        else:
            wire.client_end.receive(packet, SERVER, wire.now, 0)
    session, _, _, peer = wire.pair()
    session.send_datagram(b"still here")
    wire.run()
    assert peer.datagrams == [b"still here"]
    assert len(wire.server_end) == len(wire.client_end) == 1


# The closing period.


def test_closed_connection_keeps_little_and_still_answers() -> None:
    wire = Wire()
    session, recorder, _, _ = wire.pair()
    session.open_stream(recorder).send(bytes(5_000))
    wire.step()
    with uncollected():
        live = count()
        wire.server.connection.close(0x100, "bye")
        lost = wire.server_end.transmit(wire.now)
        kept = count()
    assert lost
    assert len(wire.server_end) == 1
    kept.subtract(live)
    assert kept["aioquic.quic.stream.QuicStream"] < 0
    assert kept["aioquic.tls.Context"] < 0
    assert kept["aioquic._crypto.AEAD"] < 0
    # Its close was lost, and it hears from the client: it says it again.
    session.send_datagram(b"x")
    wire.run(0.01)
    assert wire.client.closed is not None
    assert wire.client.closed.reason == "bye"


def test_timers_of_what_is_forgotten_are_forgotten() -> None:
    wire = Wire(connect=False, handshake_timeout=1_000.0, max_validated_handshakes=2)
    for _ in range(300):
        hand_over(wire.server_end, first_packet(), CLIENT, wire.now)
    assert len(wire.server_end) == 2
    assert len(wire.server_end._timers) < 100
