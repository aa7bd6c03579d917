"""The pinger against the server's handlers, with no socket and a clock that is a number."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter

import pytest

from pingpong.link import pinger as pinger_module
from pingpong.link.pinger import Pinger, SendError
from pingpong.ping import PROTOCOL, Mode, frame
from pingpong.server.sessions.counters import MessageCounters
from pingpong.server.sessions.handlers import Router
from pingpong.statistics import Answer, AnswerStatus, Summary
from pingpong.webtransport import varint
from pingpong.webtransport.events import Request, SessionClosed
from pingpong.webtransport.limits import Limits
from pingpong.webtransport.quic.config import Windows
from pingpong.webtransport.session import Session
from tests.webtransport.wire import LATENCY, Recorder, Wire

RTT = round(2 * LATENCY * 1e9)
MODES: tuple[Mode, ...] = ("datagram", "stream", "streams", "uni")


class Noting(Pinger):
    """Keeps what happens."""

    def __init__(self, size: int = 64) -> None:
        super().__init__(size, 1_000_000_000)
        self.records: list[Answer] = []
        self.sizes: list[int] = []
        self.times: list[int] = []
        self.malformed_by_mode: Counter[str] = Counter()
        self.drains = 0
        self.closed: list[SessionClosed] = []

    def answered(self, answer: Answer, size: int, at_ns: int) -> None:
        self.records.append(answer)
        self.sizes.append(size)
        self.times.append(at_ns)

    def malformed(self, mode: Mode) -> None:
        self.malformed_by_mode[mode] += 1

    def drain_received(self) -> None:
        self.drains += 1

    def session_ended(self, closed: SessionClosed) -> None:
        self.closed.append(closed)


class Pinging:
    """A pinger with a session; without `recorder` the server answers."""

    def __init__(
        self,
        mode: Mode,
        *,
        v1: bool = True,
        size: int = 64,
        wire: Wire | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.wire = wire = wire or Wire()
        self.router = Router(1 << 16, MessageCounters(clock=self.now))
        wire.server.decide = self.router.session_requested
        if recorder is not None:
            wire.server.decide = lambda session: session.accept(recorder, PROTOCOL if v1 else None)
        self.mode = mode
        self.pinger = Noting(size)
        self.pinger.clock = self.now
        request = Request("localhost", "/ping", protocols=(PROTOCOL,) if v1 else ())
        self.session: Session = wire.client.connection.open_session(request, self.pinger)
        wire.run()

    def now(self) -> int:
        return int(self.wire.now * 1e9)

    def send(self, *numbers: int) -> None:
        for seq in numbers:
            self.pinger.ping(seq, self.mode)
        self.wire.run()

    def summary(self) -> Summary:
        return self.pinger.statistics.summary(self.now())


@pytest.mark.parametrize("v1", [True, False], ids=["v1", "plain"])
@pytest.mark.parametrize("mode", MODES)
async def test_every_ping_is_answered(mode: Mode, v1: bool) -> None:
    pinging = Pinging(mode, v1=v1, size=100)
    pinging.send(1, 2)
    pinging.send(3)
    assert [answer.seq for answer in pinging.pinger.records] == [1, 2, 3]
    assert {answer.status for answer in pinging.pinger.records} == {AnswerStatus.OK}
    # What QUIC makes wait is the acknowledgement, never the ping.
    assert [answer.rtt_ns for answer in pinging.pinger.records] == pytest.approx([RTT] * 3, abs=2)
    tokens = not v1 and mode in ("stream", "streams")
    assert pinging.pinger.sizes == [4 if tokens else 100] * 3
    summary = pinging.summary()
    assert (summary.sent, summary.received, summary.lost) == (3, 3, 0)
    assert all((answer.server_ns is not None) == v1 for answer in pinging.pinger.records)
    assert (summary.lost_out is None) == (not v1)
    assert pinging.pinger.malformed_by_mode.total() == 0


@pytest.mark.parametrize("mode", ["streams", "uni"])
async def test_nothing_is_left_of_many(mode: Mode) -> None:
    pinging = Pinging(mode)
    for seq in range(1, 301):
        pinging.send(seq)
    assert pinging.summary().received == 300
    assert not pinging.session.streams


async def test_sequence_numbers_wrap() -> None:
    pinging = Pinging("datagram")
    pinging.send((1 << 32) - 1, 1 << 32)
    assert [answer.seq for answer in pinging.pinger.records] == [(1 << 32) - 1, 1 << 32]


async def test_lost_on_the_way_out() -> None:
    pinging = Pinging("datagram")
    pinging.send(1)
    pinging.wire.lose = lambda packet, to_server: to_server
    pinging.pinger.ping(2, pinging.mode)
    while pinging.wire.step():
        pass
    pinging.wire.lose = lambda packet, to_server: False
    pinging.wire.run()
    pinging.send(3)
    pinging.wire.run(2.0)
    summary = pinging.summary()
    assert (summary.sent, summary.received, summary.lost, summary.lost_out) == (3, 2, 1, 1)


async def test_too_large_for_a_datagram() -> None:
    pinging = Pinging("datagram", size=5000)
    with pytest.raises(SendError, match="5000 bytes does not fit"):
        pinging.pinger.ping(1, pinging.mode)
    summary = pinging.summary()
    assert (summary.sent, summary.send_errors) == (0, 1)


async def test_no_credit_for_a_stream() -> None:
    recorder = Recorder()
    recorder.holding = True
    wire = Wire(server_limits=Limits(initial_max_streams_uni=1))
    pinging = Pinging("uni", wire=wire, recorder=recorder)
    pinging.send(1)
    with pytest.raises(SendError, match="no more streams"):
        pinging.pinger.ping(2, pinging.mode)
    recorder.opened[0].release(1000)
    wire.run()
    pinging.send(2)
    assert pinging.summary().sent == 2


async def test_a_server_that_does_not_read() -> None:
    """What is kept for it is bounded."""
    recorder = Recorder()
    recorder.holding = True
    wire = Wire(windows=Windows(stream=1 << 16))
    pinging = Pinging("stream", wire=wire, recorder=recorder, size=60_000)
    pinging.send(1)
    (stream,) = pinging.session.streams
    seq = 1
    while stream.buffered <= pinger_module._MAX_UNREAD:
        pinging.send(seq := seq + 1)
    with pytest.raises(SendError, match="does not read"):
        pinging.pinger.ping(seq + 1, pinging.mode)
    assert stream.buffered < pinger_module._MAX_UNREAD + 100_000
    assert pinging.summary().send_errors == 1


async def test_a_stream_that_was_refused_is_opened_again() -> None:
    pinging = Pinging("stream", v1=False)
    pinging.send(1)
    (first,) = pinging.session.streams
    (session,) = pinging.wire.server.sessions
    (stream,) = session.streams
    stream.stop(1)
    stream.reset(1)
    pinging.wire.run()
    pinging.send(2)
    (second,) = pinging.session.streams
    assert second is not first
    assert [answer.seq for answer in pinging.pinger.records] == [1, 2]


async def test_what_is_no_answer_is_counted() -> None:
    recorder = Recorder()
    pinging = Pinging("datagram", recorder=recorder)
    (session,) = pinging.wire.server.sessions
    for data in (b"", b"pong", b"ping" + bytes(60), b"pong" + bytes(60)):
        session.send_datagram(data)
    uni = session.open_stream(recorder, unidirectional=True)
    uni.send(frame(b"pong"), True)
    large = session.open_stream(recorder, unidirectional=True)
    large.send(b"\xbf\xff\xff\xff")
    pinging.wire.run()
    assert pinging.pinger.malformed_by_mode.total() == 6
    assert recorder.stops.keys() == {large.id}
    assert pinging.pinger.records == []
    assert pinging.summary().received == 0


async def test_what_is_no_plain_answer_is_counted() -> None:
    recorder = Recorder()
    pinging = Pinging("stream", v1=False, recorder=recorder)
    (session,) = pinging.wire.server.sessions
    pinging.send(1)
    (stream,) = recorder.opened
    stream.send(b"nopepongpong")  # the second pong answers nothing: one token a ping
    session.send_datagram(b"?")
    pinging.wire.run()
    assert pinging.pinger.malformed_by_mode.total() == 4
    assert pinging.pinger.records == []


async def test_duplicates_and_order() -> None:
    """Answers by whatever way, in whatever order."""
    recorder = Recorder()
    pinging = Pinging("datagram", v1=False, recorder=recorder)
    (session,) = pinging.wire.server.sessions
    pinging.send(1, 2, 3)
    answers = [b"pong" + data[4:] for data in recorder.datagrams]
    for index in (1, 0, 0, 2):
        session.send_datagram(answers[index])
    pinging.wire.run()
    assert [(o.seq, o.status, o.reordered) for o in pinging.pinger.records] == [
        (2, AnswerStatus.OK, False),
        (1, AnswerStatus.OK, True),
        (1, AnswerStatus.DUPLICATE, False),
        (3, AnswerStatus.OK, False),
    ]


async def test_bidirectional_streams_of_the_server_are_refused() -> None:
    recorder = Recorder()
    pinging = Pinging("stream", recorder=recorder)
    (session,) = pinging.wire.server.sessions
    session.open_stream(recorder).send(b"pong")
    pinging.wire.run()
    assert len(recorder.stops) == len(recorder.resets) == 1
    assert not pinging.session.streams


@pytest.mark.parametrize("mode", MODES)
async def test_the_end_is_reported_once_and_sending_fails(mode: Mode) -> None:
    pinging = Pinging(mode)
    pinging.send(1)
    (session,) = pinging.wire.server.sessions
    session.close(7, "enough")
    pinging.wire.run()
    assert [(one.code, one.reason) for one in pinging.pinger.closed] == [(7, "enough")]
    with pytest.raises(SendError, match="closed"):
        pinging.pinger.ping(2, pinging.mode)
    assert pinging.summary().send_errors == 1


async def test_refused_before_it_began() -> None:
    pinging = Pinging("datagram")
    request = Request("localhost", "/elsewhere")
    refused = Noting()
    pinging.wire.client.connection.open_session(request, refused)
    pinging.wire.run()
    # Whoever waits is told; there was nothing to end.
    assert refused.closed == []
    with pytest.raises(Exception, match="404"):
        await refused.wait_established()


@pytest.mark.parametrize("v1", [True, False], ids=["v1", "plain"])
async def test_all_modes_on_one_session(v1: bool) -> None:
    """The server counts them together, and so does the client."""
    pinging = Pinging("datagram", v1=v1)
    seq = 0
    for _ in range(3):
        for mode in MODES:
            seq += 1
            pinging.pinger.ping(seq, mode)
        pinging.wire.run()
    # A datagram leaves and arrives before what is on a stream that is opened for it.
    assert sorted(answer.seq for answer in pinging.pinger.records) == list(range(1, 13))
    for answer in pinging.pinger.records:
        assert answer.kind == MODES[(answer.seq - 1) % 4]
        assert answer.status is AnswerStatus.OK
        assert not answer.reordered
    summary = pinging.summary()
    assert (summary.sent, summary.received, summary.lost) == (12, 12, 0)
    assert pinging.pinger.malformed_by_mode.total() == 0


async def test_what_is_lost_of_one_mode_has_its_direction() -> None:
    pinging = Pinging("datagram")
    pinging.pinger.ping(1, "stream")
    pinging.wire.run()
    pinging.wire.lose = lambda packet, to_server: to_server
    pinging.pinger.ping(2, "datagram")
    while pinging.wire.step():
        pass
    pinging.wire.lose = lambda packet, to_server: False
    pinging.pinger.ping(3, "stream")
    pinging.wire.run(5.0)
    pinging.pinger.statistics.give_up()
    assert pinging.pinger.statistics.report_losses() == ({"datagram": 1}, 1, 0, 0)


async def test_malformed_answers_are_counted_by_the_way_they_came() -> None:
    recorder = Recorder()
    pinging = Pinging("datagram", recorder=recorder)
    (session,) = pinging.wire.server.sessions
    session.send_datagram(b"?")
    session.open_stream(recorder, unidirectional=True).send(frame(b"?"), True)
    pinging.pinger.ping(1, "stream")
    pinging.pinger.ping(2, "streams")
    pinging.wire.run()
    for stream in recorder.opened:
        stream.send(frame(b"?"))
    pinging.wire.run()
    assert pinging.pinger.malformed_by_mode == {
        "datagram": 1, "uni": 1, "stream": 1, "streams": 1,
    }  # fmt: skip
    assert pinging.pinger.malformed_by_mode.total() == 4


async def test_a_drain_is_reported() -> None:
    pinging = Pinging("datagram")
    (session,) = pinging.wire.server.sessions
    session.drain()
    pinging.send(1)
    assert pinging.pinger.drains == 1
    assert [answer.seq for answer in pinging.pinger.records] == [1]


# A hostile server.


async def test_work_for_plain_answers_grows_with_their_bytes_only() -> None:
    pinging = Pinging("stream", v1=False, recorder=Recorder())
    pinging.send(1)
    [stream] = pinging.session.streams

    def seconds(size: int) -> float:
        data = bytes(size)
        times = []
        for _ in range(3):
            before = time.thread_time()
            stream.handler.stream_data_received(stream, data, False, 0)
            times.append(time.thread_time() - before)
        return min(times)

    # Sixteen times the bytes: with a copy of the rest for each answer, it was a hundred times.
    assert seconds(1 << 19) < 40 * seconds(1 << 15)


@pytest.mark.parametrize("v1", [True, False], ids=["v1", "plain"])
async def test_answer_that_is_larger_than_any_ping_is_not_kept(v1: bool) -> None:
    recorder = Recorder()
    pinging = Pinging("uni", v1=v1, recorder=recorder)
    pinging.send(1)
    peer = pinging.wire.server.sessions[-1]
    tracemalloc.start()
    try:
        for _ in range(8):
            stream = peer.open_stream(recorder, unidirectional=True)
            stream.send(varint.encode(1 << 19) + bytes(1 << 17))
        pinging.wire.run(1)
        kept = sum(
            trace.size
            for trace in tracemalloc.take_snapshot().traces
            if trace.traceback[0].filename.endswith(("link/pinger.py", "pingpong/ping.py"))
        )
    finally:
        tracemalloc.stop()
    assert kept < 1 << 16
