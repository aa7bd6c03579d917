"""What a hostile peer, or a careless user, can do to the QUIC engine quinn: nothing that it ends by.

An exception of Rust's (a panic) is no `Exception` in Python, so that it would fail any of these.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pingpong.webtransport.quic import engines
from pingpong.webtransport.quic.connection import AioquicConnection
from pingpong.webtransport.quic.engine import QuicEndpoint
from tests.fuzz.frames import View
from tests.fuzz.frames import payload as payload_of
from tests.fuzz.source import Source
from tests.webtransport.quic.packets import (
    Stranger,
    ack_frame,
    crypto_frame,
    numbers,
    packet,
    stream_frame,
)
from tests.webtransport.quic.test_quinn import CLIENT, PINNED, SERVER, Link, Sink

if TYPE_CHECKING or engines.is_installed("quinn"):
    import pingpong_engine

pytestmark = pytest.mark.quinn


class Recording(Link):
    """Keeps the packets of both sides."""

    def __init__(self, **settings: Any) -> None:
        self.packets: list[tuple[bool, bytes]] = []
        super().__init__(**settings)

    def _pass(self, source: QuicEndpoint, sink: QuicEndpoint, address: Any) -> bool:
        receive = sink.receive

        def keep(data: bytes, address: Any, now: float, arrival: int) -> None:
            self.packets.append((sink is self.server_end, data))
            receive(data, address, now, arrival)

        sink.receive = keep  # type: ignore[method-assign]
        try:
            return super()._pass(source, sink, address)
        finally:
            del sink.receive


def still_works(link: Link) -> bool:
    for end in (link.client_end, link.server_end):
        end.process_waiting()
    link.client.quic.send_datagram(b"alive")
    link.run(lambda: b"alive" in link.server.datagrams)
    return b"alive" in link.server.datagrams


def give(link: Link, packets: list[tuple[bool, bytes]]) -> None:
    """Packets from nowhere, to each side as it is marked; what is answered is lost."""
    for number, (to_server, data) in enumerate(packets):
        end = link.server_end if to_server else link.client_end
        end.receive(data, CLIENT if to_server else SERVER, link.now, int(link.now * 1e9))
        if number % 64 == 0:
            for one in (link.client_end, link.server_end):
                one.transmit(link.now)


def recorded() -> list[tuple[bool, bytes]]:
    """The packets of a handshake, and some after it."""
    link = Recording()
    link.client.quic.send_datagram(b"ping")
    link.run(seconds=0.1)
    seen: dict[tuple[bool, int, int], tuple[bool, bytes]] = {}
    for to_server, data in link.packets:
        seen.setdefault((to_server, data[0] & 0xF0, len(data) // 400), (to_server, data))
    return list(seen.values())


def test_every_byte_changed_and_every_length() -> None:
    for to_server, data in recorded():
        link = Link()
        changed = []
        for at in range(len(data)):
            for value in (0x00, 0xFF, data[at] ^ 0x01, data[at] ^ 0x80):
                # What follows the header is encrypted: a few of its bytes are as good as all.
                if at < 100 or at % 37 == 0:
                    changed.append((to_server, data[:at] + bytes((value,)) + data[at + 1 :]))
            changed.append((to_server, data[:at]))
        give(link, changed)
        assert still_works(link)


@pytest.mark.parametrize("seed", range(8))
def test_bytes_changed_of_the_first_packets_of_a_connection(seed: int) -> None:
    """Of one connection, whose ids are known to the endpoint."""
    draw = random.Random(seed)
    link = Recording()
    packets = link.packets[:]
    changed = []
    for _ in range(300):
        to_server, data = draw.choice(packets)
        body = bytearray(data)
        for _ in range(draw.randrange(1, 5)):
            body[draw.randrange(len(body))] = draw.randrange(256)
        changed.append((to_server, bytes(body[: draw.randrange(1, len(body) + 1)])))
    give(link, changed)
    assert still_works(link)


# Frames in packets that are authentic.

INTERESTING = (0, 1, 2, 3, 4, 63, 64, 1 << 14, (1 << 30) - 1, 1 << 32, (1 << 62) - 1)


def frames(draw: random.Random) -> bytes:
    """Some frames, with numbers that may be out of bounds, or bytes that are none."""
    if draw.random() < 0.5:
        return payload_of(Source(draw.randbytes(200)), View(is_client=True))[:1_100]
    payload = b""
    for _ in range(draw.randrange(1, 6)):
        kind = draw.choice([*range(0x20), 0x30, 0x31, 0xAF, 0x24, draw.randrange(1 << 14)])
        payload += numbers(kind)
        payload += numbers(
            *(
                draw.choice([draw.choice(INTERESTING), draw.randrange(20)])
                for _ in range(draw.randrange(6))
            )
        )
        if draw.random() < 0.5:
            payload += draw.randbytes(draw.randrange(40))
    return payload[:1_100]


@pytest.mark.parametrize("seed", range(8))
def test_any_frames_of_a_peer_with_keys(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(12):
        link = Link("aioquic", "quinn")
        assert isinstance(link.client.quic, AioquicConnection)
        quic = link.client.quic._quic
        for _ in range(40):
            data = packet(quic, frames(draw))
            link.server_end.receive(data, CLIENT, link.now, int(link.now * 1e9))
            if draw.random() < 0.3:
                link.server_end.transmit(link.now)
            if link.server.closed:
                break
        link.server_end.transmit(link.now)
        assert link.server.closed is None or link.server.closed[0] < 1 << 62
        link.now += 60
        link.server_end.handle_timers(link.now)
        link.server_end.transmit(link.now)
        link.now += 60
        link.server_end.handle_timers(link.now)
        assert len(link.server_end) == 0


OTHER, BOTH_WAYS = 6, 0
"""Streams of the client beside the one that is reset: a unidirectional one, and one that is not."""
TO_SERVER = {
    "PADDING": numbers(0x00),
    "PING": numbers(0x01),
    "ACK": ack_frame(0),
    "ACK with ECN": b"\x03" + ack_frame(0)[1:] + numbers(0, 0, 0),
    "RESET_STREAM": numbers(0x04, OTHER, 1, 1),
    "STOP_SENDING": numbers(0x05, BOTH_WAYS, 1),
    "CRYPTO": crypto_frame(0, b""),
    **{f"STREAM {kind:#x}": numbers(kind, OTHER, 1) + b"x" for kind in (0x0A, 0x0B)},
    **{f"STREAM {kind:#x}": numbers(kind, OTHER, 1, 1) + b"x" for kind in (0x0E, 0x0F)},
    "MAX_DATA": numbers(0x10, 1 << 21),
    "MAX_STREAM_DATA": numbers(0x11, BOTH_WAYS, 1 << 20),
    "MAX_STREAMS": numbers(0x12, 200),
    "MAX_STREAMS, unidirectional": numbers(0x13, 200),
    "DATA_BLOCKED": numbers(0x14, 1),
    "STREAM_DATA_BLOCKED": numbers(0x15, OTHER, 1),
    "STREAMS_BLOCKED": numbers(0x16, 1),
    "STREAMS_BLOCKED, unidirectional": numbers(0x17, 1),
    "NEW_CONNECTION_ID": numbers(0x18, 100, 100) + b"\x08" + bytes(8 + 16),
    "RETIRE_CONNECTION_ID": numbers(0x19, 1),
    "PATH_CHALLENGE": numbers(0x1A) + bytes(8),
    "PATH_RESPONSE": numbers(0x1B) + bytes(8),
    "IMMEDIATE_ACK": numbers(0x1F),
    "DATAGRAM": numbers(0x31, 1) + b"x",
    "ACK_FREQUENCY": numbers(0xAF, 1, 2, 30_000, 1),
}


@pytest.mark.parametrize("frame", TO_SERVER.values(), ids=TO_SERVER)
def test_the_end_of_a_stream_is_seen_behind_any_frame(frame: bytes) -> None:
    link = Link("aioquic", "quinn")
    assert isinstance(link.client.quic, AioquicConnection)
    for unidirectional in (True, True, False):
        link.client.quic.open_stream(b"x", unidirectional)
    link.run(lambda: len(link.server.data) == 3)
    link.server.quic.stop_sending(2, 9)
    data = packet(link.client.quic._quic, frame + numbers(0x04, 2, 7, 5))
    link.server_end.receive(data, CLIENT, link.now, int(link.now * 1e9))
    assert link.server.closed is None
    assert (2, 7, 5) in link.server.resets
    assert link.server.quic.is_receive_closed(2)


@pytest.mark.parametrize("frame", [numbers(0x07, 1) + b"x", numbers(0x1E)], ids=["token", "done"])
def test_the_end_of_a_stream_is_seen_behind_frames_that_only_a_server_sends(frame: bytes) -> None:
    link = Link("quinn", "aioquic")
    assert isinstance(link.server.quic, AioquicConnection)
    stream_id = link.server.quic.open_stream(b"x", True)
    link.run(lambda: link.client.data)
    link.client.quic.stop_sending(stream_id, 9)
    data = packet(link.server.quic._quic, frame + numbers(0x04, stream_id, 7, 5))
    link.client_end.receive(data, SERVER, link.now, int(link.now * 1e9))
    assert link.client.closed is None
    assert link.client.resets == [(stream_id, 7, 5)]


@pytest.mark.parametrize("late", [1, 127, 128])
def test_the_end_of_a_stream_is_seen_in_a_packet_that_is_late(late: int) -> None:
    link = Link("aioquic", "quinn")
    assert isinstance(link.client.quic, AioquicConnection)
    quic = link.client.quic._quic
    link.client.quic.open_stream(b"x", True)
    link.run(lambda: link.server.data)
    link.server.quic.stop_sending(2, 9)
    number = quic._packet_number
    for data in (
        packet(quic, numbers(0x01), number + late),
        packet(quic, numbers(0x04, 2, 7, 5), number),
    ):
        link.server_end.receive(data, CLIENT, link.now, int(link.now * 1e9))
    assert link.server.resets == [(2, 7, 5)]


@pytest.mark.parametrize(
    ("streams", "pieces", "closed"),
    [
        # Each piece has a hundred bytes or so of memory.
        (100, 30_000, (0x107, "this connection buffers too much data")),
        (1, 1_200, (0x01, "too many gaps in stream buffer")),
    ],
)
def test_bytes_with_gaps_between_them_are_bounded(
    streams: int, pieces: int, closed: tuple[int, str]
) -> None:
    link = Link("aioquic", "quinn", max_buffered=1 << 20)
    assert isinstance(link.client.quic, AioquicConnection)
    payload = b""
    for number in range(pieces):
        offset, stream = divmod(number, streams)
        payload += stream_frame(2 + 4 * stream, 1 + 2 * offset, b"x")
        if len(payload) > 1_100:
            data = packet(link.client.quic._quic, payload)
            link.server_end.receive(data, CLIENT, link.now, int(link.now * 1e9))
            link.server_end.transmit(link.now)
            payload = b""
        if link.server_end.counters.buffers_exceeded or link.server.closed:
            break
    link.server_end.transmit(link.now)
    assert link.server.closed is not None
    assert link.server.closed[:2] == closed


@pytest.mark.parametrize("seed", range(8))
def test_any_frames_before_a_handshake(seed: int) -> None:
    draw = random.Random(seed)
    link = Link()
    for number in range(200):
        stranger = Stranger(token=draw.randbytes(draw.choice([0, 0, 1, 64])))
        for _ in range(draw.randrange(1, 4)):
            data = stranger.initial(frames(draw))
            address = ("127.0.0.1", 2_000 + number)
            link.server_end.receive(data, address, link.now, int(link.now * 1e9))
            if draw.random() < 0.5:
                link.server_end.transmit(link.now)
    assert still_works(link)
    link.now += 11
    link.server_end.handle_timers(link.now)
    assert link.server_end.unfinished_handshakes == 0


# Calls in any order.

IDS = st.one_of(st.integers(0, 12), st.sampled_from([127, 1 << 20, (1 << 62) - 1, 1 << 62]))
SIZES = st.sampled_from([0, 1, 7, 1_000, 70_000, 300_000])
COUNTS = st.sampled_from([0, 1, 1_000, 1 << 20, 1 << 40, (1 << 63) - 1])
CODES = st.sampled_from([0, 1, 0x100, (1 << 62) - 1])
SIDES = st.booleans()

CALLS = st.one_of(
    st.tuples(st.just("open"), SIDES, SIZES, st.booleans()),
    st.tuples(st.just("send"), SIDES, IDS, SIZES, st.booleans()),
    st.tuples(st.just("datagram"), SIDES, SIZES),
    st.tuples(st.just("reset"), SIDES, IDS, CODES, COUNTS),
    st.tuples(st.just("stop"), SIDES, IDS, CODES),
    st.tuples(st.just("hold"), SIDES, IDS, COUNTS),
    st.tuples(st.just("release"), SIDES, IDS, COUNTS),
    st.tuples(st.just("notify"), SIDES, IDS, COUNTS),
    st.tuples(st.just("ask"), SIDES, IDS),
    st.tuples(st.just("ping"), SIDES),
    st.tuples(st.just("run"), st.sampled_from([0.01, 0.3, 20.0])),
    st.tuples(st.just("close"), SIDES, CODES, st.text(max_size=600)),
    st.tuples(st.just("connect")),
)


class Machine:
    """Does what is drawn, on both sides of a link."""

    def __init__(self) -> None:
        self.link = Link()

    def _quic(self, client: bool) -> Any:
        return (self.link.client if client else self.link.server).quic

    def open(self, client: bool, size: int, uni: bool) -> None:
        self._quic(client).open_stream(bytes(size), uni)

    def send(self, client: bool, stream_id: int, size: int, end: bool) -> None:
        self._quic(client).send_stream(stream_id, bytes(size), end)

    def datagram(self, client: bool, size: int) -> None:
        self._quic(client).send_datagram(bytes(size))

    def reset(self, client: bool, stream_id: int, code: int, size: int) -> None:
        assert self._quic(client).reset_stream(stream_id, code, size) >= 0

    def stop(self, client: bool, stream_id: int, code: int) -> None:
        self._quic(client).stop_sending(stream_id, code)

    def hold(self, client: bool, stream_id: int, size: int) -> None:
        self._quic(client).hold(stream_id, size)

    def release(self, client: bool, stream_id: int, size: int) -> None:
        self._quic(client).release(stream_id, size)

    def notify(self, client: bool, stream_id: int, below: int) -> None:
        self._quic(client).notify_writable(stream_id, below)

    def ask(self, client: bool, stream_id: int) -> None:
        quic = self._quic(client)
        assert quic.buffered(stream_id) >= 0
        quic.is_receive_closed(stream_id)
        for uni in (True, False):
            quic.can_open_stream(uni)
        quic.count_buffers()
        assert quic.address in (CLIENT, SERVER)
        path = quic.path_statistics
        assert path is None or path.lost_packets >= 0

    def ping(self, client: bool) -> None:
        self._quic(client).ping()

    def run(self, seconds: float) -> None:
        self.link.run(seconds=seconds)

    def close(self, client: bool, code: int, reason: str) -> None:
        self._quic(client).close(code, reason)

    def connect(self) -> None:
        self.link.client_end.connect(SERVER, PINNED, Sink, self.link.now)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(CALLS, max_size=40))
def test_calls_in_any_order(calls: list[tuple[Any, ...]]) -> None:
    machine = Machine()
    link = machine.link
    for name, *arguments in calls:
        act: Callable[..., None] = getattr(machine, name)
        # A stream is not opened on a connection that has ended.
        with contextlib.suppress(pingpong_engine.QuicError):
            act(*arguments)
    for _ in range(4):
        link.run(seconds=0.2)
    link.now += 60
    for end in (link.client_end, link.server_end):
        end.handle_timers(link.now)
        end.transmit(link.now)
    link.now += 60
    for end in (link.client_end, link.server_end):
        end.handle_timers(link.now)
        end.transmit(link.now)
        assert len(end) == 0
    for sink in (link.client, link.server):
        assert sink.closed is not None
