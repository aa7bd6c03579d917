from __future__ import annotations

import dataclasses
import json

import pytest

from pingpong.client.latencies import Distribution
from pingpong.client.report import ConnectTimes, JsonReport, Report, Target, TextReport
from pingpong.client.statistics import Outcome, Summary, Verdict

TARGET = Target(
    url="https://localhost:4433/ping",
    address="127.0.0.1",
    mode="datagram",
    size=64,
    protocol="pingpong.v1",
    draft="draft-16",
)
PLAIN = dataclasses.replace(TARGET, protocol=None, mode="uni", size=1, draft="draft-02")
CONNECT = ConnectTimes(resolve_ns=1_200_000, handshake_ns=15_140_000, session_ns=800_000)
NOT_CONNECTED = ConnectTimes(None, None, None)
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
NOTHING = Summary(
    sent=0,
    received=0,
    late=0,
    lost=0,
    lost_out=0,
    lost_back=0,
    lost_unknown=0,
    waiting=0,
    duplicates=0,
    reordered=0,
    send_errors=0,
    unknown=0,
    rtt=None,
    server=None,
    elapsed_ns=0,
)
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
OK = Outcome(1, Verdict.OK, False, 412_000, 51_000)


def counts(**changes: int | None) -> str:
    """The summary's line of counts."""
    summary = dataclasses.replace(NOTHING, **changes)  # type: ignore[arg-type]
    return TextReport(TARGET).summary(summary, CONNECT).splitlines()[1]


@pytest.mark.parametrize("kind", [TextReport, JsonReport])
def test_both_are_reports(kind: type[TextReport] | type[JsonReport]) -> None:
    report: Report = kind(TARGET)
    assert report.answer(OK, 64)
    assert report.summary(FULL, CONNECT)
    assert report.answer(Outcome(9, Verdict.UNKNOWN, False, None, None), 64) is None


class TestText:
    def test_start(self) -> None:
        assert TextReport(TARGET).start() == (
            "PING https://localhost:4433/ping (127.0.0.1): "
            "datagram, 64 bytes, pingpong.v1, draft-16"
        )
        assert TextReport(PLAIN).start() == (
            "PING https://localhost:4433/ping (127.0.0.1): uni, 1 byte, plain, draft-02"
        )

    @pytest.mark.parametrize(
        ("outcome", "end"),
        [
            (OK, "seq=1 time=0.412 ms (server 0.051 ms)"),
            (OK._replace(server_ns=None), "seq=1 time=0.412 ms"),
            (OK._replace(verdict=Verdict.LATE), "seq=1 time=0.412 ms (server 0.051 ms) late"),
            (
                OK._replace(verdict=Verdict.DUPLICATE),
                "seq=1 time=0.412 ms (server 0.051 ms) (DUP!)",
            ),
            (
                OK._replace(verdict=Verdict.LATE, reordered=True, server_ns=None),
                "seq=1 time=0.412 ms late reordered",
            ),
        ],
    )
    def test_answer(self, outcome: Outcome, end: str) -> None:
        assert TextReport(TARGET).answer(outcome, 64) == f"64 bytes from 127.0.0.1: {end}"

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
        line = TextReport(TARGET).answer(OK._replace(rtt_ns=time_ns, server_ns=None), 64)
        assert line == f"64 bytes from 127.0.0.1: seq=1 time={text} ms"

    def test_no_answer_and_not_sent(self) -> None:
        assert TextReport(TARGET).no_answer(3) == "no answer yet: seq=3"
        assert TextReport(TARGET).not_sent(4, "too large") == "not sent: seq=4 (too large)"

    def test_timestamps(self) -> None:
        report = TextReport(TARGET)
        at = 1_700_000_000_000_042_999
        assert report.no_answer(3, at_ns=at) == "[1700000000.000042] no answer yet: seq=3"
        assert report.not_sent(4, "x", at_ns=at) == "[1700000000.000042] not sent: seq=4 (x)"
        line = report.answer(OK, 64, at_ns=at)
        assert line is not None
        assert line.startswith("[1700000000.000042] 64 bytes from ")

    def test_summary(self) -> None:
        assert TextReport(TARGET).summary(FULL, CONNECT) == (
            "--- https://localhost:4433/ping pingpong statistics ---\n"
            "10 sent, 9 received, 1 late, +1 duplicate, 10% loss (1 out, 0 back), time 9012 ms\n"
            "rtt min/avg/max/mdev = 0.412/0.600/111/0.200 ms, "
            "p50/p95/p99 = 0.512/9.00/11.0 ms, server 0.051 ms\n"
            "connect: resolve 1.20 ms, handshake 15.1 ms, session 0.800 ms, draft-16"
        )

    def test_summary_of_nothing(self) -> None:
        assert TextReport(TARGET).summary(NOTHING, NOT_CONNECTED) == (
            "--- https://localhost:4433/ping pingpong statistics ---\n"
            "0 sent, 0 received, time 0 ms\n"
            "connect: draft-16"
        )

    def test_summary_without_the_server_s_time(self) -> None:
        summary = dataclasses.replace(FULL, server=None)
        line = TextReport(PLAIN).summary(summary, CONNECT).splitlines()[2]
        assert line.endswith("p50/p95/p99 = 0.512/9.00/11.0 ms")

    def test_counts(self) -> None:
        assert counts(sent=2, received=2) == "2 sent, 2 received, 0% loss, time 0 ms"
        assert counts(sent=2, received=1, waiting=1) == (
            "2 sent, 1 received, 1 waiting, 0% loss, time 0 ms"
        )
        assert counts(sent=3, received=3, duplicates=2, reordered=1) == (
            "3 sent, 3 received, +2 duplicates, 1 reordered, 0% loss, time 0 ms"
        )
        assert counts(send_errors=1) == "0 sent, 0 received, 1 send error, time 0 ms"
        assert counts(sent=1, received=1, send_errors=2) == (
            "1 sent, 1 received, 2 send errors, 0% loss, time 0 ms"
        )

    def test_skipped_and_malformed(self) -> None:
        summary = dataclasses.replace(NOTHING, sent=1, received=1)
        lines = TextReport(TARGET).summary(summary, CONNECT, skipped=3, malformed=2).splitlines()
        assert lines[1] == "1 sent, 1 received, 3 skipped, 2 malformed, 0% loss, time 0 ms"

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
    def test_start_and_losses_say_nothing(self) -> None:
        report: Report = JsonReport(TARGET)
        assert report.start() is None
        assert report.no_answer(3) is None
        assert report.not_sent(3, "x") is None

    def test_answer(self) -> None:
        line = JsonReport(TARGET).answer(OK, 64)
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
        ("verdict", "late", "duplicate"),
        [(Verdict.LATE, True, False), (Verdict.DUPLICATE, False, True)],
    )
    def test_marks(self, verdict: Verdict, late: bool, duplicate: bool) -> None:
        outcome = Outcome(2, verdict, True, 1, None)
        reply = json.loads(JsonReport(TARGET).answer(outcome, 64, at_ns=1_500_000_999) or "")
        assert reply["time"] == 1.5
        assert reply["server_ms"] is None
        assert reply["rtt_ms"] == 1e-06
        assert (reply["late"], reply["duplicate"], reply["reordered"]) == (late, duplicate, True)

    def test_summary(self) -> None:
        line = JsonReport(TARGET).summary(FULL, CONNECT)
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
            "time_ms": 9012.4,
            "connect_ms": {"resolve": 1.2, "handshake": 15.14, "session": 0.8},
            "draft": "draft-16",
            "protocol": "pingpong.v1",
        }

    def test_skipped_and_malformed(self) -> None:
        line = JsonReport(TARGET).summary(FULL, CONNECT, skipped=3, malformed=2)
        assert (json.loads(line)["skipped"], json.loads(line)["malformed"]) == (3, 2)

    def test_what_is_not_known_is_null(self) -> None:
        nothing = dataclasses.replace(NOTHING, lost_out=None, lost_back=None)
        summary = json.loads(JsonReport(PLAIN).summary(nothing, NOT_CONNECTED))
        assert summary["lost_out"] is summary["lost_back"] is None
        assert summary["rtt_ms"] is summary["server_ms"] is summary["protocol"] is None
        assert summary["connect_ms"] == {"resolve": None, "handshake": None, "session": None}
