"""Fault: the client's address changes under a live session."""

from __future__ import annotations

import pytest

from tests.integration.network import (
    Report,
    Running,
    pinging,
    probing,
    serving,
)
from tests.support.engines import on_each_engine
from tests.support.network.link import (
    CLIENT,
    CLIENT6,
    DEVICE,
    OTHER,
    OTHER6,
    SERVER,
    SERVER6,
    Impairment,
    Link,
    Verdict,
)
from tests.support.running import Metrics

pytestmark = [pytest.mark.network, *on_each_engine]

INTERVAL = 0.05
SENT = "pingpong_client_probes_sent_total"
families = pytest.mark.parametrize(
    ("client", "other", "server"),
    [(CLIENT, OTHER, SERVER), (CLIENT6, OTHER6, SERVER6)],
    ids=["4", "6"],
)
workers = pytest.mark.parametrize("workers", [1, 4])


def answered(metrics: Metrics) -> float:
    return metrics.total("pingpong_client_probes_completed_total", result="ok")


def wait_more(probe: Running, count: int = 5, timeout: float = 10) -> None:
    """Wait until so many more probes are answered."""
    before = answered(probe.metrics())
    probe.wait_metrics(lambda m: answered(m) >= before + count, f"{count} more answers", timeout)


def assert_same_session(metrics: Metrics) -> None:
    assert metrics.total("pingpong_client_connects_total") == 1
    assert metrics.total("pingpong_client_connects_total", result="ok") == 1
    assert metrics.total("pingpong_client_sessions_closed_total") == 0
    assert metrics.total("pingpong_client_session_up") == 1
    assert metrics.total("pingpong_client_outage_seconds_count") == 0


def unmapped(link: Link) -> int:
    """Packets that were on their way to where the client was."""
    return sum(record.verdict is Verdict.UNMAPPED for record in link.records())


@workers
@families
def test_a_session_goes_on_when_a_nat_gives_it_another_address(
    link: Link, workers: int, client: str, other: str, server: str
) -> None:
    link.impair(Impairment(delay=0.005))
    with (
        serving(link, f"--workers={workers}") as serve,
        probing(link, serve, server, interval=INTERVAL) as probe,
    ):
        probe.wait_event("target_up")
        wait_more(probe)
        # With four workers the kernel would hardly choose the same one each time.
        for _ in range(4):
            link.rebind(other)
            wait_more(probe)
        metrics = probe.wait_metrics(
            lambda m: m.total(SENT) - answered(m) <= unmapped(link),
            "no probe is lost but for those that were answered to where the client was",
        )
        assert_same_session(metrics)
    assert unmapped(link) <= 8


def test_a_session_goes_on_when_the_client_moves_to_another_address(link: Link) -> None:
    link.impair(Impairment(delay=0.005))
    with serving(link) as serve, probing(link, serve, interval=INTERVAL) as probe:
        probe.wait_event("target_up")
        wait_more(probe)
        for before, after in ((CLIENT, OTHER), (OTHER, CLIENT)):
            link.move_client(before, after)
            wait_more(probe, timeout=2)
        assert_same_session(probe.metrics())


def test_a_target_is_pinged_again_soon_when_the_client_moves_to_another_ipv6_address(
    link: Link,
) -> None:
    # Linux goes on sending from an IPv6 address that is gone: only the silence tells.
    link.impair(Impairment(delay=0.005))
    with serving(link) as serve, probing(link, serve, SERVER6, interval=INTERVAL) as probe:
        probe.wait_event("target_up")
        wait_more(probe)
        link.move_client(CLIENT6, OTHER6)
        wait_more(probe, timeout=5)


def test_what_cannot_be_sent_any_more_is_no_loss_of_the_networks(link: Link) -> None:
    with serving(link) as serve, pinging(link, serve, "-c", "120", "-i", "0.02") as running:
        running.wait_line('"seq": 20')
        link.client.ip("link", "set", DEVICE, "down")
        running.finish()
    report = Report.of(running)
    assert report["lost"] <= 3  # on their way then: on a busy machine more than one
    assert report["send_errors"] >= 10
    assert report["sent"] + report["send_errors"] == 120


@workers
def test_a_running_ping_goes_on_when_a_nat_gives_it_another_address(
    link: Link, workers: int
) -> None:
    with (
        serving(link, f"--workers={workers}") as serve,
        pinging(link, serve, "-c", "100", "-i", "0.02") as running,
    ):
        running.wait_line('"seq": 20')
        link.rebind(OTHER)
        running.wait_line('"seq": 60')
        link.rebind(OTHER)
        assert running.finish() == 0
    report = Report.of(running)
    assert report["sent"] == 100
    assert report["lost"] <= unmapped(link) <= 4
