"""Fault: a long way, 50 ms each, that grows longer than the timeout for a while."""

from __future__ import annotations

import pytest

from tests.integration.network import Report, ping, pinging, probing, serving
from tests.integration.truth import SIZE, Truth
from tests.support.engines import OTHER, on
from tests.support.network.link import Impairment, Link

pytestmark = pytest.mark.network

DELAY = 0.05
ROUND_TRIP = 2 * DELAY
TIMEOUT = 0.35
STALL = 0.09
"""Seconds that a server on a busy machine may take to answer, with some luck."""
LONG = Impairment(delay=DELAY, keep_order=True)
TOO_LONG = Impairment(delay=0.2, keep_order=True)


COMPLETED = "pingpong_client_probes_completed_total"


def is_one_round_trip(seconds: float) -> bool:
    """And what this machine takes, but no second one."""
    return ROUND_TRIP <= seconds < 1.8 * ROUND_TRIP


@on("aioquic")
def test_ping_says_how_long_each_step_of_connecting_took(link: Link) -> None:
    link.impair(LONG)
    with serving(link) as server:
        report = ping(link, server, "-c", "1")
    steps = {step: time / 1000 for step, time in report["connect_ms"].items()}
    assert is_one_round_trip(steps["handshake"])
    assert is_one_round_trip(steps["session"])
    assert steps["resolve"] < DELAY


@on(OTHER)
def test_probe_says_how_long_each_step_of_connecting_took(link: Link) -> None:
    link.impair(LONG)
    with serving(link) as server, probing(link, server) as probe:
        probe.wait_event("target_up")
        metrics = probe.metrics()
    name = "pingpong_client_connect_duration_seconds"
    for phase in ("handshake", "session"):
        assert metrics.total(f"{name}_count", phase=phase) == 1
        assert is_one_round_trip(metrics.mean(name, phase=phase))


@on(OTHER)
def test_ping_counts_answers_late_that_come_after_the_timeout(link: Link) -> None:
    link.impair(LONG)
    words = ("-c", "100", "-i", "0.03", "-W", str(TIMEOUT), "-s", str(SIZE))
    with serving(link) as server, pinging(link, server, *words) as running:
        running.wait_line('"seq": 20')
        link.impair(TOO_LONG)
        running.wait_line('"seq": 50')
        link.impair(LONG)
        running.finish()
    report, truth = Report.of(running), Truth(link.settle())
    said = {reply["seq"] - 1 for reply in report.replies if reply["late"]}
    assert truth.slower_than(TIMEOUT) <= said <= truth.slower_than(TIMEOUT - STALL)
    assert report["late"] == len(said) >= 20
    assert report["received"] == report["sent"] == 100
    assert report["lost"] == 0


@on("aioquic")
def test_probe_counts_answers_late_that_come_after_the_timeout(link: Link) -> None:
    link.impair(LONG)
    with (
        serving(link) as server,
        probing(link, server, interval=0.03, timeout=TIMEOUT, size=SIZE) as probe,
    ):
        probe.wait_event("target_up")
        link.impair(TOO_LONG)
        probe.wait_metrics(lambda m: m.total(COMPLETED, result="late") >= 20, "answers are late")
        link.impair(LONG)
        before = probe.metrics().total(COMPLETED, result="ok")
        metrics = probe.wait_metrics(
            lambda m: m.total(COMPLETED, result="ok") > before + 20, "answers are in time again"
        )
    truth = Truth(link.settle())
    late = metrics.total(COMPLETED, result="late")
    assert len(truth.slower_than(TIMEOUT)) <= late <= len(truth.slower_than(TIMEOUT - STALL))
    assert metrics.total(COMPLETED, result="lost") == 0
    assert metrics.total("pingpong_client_lost_total") == 0
    assert metrics.total("pingpong_client_sessions_closed_total") == 0
