"""The QUIC engine quinn, with itself and with aioquic, without sockets."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from pingpong.webtransport.certificates import Certificate, make_authority, make_certificate
from pingpong.webtransport.quic import engines
from pingpong.webtransport.quic.config import EndpointConfig, Engine, ServerIdentity, Windows
from pingpong.webtransport.quic.connection import AioquicConnection
from pingpong.webtransport.quic.connection_ids import SharedKeys, worker_of
from pingpong.webtransport.quic.engine import RESET_REASON, QuicConnection, QuicEndpoint
from tests.webtransport.quic.packets import Stranger, crypto_frame
from tests.webtransport.quic.packets import packet as make_packet

if TYPE_CHECKING or engines.is_installed("quinn"):
    import pingpong_engine

pytestmark = pytest.mark.quinn

CERTIFICATE = make_certificate(["localhost"], datetime.now(UTC))
PINNED = ServerIdentity("localhost", certificate_hash=CERTIFICATE.sha256)
CLIENT, SERVER = ("127.0.0.1", 1111), ("127.0.0.1", 4433)


class Sink:
    """Keeps the events of a connection."""

    def __init__(self, quic: QuicConnection) -> None:
        self.quic = quic
        self.ready = False
        self.data: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.datagrams: list[bytes] = []
        self.resets: list[tuple[int, int, int]] = []
        self.stops: list[tuple[int, int]] = []
        self.writable: list[int] = []
        self.credit = 0
        self.closed: tuple[Any, ...] | None = None
        self.hold = False
        self.unsent = 0
        """Bytes that were queued of the last stream that was stopped."""

    def handshake_completed(self) -> None:
        self.ready = True

    def stream_data_received(self, stream_id: int, data: bytes, end: bool, arrival: int) -> None:
        self.data[stream_id] = self.data.get(stream_id, b"") + data
        if end:
            self.ended.add(stream_id)
        if self.hold:
            self.quic.hold(stream_id, len(data))

    def stream_reset_received(self, stream_id: int, code: int, final_size: int) -> None:
        self.resets.append((stream_id, code, final_size))

    def stop_sending_received(self, stream_id: int, code: int) -> None:
        self.stops.append((stream_id, code))
        self.unsent = self.quic.reset_stream(stream_id, code)

    def stream_writable(self, stream_id: int) -> None:
        self.writable.append(stream_id)

    def stream_credit_received(self) -> None:
        self.credit += 1

    def datagram_received(self, data: bytes, arrival: int) -> None:
        self.datagrams.append(data)

    def buffered_bytes(self) -> int:
        return 0

    def deadline_passed(self, now: float) -> None:
        pass

    def connection_terminated(self, *arguments: Any) -> None:
        assert self.closed is None
        self.closed = arguments


class Link:
    """A client and a server, and the packets between them."""

    def __init__(
        self,
        client: Engine = "quinn",
        server: Engine = "quinn",
        identity: ServerIdentity = PINNED,
        **settings: Any,
    ) -> None:
        self.now = 1_000.0
        self.time = 0.0
        """The server's clock for the time that it takes to process packets."""
        self.accepted: list[Sink] = []
        self.server_end = engines.make_endpoint(
            EndpointConfig(**({"certificate": CERTIFICATE, "engine": server} | settings)),
            lambda: None,
            self._accept,
            clock=lambda: self.time,
        )
        self.client_end = engines.make_endpoint(EndpointConfig(engine=client), lambda: None)
        self.to_server: list[bytes] = []
        self.client = self.connect(identity)

    def connect(self, identity: ServerIdentity = PINNED) -> Sink:
        """Another connection."""
        quic = self.client_end.connect(SERVER, identity, Sink, self.now)
        sink: Sink = quic.events  # type: ignore[attr-defined]
        self.run()
        return sink

    def _accept(self, quic: QuicConnection) -> Sink:
        sink = Sink(quic)
        self.accepted.append(sink)
        return sink

    @property
    def server(self) -> Sink:
        return self.accepted[0]

    def _pass(self, source: QuicEndpoint, sink: QuicEndpoint, address: Any) -> bool:
        packets = [packet for _, group in source.transmit(self.now) for packet in group]
        if sink is self.server_end:
            self.to_server += packets
        for packet in packets:
            sink.receive(packet, address, self.now, int(self.now * 1e9))
        return bool(packets)

    def run(self, until: Callable[[], object] = lambda: False, seconds: float = 1.0) -> None:
        """Pass packets on, for a while of the link's own time."""
        end = self.now + seconds
        while self.now < end and not until():
            moved = self._pass(self.client_end, self.server_end, CLIENT)
            moved |= self._pass(self.server_end, self.client_end, SERVER)
            if not moved:
                self.now += 0.01
            for side in (self.client_end, self.server_end):
                side.handle_timers(self.now)


PAIRS = [
    ("quinn", "quinn"),
    ("quinn", "aioquic"),
    ("aioquic", "quinn"),
    ("aioquic", "aioquic"),
]


@pytest.fixture(params=PAIRS, ids="-".join)
def link(request: pytest.FixtureRequest) -> Iterator[Link]:
    made = Link(*request.param)
    assert made.client.ready
    assert made.server.ready
    yield made
    made.client_end.close()
    made.server_end.close()


def test_streams_and_datagrams(link: Link) -> None:
    data = random.Random(1).randbytes(100_000)
    stream_id = link.client.quic.open_stream(b"header", False)
    link.client.quic.send_stream(stream_id, data, True)
    assert link.client.quic.send_datagram(b"ping")
    link.run(lambda: link.server.ended)
    assert link.server.data == {stream_id: b"header" + data}
    assert link.server.datagrams == [b"ping"]
    assert link.server.quic.is_receive_closed(stream_id)
    link.server.quic.send_stream(stream_id, data, True)
    link.server.quic.send_datagram(bytes(link.server.quic.max_datagram_size))
    link.run(lambda: link.client.ended and link.client.datagrams)
    assert link.client.data == {stream_id: data}
    assert link.client.datagrams == [bytes(link.server.quic.max_datagram_size)]


def test_the_final_size_is_that_of_what_was_sent(link: Link) -> None:
    """Of a stream that is reset before all of it arrived, and of one that is stopped."""
    quic = link.client.quic
    lost = quic.open_stream(b"header", True)
    link.run(seconds=0.1)
    quic.send_stream(lost, bytes(5_000))
    link.client_end.transmit(link.now)
    unsent = quic.reset_stream(lost, 7)
    link.run(lambda: link.server.resets)
    assert link.server.resets == [(lost, 7, 5_006 - unsent)]
    link.server.resets.clear()
    stopped = quic.open_stream(b"header", True)
    link.run(seconds=0.1)
    quic.send_stream(stopped, bytes(3_000))
    link.server.quic.stop_sending(stopped, 9)
    assert not link.server.quic.is_receive_closed(stopped)
    link.run(lambda: link.server.resets)
    assert link.client.stops == [(stopped, 9)]
    (reset,) = link.server.resets
    assert reset == (stopped, 9, 3_006 - link.client.unsent)
    assert link.server.quic.is_receive_closed(stopped)


def test_a_stream_that_is_stopped_may_be_complete(link: Link) -> None:
    quic = link.client.quic
    stream_id = quic.open_stream(b"header", True)
    link.run(seconds=0.1)
    quic.send_stream(stream_id, bytes(3_000), True)
    link.client_end.transmit(link.now)
    link.server.quic.stop_sending(stream_id, 9)
    link.run(lambda: link.server.resets or link.server.ended, seconds=2)
    assert link.server.ended or link.server.resets[0][2] == 3_006
    assert link.server.quic.is_receive_closed(stream_id)


def test_packets_that_the_network_duplicates_are_counted(link: Link) -> None:
    for number in range(100):
        link.client.quic.send_datagram(bytes((number,)))
        for _, packets in link.client_end.transmit(link.now):
            for packet in packets:
                for _ in range(3 if number % 10 == 0 else 1):
                    link.server_end.receive(packet, CLIENT, link.now, int(link.now * 1e9))
                # And one that is no copy.
                wrong = packet[:-1] + bytes((packet[-1] ^ 1,))
                link.server_end.receive(wrong, CLIENT, link.now, int(link.now * 1e9))
        link.run(seconds=0.02)
    assert len(link.server.datagrams) == 100
    assert link.server.quic.duplicate_packets == 20
    assert link.client.quic.duplicate_packets == 0


def test_what_is_known_of_the_path(link: Link) -> None:
    quic = link.client.quic
    before = quic.path_statistics
    assert before is not None
    assert before.lost_packets == 0
    assert 10_000 < before.congestion_window < 20_000
    quic.send_datagram(b"lost")
    link.client_end.transmit(link.now)
    stream_id = quic.open_stream(b"", False)
    quic.send_stream(stream_id, bytes(100_000), True)
    link.run(lambda: link.server.ended)
    link.run(seconds=0.2)
    after = quic.path_statistics
    assert after is not None
    assert after.lost_packets == 1
    assert after.congestion_window != before.congestion_window
    assert 0 <= after.smoothed_rtt < 0.1
    # It is the same while the connection is closed, and afterwards.
    quic.close(0)
    assert quic.path_statistics == after
    link.run()
    assert link.client.closed
    assert quic.path_statistics == after


def test_nothing_is_known_of_the_path_before_a_round_trip() -> None:
    for engine in ("aioquic", "quinn"):
        end = engines.make_endpoint(EndpointConfig(engine=engine), lambda: None)
        assert end.connect(SERVER, PINNED, Sink, 1.0).path_statistics is None


def test_a_stream_that_is_reset_at_once_brings_its_header(link: Link) -> None:
    stream_id = link.client.quic.open_stream(b"header", True)
    link.run(seconds=0.1)
    link.client.quic.reset_stream(stream_id, 7)
    link.run(lambda: link.server.resets)
    assert link.server.data == {stream_id: b"header"}
    assert link.server.resets == [(stream_id, 7, 6)]


def test_stop_sending_is_for_the_owner_of_the_stream(link: Link) -> None:
    stream_id = link.client.quic.open_stream(b"header", False)
    link.run(lambda: link.server.data)
    link.server.quic.stop_sending(stream_id, 9)
    link.run(lambda: link.client.stops)
    assert link.client.stops == [(stream_id, 9)]


def test_what_is_not_read_gets_no_credit(link: Link) -> None:
    link.server.hold = True
    stream_id = link.client.quic.open_stream(b"", False)
    link.client.quic.send_stream(stream_id, bytes(4 << 20))
    link.run(seconds=3)
    window = Windows().stream
    first = len(link.server.data[stream_id])
    assert window // 2 <= first <= 2 * window
    assert link.client.quic.buffered(stream_id) > 0
    link.server.quic.release(stream_id, first)
    link.run(seconds=3)
    assert len(link.server.data[stream_id]) > first


def test_streams_beyond_the_limit_wait(link: Link) -> None:
    limit = Windows().streams_uni
    quic = link.client.quic
    ids = [quic.open_stream(b"x", True) for _ in range(limit + 3)]
    assert ids == [2 + 4 * number for number in range(limit + 3)]
    assert not quic.can_open_stream(True)
    for stream_id in ids:
        quic.send_stream(stream_id, b"y", True)
    link.run(lambda: len(link.server.ended) == limit + 3)
    assert link.server.data == dict.fromkeys(ids, b"xy")
    assert link.client.credit
    assert quic.can_open_stream(True)


def test_key_updates_of_a_peer_are_followed() -> None:
    link = Link("aioquic", "quinn")
    assert isinstance(link.client.quic, AioquicConnection)
    phases = []
    for number in range(4):
        link.client.quic._quic.request_key_update()
        for side, other in ((link.client, link.server), (link.server, link.client)):
            assert side.quic.send_datagram(bytes((number,)))
            link.run(seconds=0.2)
            assert other.datagrams[-1] == bytes((number,))
        phases.append(link.to_server[-1])
    # What is seen of packets is so after updates too.
    stream_id = link.client.quic.open_stream(b"header", True)
    link.run(seconds=0.1)
    link.client.quic.reset_stream(stream_id, 7)
    link.run(lambda: link.server.resets)
    assert link.server.resets == [(stream_id, 7, 6)]
    for packet in phases:
        link.server_end.receive(packet, CLIENT, link.now, int(link.now * 1e9))
    assert link.client.closed is link.server.closed is None


def test_closed_connections_hold_no_buffers_of_others() -> None:
    link = Link(max_buffered=300 << 10)
    other = link.connect()
    quic = link.server.quic
    quic.send_stream(quic.open_stream(b"", True), bytes(200 << 10))
    link.server_end.transmit(link.now)
    quic.close(0x100)
    link.server_end.transmit(link.now)
    assert len(link.server_end) == 2
    link.accepted[1].quic.send_stream(
        link.accepted[1].quic.open_stream(b"", True), bytes(200 << 10)
    )
    link.run()
    assert len(link.server_end) == 1
    assert link.server_end.counters.buffers_exceeded == 0
    assert len(other.data) == 1
    assert other.closed is None


def test_the_limit_of_streams_grows_with_their_use(link: Link) -> None:
    quic = link.client.quic
    opened = 0
    for _ in range(20):
        while quic.can_open_stream(False):
            quic.send_stream(quic.open_stream(b"x", False), b"y")
            opened += 1
        link.run(seconds=0.1)
    assert opened == Windows().streams_bidi
    assert len(link.server.data) == opened


def test_a_close_arrives_with_its_code_and_reason(link: Link) -> None:
    link.client.quic.close(0x107, "enough")
    link.run(lambda: link.server.closed)
    assert link.client.closed == (0x107, "enough", False, True, False)
    assert link.server.closed == (0x107, "enough", True, True, False)
    for sink in (link.client, link.server):
        sink.quic.send_datagram(b"")
        sink.quic.close(1)
    link.run(seconds=5)
    for end in (link.client_end, link.server_end):
        assert len(end) == 0
        assert end.next_timer() is None


@pytest.mark.parametrize("unidirectional", [True, False])
def test_a_stream_that_waits_may_be_reset_and_stopped(link: Link, unidirectional: bool) -> None:
    quic = link.client.quic
    limit = Windows().streams_uni
    ids = [quic.open_stream(b"x", unidirectional) for _ in range(limit + 2)]
    *others, waits, last = ids
    assert not quic.can_open_stream(unidirectional)
    assert quic.reset_stream(waits, 7) == 1
    if not unidirectional:
        quic.stop_sending(waits, 9)
    link.run(seconds=0.2)
    assert waits not in link.server.data
    assert not link.server.resets
    for stream_id in others:
        quic.send_stream(stream_id, b"", True)
        if not unidirectional:
            link.server.quic.send_stream(stream_id, b"", True)
    link.run(lambda: last in link.server.data)
    link.run(seconds=0.2)
    assert link.server.resets == [(waits, 7, 0)]
    assert link.server.stops == ([] if unidirectional else [(waits, 9)])
    assert link.client.resets == [(id_, code, 0) for id_, code in link.server.stops]
    assert link.client.closed is link.server.closed is None


def test_a_close_passes_data_that_is_blocked(link: Link) -> None:
    quic = link.server.quic
    quic.send_stream(quic.open_stream(b"", True), bytes(1 << 20))
    link.server_end.transmit(link.now)  # all of it is lost
    quic.close(0x107, "enough")
    link.run(lambda: link.client.closed)
    assert link.client.closed == (0x107, "enough", True, True, False)


def test_silence_ends_a_connection(link: Link) -> None:
    link.now += 60
    for end in (link.client_end, link.server_end):
        end.handle_timers(link.now)
    for sink in (link.client, link.server):
        assert sink.closed is not None
        assert sink.closed[4]


@pytest.mark.parametrize("server", ["quinn", "aioquic"])
@pytest.mark.parametrize("spoofed", [("10.9.8.7", 999), ("2001:db8::1", 999, 0, 0)])
def test_a_server_goes_back_to_the_address_that_it_could_validate(
    server: Engine, spoofed: Any
) -> None:
    link = Link("quinn", server)
    link.client.quic.send_datagram(b"from elsewhere")
    for _, packets in link.client_end.transmit(link.now):
        for packet in packets:
            link.server_end.receive(packet, spoofed, link.now, int(link.now * 1e9))
    # That address does not answer, and the client is silent.
    for _ in range(200):
        link.server_end.transmit(link.now)
        link.now += 0.02
        link.server_end.handle_timers(link.now)
    for number in range(3):
        link.client.quic.send_datagram(b"question")
        for _, packets in link.client_end.transmit(link.now):
            for packet in packets:
                link.server_end.receive(packet, CLIENT, link.now, int(link.now * 1e9))
        link.server.quic.send_datagram(b"answer")
        sent_to = {address for address, _ in link.server_end.transmit(link.now)}
        assert CLIENT in sent_to
        if number:
            assert sent_to == {CLIENT}
        link.now += 0.1
    assert link.server.quic.address == CLIENT


@pytest.mark.parametrize("server", ["quinn", "aioquic"])
def test_a_certificate_that_is_not_the_pinned_one(server: Engine) -> None:
    link = Link("quinn", server, ServerIdentity("localhost", certificate_hash=bytes(32)))
    code, reason, by_peer, is_application, timed_out = link.client.closed or ()
    assert (code, by_peer, is_application, timed_out) == (0x12A, False, False, False)
    assert reason == f"its SHA-256 is {CERTIFICATE.sha256.hex()}, not the one that was given"
    assert link.client.quic.peer_certificate == CERTIFICATE.certificate
    assert not link.client.ready


@pytest.mark.parametrize("client", ["quinn", "aioquic"])
def test_retry_where_too_many_handshakes_are_unfinished(client: Engine) -> None:
    link = Link(client, "quinn", max_handshakes=0)
    assert link.server_end.counters.retries_sent == 1
    assert link.client.ready
    assert link.server.ready
    assert link.server_end.unfinished_handshakes == 0


def test_a_handshake_that_takes_too_long_is_forgotten() -> None:
    link = Link(handshake_timeout=3.0)
    first = link.to_server[0]
    link.server_end.receive(first, ("127.0.0.1", 2222), link.now, int(link.now * 1e9))
    link.server_end.transmit(link.now)
    assert link.server_end.unfinished_handshakes in (0, 1)
    link.now += 4
    link.server_end.handle_timers(link.now)
    assert link.server_end.unfinished_handshakes == 0


@pytest.mark.parametrize(("worker", "workers"), [(0, 1), (2, 3), (63, 64)])
def test_connection_ids_lead_to_the_worker(worker: int, workers: int) -> None:
    link = Link(worker=worker, workers=workers)
    link.client.quic.send_datagram(b"x")
    link.run(lambda: link.server.datagrams)
    packets = [packet for packet in link.to_server if not packet[0] & 0x80]
    assert packets
    assert {worker_of(packet, workers) for packet in packets} == {worker}


@pytest.mark.parametrize("engine", ["aioquic", "quinn"])
def test_refusals_are_a_thousand_a_second(engine: Engine) -> None:
    link = Link("quinn", engine, max_connections=1)
    assert link.connect().closed == (2, "", True, False, False)
    sent = 0
    for number in range(1_500):
        first = Stranger().initial(crypto_frame(0, b""))
        address = ("127.0.0.1", 2_000 + number)
        link.server_end.receive(first, address, link.now, int(link.now * 1e9))
        link.server_end.process_waiting()
        sent += len(link.server_end.transmit(link.now))
    assert 990 <= sent <= 1_000
    assert link.server_end.counters.refused_connections >= 1_500
    link.now += 0.1
    for number in range(200):
        first = Stranger().initial(crypto_frame(0, b""))
        link.server_end.receive(first, ("127.0.0.1", 4_000 + number), link.now, int(link.now * 1e9))
        sent += len(link.server_end.transmit(link.now))
    assert 1_080 <= sent <= 1_110


@pytest.mark.parametrize("engine", ["aioquic", "quinn"])
def test_a_restarted_server_resets_the_connections_of_its_predecessor(engine: Engine) -> None:
    keys = SharedKeys()
    link = Link("quinn", engine, keys=keys)
    link.server_end = engines.make_endpoint(
        EndpointConfig(certificate=CERTIFICATE, engine=engine, keys=keys),
        lambda: None,
        link._accept,
    )
    link.client.quic.send_datagram(bytes(100))
    link.run(lambda: link.client.closed)
    assert link.client.closed == (1, RESET_REASON, True, False, False)
    assert link.server_end.counters.resets_sent == 1
    assert link.client_end.counters.resets_received == 1


@pytest.mark.parametrize("engine", ["aioquic", "quinn"])
@pytest.mark.parametrize("same", [True, False])
def test_workers_with_the_same_keys_know_the_retry_tokens_of_each_other(
    engine: Engine, same: bool
) -> None:
    keys = SharedKeys()
    first, second = (
        engines.make_endpoint(
            EndpointConfig(certificate=CERTIFICATE, engine=engine, keys=key, max_handshakes=0),
            lambda: None,
            Sink,
        )
        for key in (keys, keys if same else SharedKeys())
    )
    client = engines.make_endpoint(EndpointConfig(engine="aioquic"), lambda: None)
    client.connect(SERVER, PINNED, Sink, 1.0)
    for end in (first, second):
        for _, packets in client.transmit(1.0):
            for packet in packets:
                end.receive(packet, CLIENT, 1.0, 10**9)
        for _, packets in end.transmit(1.0):
            for packet in packets:
                client.receive(packet, SERVER, 1.0, 10**9)
    assert first.counters.retries_sent == 1
    assert second.counters.connections == same


def signed() -> tuple[Certificate, bytes]:
    """A certificate, and that of its authority in PEM."""
    now = datetime.now(UTC)
    authority = make_authority(now, timedelta(days=9))
    made = make_certificate(["localhost"], now, authority=authority)
    return made, authority.certificate.public_bytes(Encoding.PEM)


@pytest.mark.parametrize("server", ["quinn", "aioquic"])
@pytest.mark.parametrize("where", ["file", "folder"])
def test_certificates_of_authorities(tmp_path: Path, server: Engine, where: str) -> None:
    made, authority = signed()
    file = tmp_path / "0a1b2c3d.0"
    file.write_bytes(authority)

    def known(name: str) -> ServerIdentity:
        if where == "file":
            return ServerIdentity(name, ca_file=str(file))
        return ServerIdentity(name, ca_path=str(tmp_path))

    (tmp_path / "README").write_text("no certificate")
    for name, accepted in (("localhost", True), ("other.test", False)):
        link = Link("quinn", server, known(name), certificate=made)
        assert link.client.ready is accepted
        assert (link.client.closed is None) is accepted
    # Another one of the same name, and then none.
    file.write_bytes(signed()[1] + b"\n")
    os.utime(tmp_path)
    link = Link("quinn", server, known("localhost"), certificate=made)
    assert link.client.closed is not None
    assert link.client.closed[0] == 0x130  # unknown_ca
    file.write_bytes(b"")
    os.utime(tmp_path)
    link = Link("quinn", server, known("localhost"), certificate=made)
    assert link.client.closed is not None


@pytest.mark.parametrize(
    "host", ["127.1", "1.2.3", "0x7f.1", "a.1", "foo-.test", "foo_-.test", "a b"]
)
@pytest.mark.parametrize("server", ["quinn", "aioquic"])
def test_a_host_that_no_certificate_can_be_for(tmp_path: Path, server: Engine, host: str) -> None:
    """The system knows addresses of such; no name is sent."""
    for identity in (
        ServerIdentity(host, insecure=True),
        ServerIdentity(host, certificate_hash=CERTIFICATE.sha256),
    ):
        link = Link("quinn", server, identity)
        assert link.client.ready
    now = datetime.now(UTC)
    authority = make_authority(now, timedelta(days=9))
    file = tmp_path / "authority.pem"
    file.write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    for name, why in (("127.0.0.1", "not valid for name"), ("a.test", 'DnsName("a.test")')):
        made = make_certificate([name], now, authority=authority)
        link = Link("quinn", server, ServerIdentity(host, ca_file=str(file)), certificate=made)
        assert link.client.closed is not None
        assert link.client.closed[0] in range(0x100, 0x200)
        assert why in link.client.closed[1]


def test_a_ca_file_that_is_not_there() -> None:
    end = engines.make_endpoint(EndpointConfig(engine="quinn"), lambda: None)
    with pytest.raises(FileNotFoundError):
        end.connect(SERVER, ServerIdentity("localhost", ca_file="/nowhere"), Sink, 1.0)


def test_without_authorities_those_of_certifi_are_known() -> None:
    link = Link("quinn", "quinn", ServerIdentity("localhost"))
    assert link.client.closed is not None
    assert link.client.closed[0] in range(0x100, 0x200)


def test_a_certificate_for_new_handshakes(link: Link) -> None:
    new = make_certificate(["localhost"], datetime.now(UTC))
    link.server_end.use_certificate(new)
    other = link.connect(ServerIdentity("localhost", certificate_hash=new.sha256))
    assert other.ready
    link.client.quic.send_datagram(b"old")
    link.run(lambda: link.server.datagrams)
    assert link.server.datagrams == [b"old"]
    assert link.connect(PINNED).closed is not None


def test_garbage_changes_nothing(link: Link) -> None:
    draw = random.Random(2)
    packets = link.to_server[:]
    for number in range(2_000):
        packet = bytearray(draw.choice(packets) if number % 2 else draw.randbytes(1_200))
        for _ in range(draw.randrange(4)):
            packet[draw.randrange(len(packet))] = draw.randrange(256)
        del packet[draw.randrange(1, len(packet) + 1) :]
        end = draw.choice([link.client_end, link.server_end])
        address = ("127.0.0.1", draw.randrange(1, 65_536))
        end.receive(bytes(packet), address, link.now, int(link.now * 1e9))
    link.run(seconds=0.1)
    link.client.quic.send_datagram(b"alive")
    link.run(lambda: link.server.datagrams)
    assert link.server.datagrams == [b"alive"]


@pytest.mark.parametrize("way", ["unread", "queued"])
def test_the_connection_that_buffers_most_is_closed(way: str) -> None:
    link = Link(max_buffered=300 << 10)
    other = link.connect()
    greedy = link.server.quic
    if way == "unread":
        link.server.hold = True
        for _ in range(4):
            stream_id = link.client.quic.open_stream(b"", False)
            link.client.quic.send_stream(stream_id, bytes(200 << 10))
    else:
        # To a client that has read none of it.
        link.client.hold = True
        greedy.send_stream(greedy.open_stream(b"", True), bytes(4 << 20))
    assert other.quic.send_datagram(b"still there")
    link.run(seconds=1)
    assert link.client.closed is not None
    assert link.client.closed[:3] == (0x107, "this connection buffers too much data", True)
    assert link.server_end.counters.buffers_exceeded == 1
    # What it buffered is free at once, not only after the closing period.
    assert len(link.server_end) == 1
    assert link.accepted[1].datagrams == [b"still there"]
    link.run(seconds=2)
    assert other.closed is None
    assert link.accepted[1].closed is None


def test_bytes_that_wait_for_those_before_them_count_as_buffered() -> None:
    link = Link(max_buffered=100 << 10)
    link.client.quic.send_stream(link.client.quic.open_stream(b"", False), bytes(200 << 10))
    for _ in range(20):
        for _, packets in link.client_end.transmit(link.now):
            for packet in packets[1:]:  # the first one of each group is lost
                link.server_end.receive(packet, CLIENT, link.now, int(link.now * 1e9))
        for _, packets in link.server_end.transmit(link.now):
            for packet in packets:
                link.client_end.receive(packet, SERVER, link.now, int(link.now * 1e9))
        link.now += 0.0001
    assert link.server_end.counters.buffers_exceeded == 1


def test_many_connections_that_buffer_little_are_not_closed() -> None:
    link = Link(max_buffered=20 << 10)
    clients = [link.connect() for _ in range(10)]
    for client in clients:
        stream_id = client.quic.open_stream(b"header", False)
        for _ in range(20):
            client.quic.send_stream(stream_id, bytes(1_000))
            client.quic.send_datagram(bytes(1_000))
            link.run(seconds=0.03)
    link.run()
    assert all(sink.data == {0: b"header" + bytes(20_000)} for sink in link.accepted[1:])
    assert link.server_end.counters.buffers_exceeded == 0
    assert not any(client.closed for client in clients)


class SlowSink(Sink):
    """Takes a millisecond of the server's clock for each datagram."""

    link: Link

    def datagram_received(self, data: bytes, arrival: int) -> None:
        super().datagram_received(data, arrival)
        self.link.time += 0.001


def test_packets_of_a_connection_that_takes_much_time_wait() -> None:
    link = Link()
    other = link.connect()
    slow = SlowSink(link.server.quic)
    slow.link = link
    link.server.quic.events = slow  # type: ignore[attr-defined]
    # So many packets are in flight only after more have been acknowledged.
    link.client.quic.send_stream(link.client.quic.open_stream(b"", True), bytes(1 << 20))
    link.run()
    packets = []
    for number in range(600):
        assert link.client.quic.send_datagram(str(number).encode())
        packets += [one for _, group in link.client_end.transmit(link.now) for one in group]
    assert len(packets) == 600
    assert other.quic.send_datagram(b"quick")
    packets += [one for _, group in link.client_end.transmit(link.now) for one in group]
    for packet in packets:
        link.server_end.receive(packet, CLIENT, link.now, int(link.now * 1e9))
    # The first packet is not measured; then two milliseconds, and all of the other.
    assert len(slow.datagrams) == 3
    assert link.accepted[1].datagrams == [b"quick"]
    waiting = link.server_end.waiting_packets
    assert waiting == 512
    assert link.server_end.counters.throttled_packets == len(packets) - 4 - waiting
    while link.server_end.waiting_packets:
        before = len(slow.datagrams)
        link.server_end.process_waiting()
        link.server_end.transmit(link.now)
        assert len(slow.datagrams) - before <= 3
    for _ in range(1_000):
        link.server_end.transmit(link.now)
    link.run(seconds=3)
    assert link.client.quic.send_datagram(b"late")
    link.run(lambda: slow.datagrams[-1] == b"late")
    assert slow.datagrams[-1] == b"late"
    assert slow.datagrams[:-1] == [str(number).encode() for number in range(515)]


def test_packets_that_wait_change_nothing_of_what_is_buffered() -> None:
    link = Link("aioquic", "quinn")
    assert isinstance(link.client.quic, AioquicConnection)
    end: Any = link.server_end
    quic: Any = link.server.quic
    quic.send_stream(quic.open_stream(b"", True), bytes(100 << 10))
    before = quic.count_buffers()
    assert before > 70 << 10
    end._throttle(quic)
    for _ in range(50):
        padded = make_packet(link.client.quic._quic, b"\x01" + bytes(1_100))
        end.receive(padded, CLIENT, link.now, int(link.now * 1e9))
    assert end.waiting_packets == 50
    while end.waiting_packets:
        end.process_waiting()
    assert abs(quic.count_buffers() - before) < 4 << 10


@pytest.mark.parametrize("engine", ["aioquic", "quinn"])
def test_packets_without_the_fixed_bit_begin_nothing(engine: Engine) -> None:
    """Nor do they pass by the measure of those that do."""
    end = engines.make_endpoint(
        EndpointConfig(certificate=CERTIFICATE, engine=engine), lambda: None, Sink
    )
    for first, begun in ((0x81, 0), (0xC1, 1)):
        end.receive(Stranger().initial(crypto_frame(0, b""), first), CLIENT, 1.0, 10**9)
        assert end.counters.connections == begun
        assert end.counters.dropped_packets == 1


@pytest.mark.parametrize("engine", ["aioquic", "quinn"])
def test_a_connection_that_cannot_be_accepted_leaves_nothing(engine: Engine) -> None:
    def refuse(quic: QuicConnection) -> Sink:
        raise RuntimeError("no memory")

    end = engines.make_endpoint(
        EndpointConfig(certificate=CERTIFICATE, engine=engine), lambda: None, refuse
    )
    for _ in range(3):
        with pytest.raises(RuntimeError, match="no memory"):
            end.receive(Stranger().initial(crypto_frame(0, b"")), CLIENT, 1.0, 10**9)
        assert len(end) == end.unfinished_handshakes == 0
        end.transmit(1.0)
    assert end.counters.connections == end.counters.handshake_failures == 0
    end.handle_timers(100.0)


def test_handshakes_that_take_much_time_wait() -> None:
    link = Link()
    firsts = [packet for packet in link.to_server if packet[0] & 0xF0 == 0xC0]
    make = link._accept

    def slow(quic: QuicConnection) -> Sink:
        link.time += 0.001
        return make(quic)

    link.server_end._accept = slow  # type: ignore[attr-defined]
    begun = link.server_end.counters.connections
    for port in range(2_000, 2_010):
        end = engines.make_endpoint(EndpointConfig(engine="quinn"), lambda: None)
        end.connect(SERVER, PINNED, Sink, link.now)
        for _, packets in end.transmit(link.now):
            for packet in packets:
                link.server_end.receive(packet, ("127.0.0.1", port), link.now, 10**12)
    assert firsts
    assert link.server_end.counters.connections == begun + 3
    assert link.server_end.waiting_packets > 0
    # Others are not delayed.
    link.client.quic.send_datagram(b"quick")
    for _, packets in link.client_end.transmit(link.now):
        for packet in packets:
            link.server_end.receive(packet, CLIENT, link.now, 10**12)
    assert link.server.datagrams == [b"quick"]
    while link.server_end.waiting_packets:
        link.server_end.process_waiting()
        link.server_end.transmit(link.now)
    assert link.server_end.counters.connections == begun + 10


def bare(**changes: Any) -> pingpong_engine.Endpoint:
    settings: dict[str, Any] = {
        "idle_timeout": 15 * 10**9,
        "window": 1 << 20,
        "stream_window": 1 << 18,
        "streams_bidi": 128,
        "streams_uni": 128,
        "worker": 0,
        "workers": 1,
        "retry_key": bytes(32),
        "reset_key": bytes(32),
        "max_connections": 10,
        "max_handshakes": 10,
    }
    return pingpong_engine.Endpoint(0, **settings | changes)


def test_wrong_arguments_are_errors_of_python() -> None:
    for changes in ({"worker": 1}, {"workers": 65}, {"workers": 0}):
        with pytest.raises(ValueError, match="worker"):
            bare(**changes)
    with pytest.raises(OverflowError):
        bare(window=1 << 40)
    end = bare()
    for address in (("localhost", 1), ("1.2.3.4", 99_999), (), ("::1", 1, 2, -1)):
        with pytest.raises((ValueError, OverflowError, IndexError)):
            end.connect(address, "localhost", 0)
    with pytest.raises(OSError, match="address"):
        end.connect(("127.0.0.1", 0), "localhost", 0)
    with pytest.raises(ValueError, match=r"key|certificate|PKCS|parse"):
        end.use_certificate([b"no certificate"], b"no key")
    assert len(end) == 0
    assert len(pingpong_engine.Authorities(b"no PEM")) == 0


def test_any_handle_and_any_stream_id() -> None:
    end = bare()
    handle = end.connect(("127.0.0.1", 1), "localhost", 2**64 - 1)
    numbers = (0, 1, 2, 3, 4, 2**32, handle, handle + 1, 2**62 - 1, 2**62, 2**64 - 1)
    for one, stream_id in itertools.product(numbers, numbers):
        end.send_stream(one, stream_id, b"x", True)
        end.buffered(one, stream_id)
        end.notify_writable(one, stream_id, 0)
        end.hold(one, stream_id, 10)
        end.release(one, stream_id, 5)
        end.is_receive_closed(one, stream_id)
        for call in (end.reset_stream, end.stop_sending):
            try:
                call(one, stream_id, 0)
            except ValueError:
                pytest.fail("of a code")
    for code in (2**62, 2**64 - 1):
        with pytest.raises(ValueError, match="2\\^62"):
            end.reset_stream(handle, 0, code)
    for one in numbers:
        end.can_open_stream(one, True)
        end.send_datagram(one, os.urandom(100))
        end.ping(one)
        end.statistics(one)
        end.events(one)
        end.close(one, 0, "x" * 100_000)
    end.transmit(5)
    end.handle_timers(2**64 - 1)
    end.abandon(handle)
    end.abandon(handle)
    assert end.take_drained() == [handle]
    with pytest.raises(pingpong_engine.QuicError, match="ended") as raised:
        end.open_stream(handle, b"", True)
    assert raised.value.args[0] == 1
