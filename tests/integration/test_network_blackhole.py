"""Fault: the path is a black hole for a while, and then healed."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager

import pytest

from tests.integration import truth
from tests.integration.network import Report, Running, Server, pinging, probing, serving
from tests.integration.truth import Truth
from tests.support.link.link import Direction, Impairment, Link, Verdict, wait_until

pytestmark = pytest.mark.network

SIZE = 400
"""Of probes: no packet of a handshake is so large, or larger but whole."""
INTERVAL = 0.2
BACKOFF_MAX = 1.0


def pongs(link: Link) -> list[float]:
    """When answers left the link, in seconds of time.monotonic()."""
    return [
        record.sent / 1e9
        for record in link.records()
        if record.direction is Direction.BACK
        and record.verdict is Verdict.DELIVERED
        and SIZE < record.size < 2 * SIZE
    ]


def wait_pong(link: Link, since: float) -> float:
    """Wait for the first answer after `since`: when it came."""
    wait_until(lambda: pongs(link)[-1] > since, "an answer comes", 10)
    return next(pong for pong in pongs(link) if pong > since)


def wait_up(link: Link, probe: Running) -> None:
    probe.wait_event("target_up")
    wait_until(lambda: len(pongs(link)) >= 10, "some probes are answered")


def probe_at(link: Link, server: Server) -> AbstractContextManager[Running]:
    return probing(link, server, interval=INTERVAL, size=SIZE, backoff_max=BACKOFF_MAX)


@pytest.mark.parametrize("seconds", [3, 20])
def test_a_probe_is_back_within_two_seconds_of_the_healing(link: Link, seconds: float) -> None:
    link.impair(Impairment(delay=0.005))
    with (
        serving(link) as server,
        probe_at(link, server) as probe,
    ):
        wait_up(link, probe)
        broken_at = link.blackhole()
        last = pongs(link)[-1]
        wait_until(lambda: time.monotonic() >= broken_at + seconds, "time passes", 60)
        healed_at = link.heal()
        first = wait_pong(link, healed_at)
        assert first < healed_at + 2
        metrics = probe.wait_metrics(
            lambda m: m.total("pingpong_client_session_up") == 1, "the target is up"
        )
        # One outage, of its true length.
        assert metrics.total("pingpong_client_outage_seconds_count") == 1
        outage = metrics.total("pingpong_client_outage_seconds_sum")
        assert outage == pytest.approx(first - last, abs=0.2)
        assert seconds <= outage < seconds + 2 + INTERVAL
        [_, up] = probe.events("target_up")
        assert up["outage_seconds"] == pytest.approx(outage, abs=0.001)
        assert len(probe.events("target_down")) == 1
        # It went on pinging all the time, and the process was not held up.
        slots = (time.monotonic() - broken_at) / INTERVAL
        of_mode = {"mode": "datagram"}
        sent = metrics.total("pingpong_client_probes_sent_total", **of_mode)
        sent += metrics.total(
            "pingpong_client_probes_completed_total", **of_mode, result="send_error"
        )
        assert sent > slots
        assert metrics.total("pingpong_client_schedule_skipped_total") <= 2


def test_a_server_that_could_not_be_reached_is_pinged_within_two_seconds_of_the_healing(
    link: Link,
) -> None:
    link.blackhole()
    with (
        serving(link) as server,
        probe_at(link, server) as probe,
    ):
        metrics = probe.wait_metrics(
            lambda m: m.total("pingpong_client_connects_total", result="timeout") >= 1,
            "an attempt has failed",
        )
        assert metrics.total("pingpong_client_session_up") == 0
        healed_at = link.heal()
        wait_until(lambda: bool(pongs(link)), "an answer comes", 10)
        assert pongs(link)[0] < healed_at + 2
        metrics = probe.wait_metrics(
            lambda m: m.total("pingpong_client_session_up") == 1, "the target is up"
        )
        # Nothing was up before, so nothing was out.
        assert metrics.total("pingpong_client_outage_seconds_count") == 0


@pytest.mark.parametrize("direction", list(Direction), ids=lambda one: one.name.lower())
def test_a_path_that_is_dead_one_way_is_an_outage_as_well(link: Link, direction: Direction) -> None:
    with (
        serving(link) as server,
        probe_at(link, server) as probe,
    ):
        wait_up(link, probe)
        link.impair(**{direction.name.lower(): Impairment(blackhole=True)})
        probe.wait_event("target_down")
        metrics = probe.wait_metrics(
            lambda m: m.total("pingpong_client_session_up") == 0, "the target is down"
        )
        assert metrics.total("pingpong_client_targets") == 1
        healed_at = link.heal()
        assert wait_pong(link, healed_at) < healed_at + 2


def test_a_running_ping_goes_on_when_the_path_is_healed(link: Link) -> None:
    link.impair(Impairment(delay=0.005))
    words = ("-c", "60", "-i", "0.1", "-s", str(truth.SIZE))
    with serving(link) as server, pinging(link, server, *words) as running:
        running.wait_line('"seq": 10,')
        broken_at = link.blackhole()
        wait_until(lambda: time.monotonic() >= broken_at + 3, "time passes")
        healed_at = link.heal()
        assert running.finish() == 0
    report, true = Report.of(running), Truth(link.settle())
    assert report["sent"] == len(true.pings) == 60
    replies = [reply["seq"] - 1 for reply in report.replies]
    assert replies == [ping.number for ping in true.answered]
    assert report["lost"] == true.lost_out + true.lost_back == 60 - len(replies)
    # Each of them, from the first one sent after the healing on.
    assert all(ping.is_answered for ping in true.pings if ping.out.received > healed_at * 1e9)
