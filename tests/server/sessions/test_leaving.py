"""Peers that leave, or do not read, and the echo: over real QUIC, with no socket."""

from __future__ import annotations

import pytest

from pingpong.ping import (
    encode_ping,
    frame,
)
from pingpong.server.sessions import messages
from pingpong.webtransport.limits import Limits
from pingpong.webtransport.quic.config import Windows
from pingpong.webtransport.streams import Stream
from tests.server.sessions.asking import MAX_SIZE, Asking
from tests.webtransport.wire import Wire

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
    held = engine.held
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
    assert engine.held == 0
    if path == "/ping":
        asked = total // 4 if not v1 else total // len(frame(encode_ping(1, 0, 1000)))
        asking.assert_counts({"stream": asked})


@pytest.mark.parametrize("how", ["reset", "stop", "close"])
@pytest.mark.parametrize("path", ["/ping", "/echo"])
def test_leaving_while_paused_leaves_nothing(path: str, how: str) -> None:
    asking, stream, _ = unread(path, b"ping" * 8192)
    engine = asking.wire.server.engine
    assert engine.held > 0
    if how == "close":
        asking.session.close()
    elif how == "reset":
        stream.reset(9)
        stream.stop(9)
    else:
        stream.stop(9)
        stream.reset(9)
    asking.wire.run(2.0)
    assert engine.held == 0
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


def test_unread_uni_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_many_uni_pings_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # With answers that were read it would soon be too many.
    monkeypatch.setattr(messages, "UNREAD_ANSWERS", 2)
    monkeypatch.setattr(messages, "UNREAD_ANSWER_BYTES", 100)
    asking = Asking(v1=True)
    for n in range(300):
        asking.open(frame(encode_ping(n, 0)), uni=True, end=True)
    assert len(asking.uni_answers()) == 300
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
