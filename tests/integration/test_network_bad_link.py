"""Fault: a link with delay, jitter, loss one way, duplicates and reordering.

ping(8) measures the same link at the same time, and the link's records say what was true.
"""

from __future__ import annotations

import dataclasses
import signal
import statistics
from collections.abc import Callable, Sequence

import pytest

from tests.integration import truth as truths
from tests.integration.network import (
    Report,
    icmp_pinging,
    icmp_report,
    ping,
    pinging,
    probing,
    serving,
)
from tests.integration.truth import SIZE, Truth, is_likely
from tests.support.engines import OTHER, in_turn, on, on_both
from tests.support.network.link import Direction, Impairment, Link

pytestmark = pytest.mark.network

COUNT, INTERVAL, LOSS = 600, 0.015, 0.1
CLOSE = 0.0003
"""Seconds that two measurements of one mean may differ by."""
IN_FLIGHT = 30
"""Pings on their way at one time, at most, on a busy machine: a round trip takes 114 ms."""
OURS = ("-c", str(COUNT), "-i", str(INTERVAL), "-s", str(SIZE))
ICMP = OURS


def impair(link: Link, lossy: Direction) -> None:
    """50 ms of round trip, overtaking by jitter and by held packets, and loss one way."""
    bad = Impairment(delay=0.025, jitter=0.008, duplicate=0.05, reorder=1 / 16, hold=0.02)
    link.impair(bad)
    link.impair(**{lossy.name.lower(): dataclasses.replace(bad, loss=LOSS)})


def beyond(measured: Sequence[float], true: Sequence[float]) -> float:
    """What a tool adds to the link's times, typically: it had packets, and luck, of its own."""
    assert len(measured) == len(true)
    return statistics.median(m - t for m, t in zip(measured, true, strict=True))


def assert_close_once(compare: Callable[[], float]) -> None:
    """That two means are close, in one of three tries: each pause of a busy machine is in them."""
    apart: list[float] = []
    while len(apart) < 3 and not (apart and abs(apart[-1]) < CLOSE):
        apart.append(compare())
    assert abs(apart[-1]) < CLOSE, apart


FEWER = ("-c", "320", "-i", "0.01", "-s", str(SIZE))
FAIR = Impairment(delay=0.025, jitter=0.004)
"""Less jitter than would let one ping overtake another: two flows have the same mean."""


@on("aioquic")
def test_ping_has_the_mean_of_ping8(link: Link) -> None:
    link.impair(FAIR)
    with serving(link) as server:

        def compare() -> float:
            with icmp_pinging(link, *FEWER) as icmp:
                report = ping(link, server, *FEWER)
                assert report["received"] == 320
                return float(report["rtt_ms"]["avg"]) / 1000 - icmp_report(icmp).mean

        assert_close_once(compare)


@on(OTHER)
def test_probe_has_the_mean_of_ping8(link: Link) -> None:
    link.impair(FAIR)
    with serving(link) as server, probing(link, server, interval=0.01, size=SIZE) as probe:
        probe.wait_event("target_up")
        name = "pingpong_client_rtt_seconds"

        def compare() -> float:
            before = probe.metrics()
            with icmp_pinging(link, *FEWER) as icmp:
                mean = icmp_report(icmp).mean
            after = probe.metrics()
            total, count = (
                after.total(f"{name}_{part}") - before.total(f"{name}_{part}")
                for part in ("sum", "count")
            )
            assert count >= 100
            return total / count - mean

        assert_close_once(compare)


@in_turn("lossy", Direction)
def test_ping_measures_a_bad_link_as_it_is(link: Link, lossy: Direction) -> None:
    link.impair(Impairment(delay=0.025))
    with serving(link) as server, pinging(link, server, *OURS) as running:
        running.wait_line("rtt_ms")
        impair(link, lossy)
        with icmp_pinging(link, *ICMP) as icmp:
            icmp_rtts = icmp_report(icmp).rtts
        running.finish()
        report, records = Report.of(running), link.settle()
    truth = Truth(records)

    assert report["sent"] == len(truth.pings) == COUNT
    assert truth.unanswered == 0
    replies = [reply for reply in report.replies if not reply["duplicate"]]
    assert [r["seq"] - 1 for r in replies] == [ping.number for ping in truth.in_order_of_return]
    assert report["reordered"] == truth.reordered > 10
    assert report["late"] == 0

    losses = {Direction.OUT: report["lost_out"], Direction.BACK: report["lost_back"]}
    assert is_likely(losses[lossy], COUNT, LOSS)
    assert losses[Direction(1 - lossy)] == 0
    assert report["lost_unknown"] == truth.lost_after_last

    ours = beyond(
        [reply["rtt_ms"] / 1000 for reply in replies],
        [ping.rtt for ping in truth.in_order_of_return],
    )
    assert ours == pytest.approx(beyond(icmp_rtts, truths.icmp_rtts(records)), abs=CLOSE)


@in_turn("lossy", Direction, swapped=True)
def test_probe_measures_a_bad_link_as_it_is(link: Link, lossy: Direction) -> None:
    link.impair(Impairment(delay=0.025))
    with (
        serving(link, "--drain-timeout=1") as server,
        probing(link, server, interval=INTERVAL, timeout=0.5, size=SIZE) as probe,
    ):
        probe.wait_event("target_up")
        impair(link, lossy)
        with icmp_pinging(link, *ICMP) as icmp:
            icmp_rtts = icmp_report(icmp).rtts
        # The end of the session settles what is lost.
        server.running.send(signal.SIGTERM)
        probe.wait_metrics(
            lambda m: m.total("pingpong_client_sessions_closed_total"), "the session is over"
        )
        # A scrape is made in slices, and the end may have come between two of that one.
        metrics = probe.metrics()
        probe.close()
        records = link.settle()
    truth = Truth(records)

    def total(name: str, **labels: str) -> float:
        return metrics.total(f"pingpong_client_{name}", **labels)

    ok, late, lost = (
        total("probes_completed_total", mode="datagram", result=result)
        for result in ("ok", "late", "lost")
    )
    sent = total("probes_sent_total", mode="datagram")
    assert sent == len(truth.pings) == ok + lost
    assert late == 0
    # All that was in flight at the session's end is lost to it.
    assert 0 <= len(truth.answered) - ok <= IN_FLIGHT
    assert total("reordered_total", mode="datagram") == pytest.approx(truth.reordered, abs=2)
    assert truth.reordered > 10

    losses = {each: total("lost_total", direction=each.name.lower()) for each in Direction}
    unknown = total("lost_total", direction="unknown")
    assert is_likely(losses[lossy], sent, LOSS)
    # None was lost on the other way, but for answers that were on it when the session ended.
    assert losses[Direction(1 - lossy)] <= len(truth.answered) - ok
    assert sum(losses.values()) + unknown == lost
    assert unknown <= IN_FLIGHT

    true = statistics.mean(ping.rtt for ping in truth.answered if ping.number > 0)
    ours = metrics.mean("pingpong_client_rtt_seconds", mode="datagram") - true
    # Each pause of a busy machine is in this mean.
    assert ours == pytest.approx(beyond(icmp_rtts, truths.icmp_rtts(records)), abs=5 * CLOSE)


@on_both
def test_copies_that_the_network_makes_are_counted(link: Link) -> None:
    with serving(link) as server:
        link.impair(Impairment(delay=0.005), back=Impairment(delay=0.005, duplicate=0.2))
        report = ping(link, server, "-c", "200", "-i", "0.01", "-s", str(SIZE))
    records = link.settle()
    copies = sum(r.is_copy for r in records if r.direction is Direction.BACK)
    answers = Truth(records).copies_back
    assert answers > 10
    # The last one may come too late to be counted; the others are of acknowledgements.
    assert answers - 1 <= report["duplicates"] <= copies
    assert report["received"] == 200
