"""Peers' bug 8: what comes for a session that is not there, yet or any more (section 4.5)."""

from __future__ import annotations

import pytest

from pingpong.webtransport.errors import ErrorCode
from pingpong.webtransport.http3.frames import encode_headers
from pingpong.webtransport.limits import Limits
from tests.webtransport.raw import CONNECT, stream_header
from tests.webtransport.wire import LIMITS, Recorder, Wire

SMALL = Limits(max_buffered_streams=2, max_buffered_datagrams=3, max_buffered_bytes=100)


def test_streams_for_a_session_that_never_comes_are_rejected_above_the_limit() -> None:
    wire = Wire(raw_client=True, server_limits=SMALL)
    wire.raw.send_settings()
    never = 400
    kept = [wire.raw.open_in(never, b"x"), wire.raw.open_in(never, b"y", uni=True)]
    refused = [wire.raw.open_in(never), wire.raw.open_in(never, uni=True, end=True)]
    wire.run()
    rejected = ErrorCode.WT_BUFFERED_STREAM_REJECTED
    assert wire.raw.stops == {refused[0]: rejected}
    assert wire.raw.resets == {refused[0]: rejected}
    assert wire.server.connection.buffered_bytes() == 2
    # And so is one that was kept, once it brings too much.
    wire.raw.send(kept[0], bytes(100))
    wire.run()
    assert wire.raw.stops[kept[0]] == wire.raw.resets[kept[0]] == rejected
    wire.raw.reset(kept[0])
    wire.raw.reset(refused[0])
    wire.run()
    assert wire.server.connection.buffered_bytes() == 1
    assert wire.server.errors == []


def test_datagrams_for_a_session_that_never_comes_are_dropped_above_the_limit() -> None:
    wire = Wire(raw_client=True, server_limits=SMALL)
    wire.raw.send_settings()
    for size in (10, 60, 40, 10, 10):
        wire.raw.datagram(bytes(size), 400)
    wire.run()
    assert wire.server.connection.buffered_bytes() == 10 + 60 + 10


@pytest.mark.parametrize("limits", [LIMITS, SMALL])
def test_what_is_early_is_delivered_when_the_session_comes_to_a_server(limits: Limits) -> None:
    wire = Wire(raw_client=True, server_limits=limits)
    bidi = wire.raw.open(b"")  # the session that is to come: its first byte is late
    assert bidi == 0
    early = wire.raw.open_in(0, b"early ")
    uni = wire.raw.open_in(0, b"one way", uni=True, end=True)
    wire.raw.datagram(b"first")
    wire.raw.datagram(b"second")
    wire.run()
    # Not even with the request, but with the settings that it has to wait for.
    wire.raw.send(0, encode_headers(CONNECT))
    wire.run()
    wire.raw.send(early, b"bird")
    wire.raw.stop(early, 0x52E4A40FA8DB + 7)
    wire.run()
    assert wire.server.sessions == []
    wire.raw.send_settings()
    wire.run()
    recorder = wire.server.sessions[0].handler
    assert isinstance(recorder, Recorder)
    assert recorder.datagrams == [b"first", b"second"]
    assert recorder.data == {early: b"early bird", uni: b"one way"}
    assert recorder.ended == {uni}
    assert recorder.stops == {early: 7}
    assert wire.server.connection.buffered_bytes() == 0
    assert wire.server.errors == []


def test_what_is_early_is_delivered_when_the_session_comes_to_a_client() -> None:
    wire = Wire(raw_server=True)
    wire.raw.send_settings()
    wire.run()
    session, recorder = wire.session()
    bidi = wire.raw.open_in(session.id, b"before ")
    uni = wire.raw.open_in(session.id, b"one way", uni=True, end=True)
    gone = wire.raw.open_in(session.id, b"lost", uni=True)
    wire.raw.datagram(b"d", session.id)
    wire.run()
    wire.raw.reset(gone, 0x52E4A40FA8DB + 5, len(stream_header(session.id, uni=True)))
    wire.run()
    assert recorder.datagrams == []
    assert recorder.opened == []
    wire.raw.send(session.id, encode_headers([(b":status", b"200")]))
    wire.raw.send(bidi, b"and after")
    wire.run()
    assert recorder.established == 1
    assert recorder.datagrams == [b"d"]
    assert recorder.data == {bidi: b"before and after", uni: b"one way", gone: b"lost"}
    assert recorder.resets == {gone: 5}
    assert wire.client.errors == []


def test_what_came_early_for_a_session_that_is_rejected_is_refused() -> None:
    wire = Wire(raw_client=True)
    wire.server.decide = lambda session: session.reject(404)
    wire.raw.send_settings()
    wire.raw.open()
    early = [wire.raw.open_in(0, b"early"), wire.raw.open_in(0, b"early", uni=True)]
    wire.raw.datagram(b"early")
    wire.run()
    wire.raw.send(0, encode_headers(CONNECT), end=True)
    wire.run()
    assert wire.raw.status(0) == 404
    assert wire.raw.stops == dict.fromkeys(early, ErrorCode.WT_SESSION_GONE)
    assert wire.raw.resets == {early[0]: ErrorCode.WT_SESSION_GONE}
    for stream_id in early:
        wire.raw.reset(stream_id)
    wire.run()
    wire.server.assert_nothing_left()


def test_what_came_early_for_a_request_that_was_cancelled_is_refused() -> None:
    wire = Wire(raw_client=True)
    wire.raw.send_settings()
    wire.raw.open()
    early = wire.raw.open_in(0, b"early", uni=True)
    wire.raw.datagram(b"early")
    wire.run()
    wire.raw.reset(0)
    wire.run()
    assert wire.raw.stops == {early: ErrorCode.WT_BUFFERED_STREAM_REJECTED}
    wire.raw.reset(early)
    wire.run()
    wire.server.assert_nothing_left()


def test_what_comes_after_the_session_is_refused() -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    wire.server.sessions[0].close()
    wire.run()
    late = [wire.raw.open_in(session_id, b"late"), wire.raw.open_in(session_id, b"late", uni=True)]
    wire.raw.datagram(b"late", session_id)
    wire.run()
    wire.raw.send(session_id, end=True)
    wire.run()
    later = wire.raw.open_in(session_id, b"later", uni=True)
    wire.run()
    gone = ErrorCode.WT_SESSION_GONE
    assert wire.raw.stops == dict.fromkeys([*late, later], gone)
    assert wire.raw.resets == {late[0]: gone}
    assert recorder.datagrams == []
    for stream_id in (*late, later):
        wire.raw.reset(stream_id)
    wire.run()
    wire.server.assert_nothing_left()
    assert wire.server.errors == []


@pytest.mark.parametrize("end", [False, True])
def test_stop_and_bytes_in_one_packet_for_a_session_that_is_gone(end: bool) -> None:
    wire = Wire(raw_client=True)
    session_id, _ = wire.raw_session()
    wire.server.sessions[0].close()
    wire.raw.send(session_id, end=True)
    wire.run()
    stream_id = wire.raw.open_in(session_id, b"late", end=end)
    wire.raw.stop(stream_id, 5)
    wire.run()
    # The stop came first, and is answered with its code.
    assert wire.raw.resets == {stream_id: 5}
    assert wire.raw.stops == ({} if end else {stream_id: ErrorCode.WT_SESSION_GONE})
    if not end:
        wire.raw.reset(stream_id)
        wire.run()
    wire.server.assert_nothing_left()
