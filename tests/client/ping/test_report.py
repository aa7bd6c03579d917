from __future__ import annotations

import dataclasses
import json

import pytest

from pingpong.client.ping import formatting
from pingpong.client.ping.json_report import JsonReport
from pingpong.client.ping.report import TextReport
from pingpong.client.ping.results import RunSummary, ShownOutage
from pingpong.link import ConnectTimes, Peer
from pingpong.statistics import Answer, AnswerStatus, Distribution, Summary
from pingpong.webtransport import PathStatistics

URL = "https://localhost:4433/ping"
PEER = Peer(
    address="127.0.0.1",
    protocol="pingpong.v1",
    draft="draft-16",
)
PLAIN = dataclasses.replace(PEER, protocol=None, draft="draft-02")
CONNECT = ConnectTimes(resolve_ns=1_200_000, handshake_ns=15_140_000, session_ns=800_000)
RTT = Distribution(
    count=9,
    min=412_000,
    avg=600_000.4,
    p50=512_345,
    p95=9_000_000,
    p99=11_000_000,
    max=111_000_000,
    mdev=200_000.0,
)
SERVER = Distribution(9, 50_000, 51_000.0, 50_000, 60_000, 60_000, 60_000, 1_000.0)
NOTHING = Summary()
FULL = dataclasses.replace(
    NOTHING,
    sent=10,
    received=9,
    late=1,
    lost=1,
    lost_out=1,
    duplicates=1,
    rtt=RTT,
    server=SERVER,
    elapsed_ns=9_012_400_000,
)
OK = Answer(1, AnswerStatus.OK, False, 412_000, 51_000)
PATH = PathStatistics(0.0005, 12_000, 2)
FULL_RUN = RunSummary(FULL, PEER, CONNECT, path=PATH, engine="quinn")
TEXT = TextReport(URL)


def counts(**changes: int | None) -> str:
    """The summary's line of counts."""
    summary = dataclasses.replace(NOTHING, **changes)  # type: ignore[arg-type]
    return TEXT.summary(RunSummary(summary, PEER, CONNECT)).splitlines()[1]


@pytest.mark.parametrize("kind", [TextReport, JsonReport])
def test_an_answer_to_nothing_is_no_answer(kind: type[TextReport] | type[JsonReport]) -> None:
    report = kind(URL)
    assert report.answer(PEER, OK, 64)
    assert report.answer(PEER, Answer(9, AnswerStatus.UNKNOWN, False, None, None), 64) is None


class TestText:
    def test_start(self) -> None:
        assert TEXT.connected(PEER, "datagram", 64) == (
            "PING https://localhost:4433/ping (127.0.0.1): "
            "datagram, 64 bytes, pingpong.v1, draft-16"
        )
        assert TEXT.connected(PLAIN, "uni", 1) == (
            "PING https://localhost:4433/ping (127.0.0.1): uni, 1 byte, plain, draft-02"
        )

    @pytest.mark.parametrize(
        ("answer", "end"),
        [
            (OK, "seq=1 time=0.412 ms (server 0.051 ms)"),
            (OK._replace(server_ns=None), "seq=1 time=0.412 ms"),
            (OK._replace(status=AnswerStatus.LATE), "seq=1 time=0.412 ms (server 0.051 ms) late"),
            (
                OK._replace(status=AnswerStatus.DUPLICATE),
                "seq=1 time=0.412 ms (server 0.051 ms) (DUP!)",
            ),
            (
                OK._replace(status=AnswerStatus.LATE, reordered=True, server_ns=None),
                "seq=1 time=0.412 ms late reordered",
            ),
        ],
    )
    def test_answer(self, answer: Answer, end: str) -> None:
        assert TEXT.answer(PEER, answer, 64) == f"64 bytes from 127.0.0.1: {end}"

    @pytest.mark.parametrize(
        ("time_ns", "text"),
        [
            (0, "0.000"),
            (1_000, "0.001"),
            (999_499, "0.999"),
            (999_600, "1.00"),
            (1_234_567, "1.23"),
            (9_994_000, "9.99"),
            (9_996_000, "10.0"),
            (99_940_000, "99.9"),
            (99_960_000, "100"),
            (1_234_567_890, "1235"),
        ],
    )
    def test_digits(self, time_ns: int, text: str) -> None:
        line = TEXT.answer(PEER, OK._replace(rtt_ns=time_ns, server_ns=None), 64)
        assert line == f"64 bytes from 127.0.0.1: seq=1 time={text} ms"

    def test_no_answer_and_not_sent(self) -> None:
        assert TEXT.no_answer(3) == "no answer yet: seq=3"
        assert TEXT.not_sent(4, "too large") == "not sent: seq=4 (too large)"

    def test_timestamps(self) -> None:
        report = TEXT
        at = 1_700_000_000_000_042_999
        assert report.no_answer(3, at_ns=at) == "[1700000000.000042] no answer yet: seq=3"
        assert report.not_sent(4, "x", at_ns=at) == "[1700000000.000042] not sent: seq=4 (x)"
        line = report.answer(PEER, OK, 64, at_ns=at)
        assert line is not None
        assert line.startswith("[1700000000.000042] 64 bytes from ")

    def test_summary(self) -> None:
        assert TEXT.summary(FULL_RUN) == (
            "--- https://localhost:4433/ping pingpong statistics ---\n"
            "10 sent, 9 received, 1 late, +1 duplicate, 10% loss (1 out, 0 back), time 9012 ms\n"
            "rtt min/avg/max/mdev = 0.412/0.600/111/0.200 ms, "
            "p50/p95/p99 = 0.512/9.00/11.0 ms, server 0.051 ms\n"
            "connect: resolve 1.20 ms, handshake 15.1 ms, session 0.800 ms, draft-16"
        )

    def test_summary_of_nothing(self) -> None:
        assert TEXT.summary(RunSummary(NOTHING, PEER, ConnectTimes())) == (
            "--- https://localhost:4433/ping pingpong statistics ---\n"
            "0 sent, 0 received, time 0 ms\n"
            "connect: draft-16"
        )

    def test_summary_without_the_server_s_time(self) -> None:
        summary = dataclasses.replace(FULL, server=None)
        line = TEXT.summary(RunSummary(summary, PLAIN, CONNECT)).splitlines()[2]
        assert line.endswith("p50/p95/p99 = 0.512/9.00/11.0 ms")

    def test_counts(self) -> None:
        assert counts(sent=2, received=2) == "2 sent, 2 received, 0% loss, time 0 ms"
        assert counts(sent=2, received=1, waiting=1) == (
            "2 sent, 1 received, 1 waiting, 0% loss, time 0 ms"
        )
        assert counts(sent=3, received=3, duplicates=2, reordered=1) == (
            "3 sent, 3 received, +2 duplicates, 1 reordered, 0% loss, time 0 ms"
        )
        assert counts(send_errors=1) == "0 sent, 0 received, 1 not sent, time 0 ms"
        assert counts(sent=1, received=1, send_errors=2) == (
            "1 sent, 1 received, 2 not sent, 0% loss, time 0 ms"
        )

    def test_skipped_and_malformed(self) -> None:
        summary = dataclasses.replace(NOTHING, sent=1, received=1)
        run = RunSummary(summary, PEER, CONNECT, skipped=3, malformed=2)
        lines = TEXT.summary(run).splitlines()
        assert lines[1] == "1 sent, 1 received, 3 skipped, 2 malformed, 0% loss, time 0 ms"

    def test_outages(self) -> None:
        run = dataclasses.replace(FULL_RUN, outages=1, outage_ns=2_310_000_000, connections=2)
        lines = TEXT.summary(run).splitlines()
        assert lines[3] == "1 outage of 2.31 s"
        assert lines[4].endswith("session 0.800 ms, 2 connections, draft-16")
        run = dataclasses.replace(run, outages=3, outage_ns=200_000_000_000)
        assert TEXT.summary(run).splitlines()[3] == "3 outages, 3 min 20 s in all"

    def test_flood(self) -> None:
        run = dataclasses.replace(FULL_RUN, rate=812.4)
        assert TEXT.summary(run).splitlines()[1].endswith(", time 9012 ms, 812 pings/s")

    @pytest.mark.parametrize(
        ("error", "rest"), [(None, " after 3 s"), ("it is gone (try x)", ": it is gone (try x)")]
    )
    def test_never_connected(self, error: str | None, rest: str) -> None:
        run = RunSummary(NOTHING, None, ConnectTimes(), error=error, unconnected="after 3 s")
        assert TEXT.summary(run) == f"--- {URL} pingpong statistics ---\nnot connected{rest}"

    def test_what_happens_to_the_connection(self) -> None:
        assert TEXT.lost("it is gone") == "it is gone; connecting again"
        assert TEXT.failed("nobody there") == "still not connected: nobody there"
        outage = ShownOutage(duration_ns=2_310_000_000, lost=2, not_sent=1)
        assert TEXT.recovered(PEER, outage) == (
            "connected again to 127.0.0.1 after 2.31 s: 2 lost, 1 not sent"
        )
        assert TEXT.recovered(PEER, ShownOutage(80_000_000, 0, 0)) == (
            "connected again to 127.0.0.1 after 80 ms"
        )
        same = ShownOutage(80_000_000, 0, 3, is_reconnected=False)
        assert TEXT.recovered(PEER, same) == "127.0.0.1 answers again after 80 ms: 3 not sent"
        assert TEXT.recovered(PEER, ShownOutage(None, 0, 0)) == "connected again to 127.0.0.1"
        assert "leave" in TEXT.draining()
        assert TEXT.moved(PEER) == "moved to a new session with 127.0.0.1"
        assert TEXT.skipped(1) == "1 ping skipped while stopped"
        assert TEXT.no_answer(3, final=True) == "no answer: seq=3"

    def test_one_of_several(self) -> None:
        report = TextReport(URL, "a.example", 12)
        assert report.no_answer(3) == "a.example    : no answer yet: seq=3"
        assert report.no_answer(3, at_ns=1_500_000_000) == (
            "[1.500000] a.example    : no answer yet: seq=3"
        )
        assert report.summary(FULL_RUN) == TEXT.summary(FULL_RUN)

    def test_directions(self) -> None:
        assert counts(sent=6, received=2, lost=4, lost_out=1, lost_back=2, lost_unknown=1) == (
            "6 sent, 2 received, 66.7% loss (1 out, 2 back, 1 unknown), time 0 ms"
        )
        assert counts(sent=4, received=3, lost=1, lost_out=None, lost_back=None) == (
            "4 sent, 3 received, 25% loss, time 0 ms"
        )

    @pytest.mark.parametrize(
        ("lost", "sent", "text"),
        [
            (0, 3, "0%"),
            (3, 3, "100%"),
            (1, 3, "33.3%"),
            (1, 20, "5%"),
            (1, 10_000, "0.01%"),
            (1, 1_000_000, "0.0001%"),
            (9_999, 10_000, "99.99%"),
        ],
    )
    def test_percent(self, lost: int, sent: int, text: str) -> None:
        line = counts(sent=sent, received=sent - lost, lost=lost, lost_out=None)
        assert f", {text} loss, " in line


class TestJson:
    def test_answer(self) -> None:
        line = JsonReport(URL).answer(PEER, OK, 64)
        assert line is not None
        assert "\n" not in line
        assert json.loads(line) == {
            "seq": 1,
            "bytes": 64,
            "from": "127.0.0.1",
            "rtt_ms": 0.412,
            "server_ms": 0.051,
            "late": False,
            "duplicate": False,
            "reordered": False,
        }

    @pytest.mark.parametrize(
        ("status", "late", "duplicate"),
        [(AnswerStatus.LATE, True, False), (AnswerStatus.DUPLICATE, False, True)],
    )
    def test_marks(self, status: AnswerStatus, late: bool, duplicate: bool) -> None:
        answer = Answer(2, status, True, 1, None)
        reply = json.loads(JsonReport(URL).answer(PEER, answer, 64, at_ns=1_500_000_999) or "")
        assert reply["time"] == 1.5
        assert reply["server_ms"] is None
        assert reply["rtt_ms"] == 1e-06
        assert (reply["late"], reply["duplicate"], reply["reordered"]) == (late, duplicate, True)

    def test_summary(self) -> None:
        line = JsonReport(URL).summary(FULL_RUN)
        assert "\n" not in line
        summary = json.loads(line)
        assert summary.pop("rtt_ms") == {
            "min": 0.412,
            "avg": 0.6,
            "p50": 0.512345,
            "p95": 9.0,
            "p99": 11.0,
            "max": 111.0,
            "mdev": 0.2,
        }
        assert summary.pop("server_ms")["avg"] == 0.051
        assert summary == {
            "url": URL,
            "sent": 10,
            "received": 9,
            "late": 1,
            "lost": 1,
            "lost_out": 1,
            "lost_back": 0,
            "lost_unknown": 0,
            "waiting": 0,
            "send_errors": 0,
            "skipped": 0,
            "malformed": 0,
            "duplicates": 1,
            "reordered": 0,
            "rate": None,
            "time_ms": 9012.4,
            "connect_ms": {"resolve": 1.2, "handshake": 15.14, "session": 0.8},
            "quic": {"rtt_ms": 0.5, "congestion_window": 12_000, "lost_packets": 2},
            "engine": "quinn",
            "connections": 1,
            "outages": 0,
            "outage_ms": 0,
            "address": "127.0.0.1",
            "error": None,
            "draft": "draft-16",
            "protocol": "pingpong.v1",
        }

    def test_skipped_and_malformed(self) -> None:
        run = dataclasses.replace(FULL_RUN, skipped=3, malformed=2)
        line = JsonReport(URL).summary(run)
        assert (json.loads(line)["skipped"], json.loads(line)["malformed"]) == (3, 2)

    def test_one_of_several(self) -> None:
        report = JsonReport(URL, "a.example")
        assert json.loads(report.answer(PEER, OK, 64) or "")["target"] == "a.example"
        assert json.loads(report.summary(FULL_RUN))["target"] == "a.example"

    def test_never_connected(self) -> None:
        run = RunSummary(NOTHING, None, ConnectTimes(), connections=0, error="nobody there")
        summary = json.loads(JsonReport(URL).summary(run))
        assert (summary["sent"], summary["connections"]) == (0, 0)
        assert summary["error"] == "nobody there"
        assert summary["address"] is summary["draft"] is None

    def test_what_is_not_known_is_null(self) -> None:
        nothing = dataclasses.replace(NOTHING, lost_out=None, lost_back=None)
        run = RunSummary(nothing, PLAIN, ConnectTimes())
        summary = json.loads(JsonReport(URL).summary(run))
        assert summary["lost_out"] is summary["lost_back"] is None
        assert summary["rtt_ms"] is summary["server_ms"] is summary["protocol"] is None
        assert summary["connect_ms"] == {"resolve": None, "handshake": None, "session": None}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0 ms"),
        (0.08, "80 ms"),
        (0.9996, "1.00 s"),
        (2.314, "2.31 s"),
        (9.996, "10.0 s"),
        (59.96, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert formatting.duration(seconds * 1e9) == text
