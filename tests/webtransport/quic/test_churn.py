"""Nothing is kept of what has ended: on the objects, and in memory."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pingpong.webtransport.events import Request, SessionClosed
from pingpong.webtransport.limits import Limits
from pingpong.webtransport.quic.aioquic import HookedConnection
from pingpong.webtransport.session import Session
from pingpong.webtransport.states import State
from pingpong.webtransport.streams import Stream
from tests.webtransport.wire import Recorder, Wire


class Answering(Recorder):
    """Ends its half of every stream as soon as it comes; remembers nothing."""

    def stream_opened(self, stream: Stream) -> Recorder:
        if not stream.is_unidirectional:
            stream.send(b"pong", True)
        return self

    def stream_data_received(
        self, stream: Stream, data: bytes, end_stream: bool, arrival: int
    ) -> None:
        pass

    def stream_reset_received(self, stream: Stream, code: int | None) -> None:
        pass

    def stop_sending_received(self, stream: Stream, code: int | None) -> None:
        pass


def allocated(work: Callable[[], None]) -> int:
    """Bytes that are still allocated after some work, above those before it."""
    gc.collect()
    tracemalloc.start(1)
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def streams(wire: Wire, session: Session, count: int) -> None:
    """Open, use and end streams of all kinds in all ways, 50 at a time."""
    recorder = Answering()
    for number in range(0, count, 50):
        for index in range(50):
            stream = session.open_stream(recorder, unidirectional=bool(index & 1))
            stream.send(b"ping", index % 10 < 8)
            if index % 10 == 8:
                stream.reset(index)
            elif index % 10 == 9:
                stream.send(b"", True)
                stream.stop()
        wire.run(0.01 if number % 1000 else 0.1)
    wire.run(1)


def test_10000_streams_through_one_session_leave_nothing() -> None:
    wire = Wire()
    wire.server.decide = lambda session: session.accept(Answering())
    session, _ = wire.session()
    peer = wire.server.sessions[0]
    streams(wire, session, 9_500)
    # What is warm by now grows no more.
    grown = allocated(lambda: streams(wire, session, 500))
    assert session.streams == set()
    assert peer.streams == set()
    wire.client.assert_nothing_left(session.id)
    wire.server.assert_nothing_left(session.id)
    assert wire.client.engine._quic.get_next_available_stream_id() == 4 + 4 * 5_000
    assert grown < 100_000


def sessions(wire: Wire, count: int) -> None:
    for number in range(count):
        recorder = Answering()
        session, _ = wire.session() if number % 100 == 0 else (open_session(wire, recorder), None)
        session.send_datagram(b"ping")
        session.open_stream(recorder).send(b"ping", bool(number & 1))
        if number % 3 == 0:
            wire.server.sessions[-1].close(number, "server")
        else:
            session.close(number, "client")
        wire.server.sessions.clear()
        wire.run(0.002)
    wire.run(1)


def open_session(wire: Wire, recorder: Recorder) -> Session:
    session = wire.client.connection.open_session(Request("localhost", "/"), recorder)
    wire.run(0.002)
    return session


def test_1000_sessions_through_one_connection_leave_nothing() -> None:
    wire = Wire()
    wire.server.decide = lambda session: session.accept(Answering())
    sessions(wire, 960)
    grown = allocated(lambda: sessions(wire, 40))
    wire.client.assert_nothing_left()
    wire.server.assert_nothing_left()
    assert wire.client.connection.sessions == ()
    assert grown < 50_000


def test_connections_leave_nothing_at_the_endpoints() -> None:
    wire = Wire(connect=False)

    def connections() -> None:
        for _ in range(8):
            wire.client.closed = wire.server.closed = None
            wire.connect()
            session, recorder = wire.session()
            session.open_stream(recorder).send(b"x")
            wire.client.connection.close()
            wire.run(1)
            for side in (wire.client, wire.server):
                side.connections.clear()
                side.sessions.clear()
                side.ended.clear()

    connections()
    grown = allocated(connections)
    for end in (wire.client_end, wire.server_end):
        assert len(end) == 0
        assert end.unfinished_handshakes == 0
        assert end._routes == {}
        assert end.next_timer() is None
        assert not end._to_transmit
        assert not end._stateless_packets
    assert grown < 20_000


def test_a_busy_connection_keeps_few_timers() -> None:
    wire = Wire()
    session, _, peer, _ = wire.pair()
    for number in range(1_000):
        session.send_datagram(b"ping")
        wire.step()
        if number % 3:
            peer.send_datagram(b"pong")
        wire.run(0.003)
    assert len(wire.client_end._timers) <= 4
    assert len(wire.server_end._timers) <= 4


IDLE_TIMEOUT = 300.0
"""Seconds: a connection that loses many packets is not to end by that."""
SIDES = st.booleans()
WHICH = st.integers(0, 1 << 16)
CODES = st.integers(0, 0xFFFF_FFFF)


class End:
    """A session as one side has it, and what that side was told."""

    def __init__(self, session: Session, recorder: Recorder) -> None:
        self.session = session
        self.recorder = recorder
        self.streams: list[Stream] = []


def check_prepare(quic: HookedConnection) -> None:
    """Have it checked that there are no packets where `prepare` says so, without making them."""
    original = quic.prepare

    def prepare(now: float, *, has_news: bool) -> bool:
        answer = original(now, has_news=has_news)
        assert answer or quic.datagrams_to_send(now) == []
        return answer

    quic.prepare = prepare  # type: ignore[method-assign]


class TwoSides(RuleBasedStateMachine):
    """Both sides' public API, in any order and over a bad network, against a simple model.

    The model: what each half of a stream was given to send, and how each session was
    closed first. However it went, at the end of it all nothing is left of any of it.
    """

    @initialize(flow_control=st.booleans())
    def connect(self, flow_control: bool) -> None:
        limits = Limits(initial_max_data=2_000, initial_max_streams_bidi=3)
        self.wire = Wire(
            client_limits=limits if flow_control else Limits(), idle_timeout=IDLE_TIMEOUT
        )
        for side in (self.wire.client, self.wire.server):
            check_prepare(side.engine._quic)
        self.sent: dict[tuple[int, bool], bytes] = {}
        """By a stream's id, and whether its client sent it."""
        self.pairs: list[tuple[End, End]] = []
        self.gone: list[End] = []
        self.open_session()
        self.open_session()

    def run_until(self, happened: Callable[[], bool]) -> None:
        for _ in range(100):
            if happened():
                return
            self.wire.run(1)
        raise AssertionError("it does not happen")

    def end(self, which: int, is_client: bool) -> End:
        client, server = self.pairs[which % len(self.pairs)]
        end = client if is_client else server
        while end.recorder.opened:
            end.streams.append(end.recorder.opened.pop())
        return end

    @rule()
    def open_session(self) -> None:
        if self.wire.server.connection.draining or len(self.pairs) >= 4:
            return
        session, recorder = self.wire.session()
        self.run_until(lambda: bool(recorder.established))
        peer = self.wire.server.sessions[-1]
        assert isinstance(peer.handler, Recorder)
        self.pairs.append((End(session, recorder), End(peer, peer.handler)))

    @rule(which=WHICH, is_client=SIDES, unidirectional=st.booleans())
    def open_stream(self, which: int, is_client: bool, unidirectional: bool) -> None:
        end = self.end(which, is_client)
        if end.session.can_open_stream(unidirectional):
            stream = end.session.open_stream(end.recorder, unidirectional=unidirectional)
            end.streams.append(stream)

    def stream(self, which: int, is_client: bool) -> Stream | None:
        streams = self.end(which, is_client).streams
        return streams[which % len(streams)] if streams else None

    @rule(which=WHICH, is_client=SIDES, data=st.binary(max_size=3_000), end=st.booleans())
    def send(self, which: int, is_client: bool, data: bytes, end: bool) -> None:
        stream = self.stream(which, is_client)
        if stream is not None and stream.send_open:
            stream.send(data, end)
            key = stream.id, is_client
            self.sent[key] = self.sent.get(key, b"") + data

    @rule(which=WHICH, is_client=SIDES, code=CODES)
    def reset(self, which: int, is_client: bool, code: int) -> None:
        stream = self.stream(which, is_client)
        if stream is not None:
            stream.reset(code)
            assert not stream.send_open

    @rule(which=WHICH, is_client=SIDES, code=CODES)
    def stop(self, which: int, is_client: bool, code: int) -> None:
        stream = self.stream(which, is_client)
        if stream is not None:
            stream.stop(code)

    @rule(which=WHICH, is_client=SIDES, below=st.integers(0, 100))
    def notify_writable(self, which: int, is_client: bool, below: int) -> None:
        stream = self.stream(which, is_client)
        if stream is not None and stream.buffered > below:
            stream.notify_writable(below)

    @rule(which=WHICH, is_client=SIDES, holding=st.booleans())
    def read(self, which: int, is_client: bool, holding: bool) -> None:
        end = self.end(which, is_client)
        end.recorder.holding = holding
        if not holding:
            for stream in end.streams:
                stream.release(1 << 30)

    @rule(which=WHICH, is_client=SIDES, size=st.integers(0, 1_000))
    def send_datagram(self, which: int, is_client: bool, size: int) -> None:
        self.end(which, is_client).session.send_datagram(bytes(size))

    @rule(which=WHICH, is_client=SIDES)
    def drain(self, which: int, is_client: bool) -> None:
        self.end(which, is_client).session.drain()

    @rule(which=WHICH, is_client=SIDES, code=CODES, reason=st.text(max_size=10))
    def close(self, which: int, is_client: bool, code: int, reason: str) -> None:
        if len(self.pairs) < 2:
            return
        client, server = self.pairs.pop(which % len(self.pairs))
        self.gone += [client, server]
        end, other = (client, server) if is_client else (server, client)
        end.session.close(code, reason)
        assert end.recorder.closed == SessionClosed(code=code, reason=reason, by_peer=False)
        self.run_until(lambda: other.recorder.closed is not None)
        assert other.recorder.closed == SessionClosed(code=code, reason=reason)

    @rule()
    def drain_connection(self) -> None:
        self.wire.server.connection.drain()

    @rule(seed=st.integers(0, 1 << 16), loss=st.sampled_from([0.0, 0.1, 0.3]))
    def lose(self, seed: int, loss: float) -> None:
        chance = Random(seed)
        self.wire.lose = lambda packet, to_server: chance.random() < loss

    @rule(reverse=st.booleans(), twice=st.booleans())
    def disturb(self, reverse: bool, twice: bool) -> None:
        def network(packets: list[bytes], to_server: bool) -> list[bytes]:
            return (packets[::-1] if reverse else packets) * (1 + twice)

        self.wire.network = network

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.05, 1.0]))
    def run(self, seconds: float) -> None:
        self.wire.run(seconds)

    @rule()
    def step(self) -> None:
        self.wire.step()

    @invariant()
    def nobody_is_at_fault(self) -> None:
        for side in (self.wire.client, self.wire.server):
            assert side.errors == []
            assert side.closed is None
        for end in self.gone:
            assert end.session.state is State.CLOSED

    @invariant()
    def what_arrives_is_what_was_sent(self) -> None:
        for pair in self.pairs:
            for end, is_client in zip(pair, (True, False), strict=True):
                for stream_id, data in end.recorder.data.items():
                    sent = self.sent.get((stream_id, not is_client), b"")
                    assert sent.startswith(data)
                    if stream_id in end.recorder.ended:
                        assert sent == data

    def teardown(self) -> None:
        wire = self.wire
        wire.lose = lambda packet, to_server: False
        wire.network = lambda packets, to_server: packets
        for client, server in self.pairs:
            client.session.close()
            self.gone += [client, server]
        wire.run(10)
        assert all(end.recorder.closed is not None for end in self.gone)
        wire.client.assert_nothing_left()
        wire.server.assert_nothing_left()
        wire.client.connection.close()
        wire.run(5)
        assert len(wire.client_end) == len(wire.server_end) == 0


TwoSides.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestTwoSides = TwoSides.TestCase
