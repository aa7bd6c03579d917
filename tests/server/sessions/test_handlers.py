"""The server's handlers over real QUIC and HTTP/3, with no socket and a clock that is a number."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pingpong.ping import (
    PROTOCOL,
    Deframer,
    decode_pong,
    encode_ping,
    frame,
)
from pingpong.server.sessions import counters, echo, handlers, messages
from pingpong.server.sessions.handlers import Router
from pingpong.webtransport.quic.config import Windows
from pingpong.webtransport.states import State
from tests.server.sessions.asking import MAX_SIZE, Asking
from tests.webtransport.wire import LATENCY, Wire

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


def test_v1_datagram() -> None:
    asking = Asking(v1=True)
    asking.counters.clock = lambda: 7_000
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


# Rates: above them messages are dropped, in every mode


def limited(rate: int, path: str = "/ping", *, v1: bool = False) -> Asking:
    return Asking(path, v1=v1, rate_limit=rate)


def test_plain_datagrams_above_the_rate() -> None:
    asking = limited(3)
    assert asking.datagrams(*[b"ping%d" % n for n in range(5)]) == [b"pong0", b"pong1", b"pong2"]
    asking.assert_counts({"datagram": 5}, {"datagram": 3}, datagram={"rate": 2})
    asking.wire.run(1.0)
    assert asking.datagrams(b"ping6") == [b"pong6"]


def test_v1_datagrams_above_the_rate_count_as_received() -> None:
    """The client learns that they were not lost on their way here."""
    asking = limited(2, v1=True)
    answers = asking.datagrams(*[encode_ping(n, 0) for n in range(5)])
    assert [pong.seq for answer in answers if (pong := decode_pong(answer))] == [0, 1]
    asking.wire.run(1.0)
    pong = decode_pong(asking.datagrams(encode_ping(9, 0))[0])
    assert pong is not None
    assert pong.received == 6
    asking.assert_counts({"datagram": 6}, {"datagram": 3}, datagram={"rate": 3})


def test_what_is_malformed_takes_nothing_of_the_rate() -> None:
    asking = limited(2, v1=True)
    assert len(asking.datagrams(b"", b"x", encode_ping(1, 0), b"y", encode_ping(2, 0))) == 2
    asking.assert_counts({"datagram": 2}, datagram={"malformed": 3})


def test_a_plain_stream_above_the_rate_gets_the_first_answers_and_goes_on() -> None:
    asking = limited(4)
    stream = asking.open(b"ping??pingpingxping")
    assert asking.told.data[stream.id] == b"pong?pongpong"
    asking.assert_counts({"stream": 6}, {"stream": 4}, stream={"rate": 2})
    asking.wire.run(1.0)
    stream.send(b"ping", True)
    asking.wire.run()
    assert asking.told.data[stream.id] == b"pong?pongpongpong"
    assert stream.id in asking.told.ended
    assert asking.counters.sent_bytes == 4 * 4 + 1


def test_v1_streams_above_the_rate() -> None:
    asking = limited(3, v1=True)
    stream = asking.open(b"".join(frame(encode_ping(n, 0)) for n in range(4)))
    assert [pong.seq for pong in asking.pongs(stream) if pong] == [0, 1, 2]
    asking.open(frame(encode_ping(9, 0)), uni=True, end=True)
    assert asking.uni_answers() == []
    asking.assert_counts(
        {"stream": 4, "uni": 1}, {"stream": 3}, stream={"rate": 1}, uni={"rate": 1}
    )


def test_plain_uni_above_the_rate() -> None:
    asking = limited(1)
    for number in range(3):
        asking.open(b"ping%d" % number, uni=True, end=True)
    assert asking.uni_answers() == [b"pong0"]
    asking.assert_counts({"uni": 3}, {"uni": 1}, uni={"rate": 2})


def test_all_modes_of_a_session_share_its_rate_and_sessions_do_not() -> None:
    asking = limited(2)
    asking.open(b"ping")
    assert asking.datagrams(b"ping", b"ping") == [b"pong"]
    _, told = asking.wire.session(path="/ping")
    other = asking.wire.server.sessions[-1]
    assert other.handler is not asking.wire.server.sessions[0].handler
    asking.wire.client.connection.sessions[-1].send_datagram(b"ping")
    asking.wire.run()
    assert told.datagrams == [b"pong"]


def test_echoed_messages_have_a_rate_and_echoed_bytes_have_none() -> None:
    asking = limited(2, "/echo")
    assert asking.datagrams(b"1", b"2", b"3") == [b"1", b"2"]
    asking.open(b"4", uni=True, end=True)
    assert asking.uni_answers() == []
    asking.assert_counts({}, echo={"rate": 2})
    stream = asking.open(*[b"%d" % n for n in range(9)], end=True)
    assert asking.told.data[stream.id] == b"012345678"


def test_no_rate_is_any_rate() -> None:
    asking = limited(0)
    assert len(asking.datagrams(*[b"ping"] * 50)) == 50


# What is kept


def open_while_it_lasts(asking: Asking, data: bytes, *, uni: bool, end: bool = False) -> None:
    for _ in range(9):
        if asking.session.state is State.ESTABLISHED:
            stream = asking.session.open_stream(asking.told, unidirectional=uni)
            stream.send(data, end)
            asking.wire.run()


@pytest.mark.parametrize("uni", [False, True])
def test_incomplete_messages_count_as_kept(uni: bool) -> None:
    asking = Asking(v1=True, max_size=1 << 16, wire=Wire(max_buffered=400 << 10))
    message = frame(encode_ping(1, 0) + bytes(60_000))
    open_while_it_lasts(asking, message, uni=uni)
    # Those that are complete are not kept.
    assert asking.session.state is State.ESTABLISHED
    open_while_it_lasts(asking, message[:-1], uni=uni)
    assert asking.wire.server_end.counters.buffers_exceeded == 1


def test_answers_that_wait_for_a_stream_count_as_kept() -> None:
    # Enough for the control stream.
    wire = Wire(max_buffered=400 << 10, client_windows=Windows(streams_uni=1))
    asking = Asking("/echo", max_size=1 << 16, wire=wire)
    open_while_it_lasts(asking, bytes(60_000), uni=True, end=True)
    assert wire.server_end.counters.buffers_exceeded == 1


# Times


def be_late(asking: Asking) -> None:
    """Each reading of the server's clock is a millisecond further behind the packet's arrival."""
    readings = itertools.count(1)

    def clock() -> int:
        return asking.wire.server.engine.arrival + next(readings) * 1_000_000

    asking.counters.clock = clock


def test_the_servers_own_time_is_counted_from_the_packets_arrival() -> None:
    asking = Asking(v1=True)
    be_late(asking)
    asking.datagrams(encode_ping(1, 0), b"malformed")
    asking.open(frame(encode_ping(2, 0)) * 2)
    durations = asking.counters.answer_durations
    assert durations.count == 3
    # The malformed one is not counted.
    assert durations.sum == pytest.approx(0.001 + 0.002 + 0.003)


def test_plain_answers_are_timed_too() -> None:
    """Those of a stream that leave together as one."""
    asking = Asking()
    be_late(asking)
    asking.datagrams(b"ping")
    asking.open(b"pingping")
    asking.open(b"ping", uni=True, end=True)
    durations = asking.counters.answer_durations
    assert durations.count == 3
    assert durations.sum == pytest.approx(0.001 + 0.002 + 0.003)


def test_every_reason_to_drop_is_in_the_list() -> None:
    """A metric's label has a closed set of values."""
    source = Path(messages.__file__).read_text() + Path(handlers.__file__).read_text()
    source += Path(echo.__file__).read_text()
    used = set(re.findall(r"(?:dropped\[\w+(?:\.\w+)?, |_drop\(count, )(\w+)", source)) - {"reason"}
    assert used
    assert {getattr(counters, name) for name in used} == set(counters.DROP_REASONS)
