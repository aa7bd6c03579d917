"""The server's handlers over real QUIC and HTTP/3, with no socket and a clock that is a number."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pingpong.ping import (
    PROTOCOL,
    Deframer,
    Pong,
    decode_pong,
    encode_ping,
    frame,
)
from pingpong.server import handlers, messages
from pingpong.server.handlers import Router
from pingpong.server.messages import MessageCounters
from pingpong.webtransport.config import Windows
from pingpong.webtransport.events import State
from pingpong.webtransport.limits import Limits
from pingpong.webtransport.session import Session
from pingpong.webtransport.streams import Stream
from tests.webtransport.wire import LATENCY, Recorder, Wire

MAX_SIZE = 1000


class Asking:
    """A client with a session on a server that answers."""

    def __init__(
        self,
        path: str = "/ping",
        *,
        v1: bool = False,
        wire: Wire | None = None,
        max_size: int = MAX_SIZE,
    ) -> None:
        self.wire = wire or Wire()
        self.router = Router(max_size)
        self.wire.server.decide = self.router.session_requested
        self.session: Session
        self.told: Recorder
        self.session, self.told = self.wire.session(path=path, protocols=(PROTOCOL,) if v1 else ())

    @property
    def counters(self) -> MessageCounters:
        return self.router.counters

    def open(self, *parts: bytes, uni: bool = False, end: bool = False) -> Stream:
        """Open a stream and send these bytes, each part in packets of its own."""
        stream = self.session.open_stream(self.told, unidirectional=uni)
        for part in parts:
            stream.send(part)
            self.wire.run()
        if end:
            stream.send(b"", True)
        self.wire.run()
        return stream

    def datagrams(self, *datagrams: bytes) -> list[bytes]:
        """Send datagrams, and return those that come back."""
        before = len(self.told.datagrams)
        for data in datagrams:
            assert self.session.send_datagram(data)
        self.wire.run()
        return self.told.datagrams[before:]

    def pongs(self, stream: Stream) -> list[Pong | None]:
        return [decode_pong(m) for m in Deframer(1 << 20).feed(self.told.data[stream.id])]

    def uni_answers(self) -> list[bytes]:
        """What came on unidirectional streams, each ended."""
        opened = [stream.id for stream in self.told.opened]
        assert all(stream.is_unidirectional for stream in self.told.opened)
        return [self.told.data.get(one, b"") for one in opened if one in self.told.ended]

    def assert_counts(
        self,
        received: dict[str, int],
        answered: dict[str, int] | None = None,
        **dropped: dict[str, int],
    ) -> None:
        counters = self.counters
        assert +counters.received == received
        assert +counters.answered == (received if answered is None else answered)
        flat = {(mode, why): n for mode, reasons in dropped.items() for why, n in reasons.items()}
        assert dict(counters.dropped) == flat


@pytest.fixture
def t3(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The server's clock when it answers: counts up from 7,000."""
    given_out: list[int] = []

    def monotonic_ns() -> int:
        given_out.append(7_000 + len(given_out))
        return given_out[-1]

    monkeypatch.setattr(handlers, "time", SimpleNamespace(monotonic_ns=monotonic_ns))
    return given_out


# Paths


@pytest.mark.parametrize("path", ["/", "/ping", "/ping?x=1", "/?"])
def test_paths_that_answer(path: str) -> None:
    assert Asking(path).datagrams(b"ping") == [b"pong"]


@pytest.mark.parametrize("path", ["/pong", "/ping/", "/Ping", "//", "/pin", "/x?/ping", "/echo/"])
def test_unknown_paths_get_404(path: str) -> None:
    asking = Asking(path)
    assert asking.session.state is State.CLOSED
    assert asking.told.closed is not None
    assert asking.told.closed.status == 404
    # The connection goes on.
    session, _ = asking.wire.session(path="/ping")
    assert session.state is State.ESTABLISHED


def test_protocol_is_chosen_only_where_it_is_offered() -> None:
    assert Asking(v1=True).session.protocol == PROTOCOL
    assert Asking().session.protocol is None
    wire = Wire()
    wire.server.decide = Router(MAX_SIZE).session_requested
    session, _ = wire.session(path="/ping", protocols=("other", PROTOCOL))
    assert session.protocol == PROTOCOL
    session, _ = wire.session(path="/ping", protocols=("other",))
    assert session.protocol is None
    assert session.state is State.ESTABLISHED


# Plain


def test_plain_datagrams() -> None:
    asking = Asking()
    assert asking.datagrams(b"ping", b"ping!\0", b"pin", b"", b"pong") == [
        b"pong",
        b"pong!\0",
        b"?",
        b"?",
        b"?",
    ]
    asking.assert_counts({"datagram": 5})
    assert asking.counters.received_bytes == 4 + 6 + 3 + 0 + 4
    assert asking.counters.sent_bytes == 4 + 6 + 3


def test_plain_stream_answers_at_once_and_stays_open() -> None:
    asking = Asking()
    stream = asking.open(b"ping")
    assert asking.told.data[stream.id] == b"pong"
    assert stream.id not in asking.told.ended
    stream.send(b"pi")
    asking.wire.run()
    assert asking.told.data[stream.id] == b"pong"
    stream.send(b"ngpingx")
    asking.wire.run()
    assert asking.told.data[stream.id] == b"pongpongpong?"
    stream.send(b"yzpin", True)
    asking.wire.run()
    assert asking.told.data[stream.id] == b"pongpongpong?"
    assert stream.id in asking.told.ended
    asking.assert_counts({"stream": 4})
    assert asking.counters.received_bytes == 4 + 2 + 7 + 5
    assert asking.counters.sent_bytes == 13
    assert not asking.session.streams


def test_plain_stream_a_ping() -> None:
    asking = Asking()
    streams = [asking.open(b"ping", end=True) for _ in range(3)]
    assert [asking.told.data[one.id] for one in streams] == [b"pong"] * 3
    assert {one.id for one in streams} <= asking.told.ended
    asking.assert_counts({"stream": 3})


def test_an_empty_stream_ends_without_an_answer() -> None:
    asking = Asking()
    stream = asking.open(end=True)
    assert stream.id in asking.told.ended
    assert stream.id not in asking.told.data or not asking.told.data[stream.id]
    asking.assert_counts({})


@given(st.lists(st.sampled_from([b"p", b"pi", b"ng", b"ping", b"in", b"x"]), max_size=12))
@settings(max_examples=20)
def test_plain_answers_do_not_depend_on_the_cuts(parts: list[bytes]) -> None:
    asking = Asking()
    cut = asking.open(*parts, end=True)
    whole = asking.open(b"".join(parts), end=True)
    assert asking.told.data.get(cut.id, b"") == asking.told.data.get(whole.id, b"")
    assert {cut.id, whole.id} <= asking.told.ended


def test_plain_uni() -> None:
    asking = Asking()
    asking.open(b"pi", b"ng", b"-1", uni=True, end=True)
    assert asking.uni_answers() == [b"pong-1"]
    asking.open(b"hello", uni=True, end=True)
    asking.open(uni=True, end=True)
    assert asking.uni_answers() == [b"pong-1", b"?", b"?"]
    asking.assert_counts({"uni": 3})
    assert asking.counters.sent_bytes == 6 + 2


def test_plain_uni_that_is_never_finished() -> None:
    asking = Asking()
    stream = asking.open(b"ping", uni=True)
    assert asking.uni_answers() == []
    stream.reset(3)
    asking.wire.run()
    assert asking.uni_answers() == []
    asking.assert_counts({})


def test_plain_uni_too_large() -> None:
    asking = Asking()
    fits = asking.open(b"ping" + bytes(MAX_SIZE - 4), uni=True, end=True)
    stream = asking.open(b"ping" + bytes(MAX_SIZE - 3), uni=True)
    assert asking.told.stops == {stream.id: 1}
    assert fits.id != stream.id
    assert asking.uni_answers() == [b"pong" + bytes(MAX_SIZE - 4)]
    asking.assert_counts({"uni": 1}, uni={"too_large": 1})


# pingpong.v1


def test_v1_datagram(t3: list[int]) -> None:
    asking = Asking(v1=True)
    before = asking.wire.now
    message = encode_ping(5, 1234, 80)[:-1] + b"!"
    (answer,) = asking.datagrams(message)
    pong = decode_pong(answer)
    assert pong is not None
    assert (pong.seq, pong.received, pong.t1, pong.t3) == (5, 1, 1234, 7_000)
    # The packet's arrival, exactly: one latency of the wire after it was sent.
    assert pong.t2 == int((before + LATENCY) * 1e9)
    assert answer[36:] == message[36:]
    asking.assert_counts({"datagram": 1})
    assert asking.counters.received_bytes == asking.counters.sent_bytes == 80


def test_v1_received_counts_pings_of_the_session_in_all_modes() -> None:
    asking = Asking(v1=True)
    first = decode_pong(asking.datagrams(encode_ping(1, 0))[0])
    stream = asking.open(frame(encode_ping(2, 0)), frame(encode_ping(3, 0)))
    asking.open(frame(encode_ping(4, 0)), uni=True, end=True)
    asking.datagrams(b"nonsense")
    last = decode_pong(asking.datagrams(encode_ping(5, 0))[0])
    (uni,) = asking.told.opened
    pongs = [first, *asking.pongs(stream), *asking.pongs(uni), last]
    assert [(pong.seq, pong.received) for pong in pongs if pong] == [(n, n) for n in range(1, 6)]
    # Another session counts anew.
    session, told = asking.wire.session(path="/ping", protocols=(PROTOCOL,))
    session.send_datagram(encode_ping(9, 0))
    asking.wire.run()
    other = decode_pong(told.datagrams[0])
    assert other is not None
    assert other.received == 1


def test_v1_malformed_datagrams() -> None:
    asking = Asking(v1=True)
    assert asking.datagrams(b"", b"ping", encode_ping(1, 0)[:35], b"pong" + bytes(60)) == []
    asking.assert_counts({}, datagram={"malformed": 4})
    assert len(asking.datagrams(encode_ping(1, 0, 36))) == 1


def test_v1_stream_cut_anywhere() -> None:
    asking = Asking(v1=True)
    whole = frame(encode_ping(1, 10, 100)) + frame(encode_ping(2, 20, 40))
    stream = asking.open(*[whole[i : i + 1] for i in range(len(whole))])
    assert [(p.seq, p.t1) for p in asking.pongs(stream) if p] == [(1, 10), (2, 20)]
    assert stream.id not in asking.told.ended
    stream.send(b"", True)
    asking.wire.run()
    assert stream.id in asking.told.ended
    asking.assert_counts({"stream": 2})
    assert asking.counters.sent_bytes == asking.counters.received_bytes == 140


def test_v1_stream_malformed_and_truncated() -> None:
    asking = Asking(v1=True)
    good = frame(encode_ping(1, 0))
    stream = asking.open(frame(b"nonsense") + good + frame(b"") + good[:20], end=True)
    assert [p.seq for p in asking.pongs(stream) if p] == [1]
    assert stream.id in asking.told.ended
    asking.assert_counts({"stream": 1}, stream={"malformed": 3})


@pytest.mark.parametrize("ended", [False, True])
def test_v1_stream_too_large(ended: bool) -> None:
    asking = Asking(v1=True)
    largest = frame(encode_ping(1, 0, MAX_SIZE))
    stream = asking.open(largest, end=False)
    assert [p.seq for p in asking.pongs(stream) if p] == [1]
    stream.send(frame(encode_ping(2, 0, MAX_SIZE + 1)), ended)
    asking.wire.run()
    assert asking.told.resets == {stream.id: 1}
    if not ended:
        assert asking.told.stops == {stream.id: 1}
    asking.assert_counts({"stream": 1}, stream={"too_large": 1})
    assert not asking.session.streams
    assert asking.session.state is State.ESTABLISHED


def test_v1_uni_answers_what_came_before_a_message_that_is_too_large() -> None:
    """Whether it came in the same packet or not."""
    asking = Asking(v1=True)
    ping, large = frame(encode_ping(1, 0)), frame(bytes(MAX_SIZE + 1))
    first = asking.open(ping + ping + large, uni=True)
    second = asking.open(ping + ping, large, uni=True)
    assert asking.told.stops == {first.id: 1, second.id: 1}
    answers = [Deframer(MAX_SIZE).feed(answer) for answer in asking.uni_answers()]
    assert [len(answer) for answer in answers] == [2, 2]
    asking.assert_counts({"uni": 4}, uni={"too_large": 2})


def test_v1_uni() -> None:
    asking = Asking(v1=True)
    asking.open(frame(encode_ping(1, 0)), uni=True, end=True)
    asking.open(frame(b"nonsense"), uni=True, end=True)
    asking.open(frame(encode_ping(2, 0))[:-1], uni=True, end=True)
    (answer,) = asking.told.opened
    assert [p.seq for p in asking.pongs(answer) if p] == [1]
    assert answer.id in asking.told.ended
    asking.assert_counts({"uni": 1}, uni={"malformed": 2})


# Peers that leave or do not read


def test_reset_and_stop() -> None:
    asking = Asking()
    stream = asking.open(b"ping")
    stream.reset(5)
    asking.wire.run()
    assert asking.told.data[stream.id] == b"pong"
    assert stream.id in asking.told.ended
    stream = asking.open(b"ping")
    stream.stop(6)
    asking.wire.run()
    # Nothing more is to be asked either: the answer to STOP_SENDING is one of our own.
    assert asking.told.stops == {stream.id: 6}
    assert not asking.session.streams
    asking.assert_counts({"stream": 2})
    asking.session.close()
    asking.wire.run()
    asking.wire.server.assert_nothing_left()


def unread(path: str, ask: bytes, **options: bool) -> tuple[Asking, Stream, int]:
    """A client that asks, through one stream, for more than it reads, until nothing goes on."""
    # Little room for answers, so that all that waits waits at the server.
    wire = Wire(client_windows=Windows(stream=16 << 10, connection=64 << 10))
    asking = Asking(path, wire=wire, **options)
    asking.told.holding = True
    stream = asking.session.open_stream(asking.told)
    total = 0
    while total < 3 << 20:
        stream.send(ask)
        total += len(ask)
    wire.run(2.0)
    return asking, stream, total


@pytest.mark.parametrize(
    ("path", "v1", "ask"),
    [
        ("/ping", False, b"ping" * 8192),
        ("/ping", True, frame(encode_ping(1, 0, 1000)) * 32),
        ("/echo", False, bytes(32768)),
    ],
)
def test_a_peer_that_does_not_read_is_soon_unable_to_ask(path: str, v1: bool, ask: bytes) -> None:
    asking, stream, total = unread(path, ask, v1=v1)
    wire, engine = asking.wire, asking.wire.server.engine
    # What it may have open on the way in, and no more, is kept; so is what it may not read.
    held = engine._quic.held_total
    window = Windows().stream
    assert 0 < held <= window
    assert engine.buffered(stream.id) <= messages.UNREAD_HIGH_WATER + 64 * 1024
    assert stream.buffered >= total - 2 * window - messages.UNREAD_HIGH_WATER
    # It reads, and gets all of it.
    asking.told.holding = False
    stream.release(1 << 30)
    stream.send(b"", True)
    wire.run(5.0)
    assert stream.id in asking.told.ended
    assert len(asking.told.data[stream.id]) == total
    assert engine._quic.held_total == 0
    if path == "/ping":
        asked = total // 4 if not v1 else total // len(frame(encode_ping(1, 0, 1000)))
        asking.assert_counts({"stream": asked})


@pytest.mark.parametrize("how", ["reset", "stop", "close"])
@pytest.mark.parametrize("path", ["/ping", "/echo"])
def test_leaving_while_paused_leaves_nothing(path: str, how: str) -> None:
    asking, stream, _ = unread(path, b"ping" * 8192)
    engine = asking.wire.server.engine
    assert engine._quic.held_total > 0
    if how == "close":
        asking.session.close()
    elif how == "reset":
        stream.reset(9)
        stream.stop(9)
    else:
        stream.stop(9)
        stream.reset(9)
    asking.wire.run(2.0)
    assert engine._quic.held_total == 0
    # Answered is what was: what was only held is not counted.
    assert asking.counters.received == asking.counters.answered
    asking.session.close()
    asking.wire.run(2.0)
    asking.wire.server.assert_nothing_left()


def test_uni_answers_wait_for_stream_credit() -> None:
    wire = Wire(client_limits=Limits(initial_max_streams_uni=2))
    asking = Asking(wire=wire)
    asking.told.holding = True
    for n in range(5):
        asking.open(b"ping%d" % n, uni=True, end=True)
    assert asking.uni_answers() == [b"pong0", b"pong1"]
    asking.assert_counts({"uni": 5}, {"uni": 2})
    for stream in asking.told.opened[:2]:
        stream.release(100)
    asking.wire.run()
    assert asking.uni_answers() == [b"pong0", b"pong1", b"pong2", b"pong3"]
    asking.session.close()
    asking.wire.run()
    asking.assert_counts({"uni": 5}, {"uni": 4}, uni={"closed": 1})


def test_uni_answers_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "WAITING_ANSWERS", 3)
    asking = Asking(wire=Wire(client_limits=Limits(initial_max_streams_uni=1)))
    asking.told.holding = True
    for n in range(6):
        asking.open(b"ping%d" % n, uni=True, end=True)
    asking.assert_counts({"uni": 6}, {"uni": 1}, uni={"queue_full": 2})
    asking.told.holding = False
    asking.told.opened[0].release(100)
    asking.wire.run()
    assert asking.uni_answers() == [b"pong0", b"pong1", b"pong2", b"pong3"]


def test_uni_answers_that_nobody_reads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that grants streams, but no bytes on them."""
    monkeypatch.setattr(messages, "UNREAD_ANSWER_BYTES", 4 * MAX_SIZE)
    wire = Wire(client_windows=Windows(stream=1 << 20, connection=2000))
    asking = Asking(wire=wire)
    asking.told.holding = True
    for _ in range(20):
        asking.open(b"ping" + bytes(MAX_SIZE - 4), uni=True, end=True)
    answered = asking.counters.answered["uni"]
    assert 4 <= answered < 10
    asking.assert_counts({"uni": 20}, {"uni": answered}, uni={"unread": 20 - answered})
    # It reads on, and is answered again.
    asking.told.holding = False
    for stream in asking.told.opened:
        stream.release(MAX_SIZE)
    wire.run(2.0)
    asking.open(b"ping!", uni=True, end=True)
    assert asking.uni_answers()[-1] == b"pong!"


def test_many_uni_pings_leave_nothing() -> None:
    asking = Asking(v1=True)
    for n in range(300):
        asking.open(frame(encode_ping(n, 0)), uni=True, end=True)
    assert len(asking.uni_answers()) == 300
    (session,) = asking.wire.server.sessions
    assert isinstance(session.handler, handlers.PingSession)
    assert len(session.handler.uni_answers._unread) <= 1
    assert session.handler.uni_answers._pending_bytes < 100
    asking.session.close()
    asking.wire.run()
    asking.wire.server.assert_nothing_left()


def test_datagram_answer_that_does_not_fit() -> None:
    asking = Asking()
    limit = asking.session.max_datagram_size
    assert len(asking.datagrams(b"ping" + bytes(limit - 4))) == 1
    asking.assert_counts({"datagram": 1})


# Echo


def test_echo_datagrams() -> None:
    asking = Asking("/echo")
    assert asking.datagrams(b"", b"ping", bytes(100)) == [b"", b"ping", bytes(100)]
    asking.assert_counts({})


def test_echo_stream_while_it_is_sent() -> None:
    asking = Asking("/echo")
    stream = asking.open(b"one")
    assert asking.told.data[stream.id] == b"one"
    stream.send(b"two")
    asking.wire.run()
    assert asking.told.data[stream.id] == b"onetwo"
    assert stream.id not in asking.told.ended
    stream.send(b"three", True)
    asking.wire.run()
    assert asking.told.data[stream.id] == b"onetwothree"
    assert stream.id in asking.told.ended


def test_echo_of_ends() -> None:
    asking = Asking("/echo")
    reset = asking.open(b"one")
    reset.reset(77)
    asking.wire.run()
    assert asking.told.resets == {reset.id: 77}
    stopped = asking.open(b"one")
    stopped.stop(78)
    asking.wire.run()
    assert asking.told.stops == {stopped.id: 78}
    assert not asking.session.streams
    asking.session.close()
    asking.wire.run()
    asking.wire.server.assert_nothing_left()


def test_echo_uni() -> None:
    asking = Asking("/echo")
    asking.open(b"on", b"e", uni=True, end=True)
    large = asking.open(bytes(MAX_SIZE + 1), uni=True)
    assert asking.uni_answers() == [b"one"]
    assert asking.told.stops == {large.id: 1}
    asking.assert_counts({}, echo={"too_large": 1})
