"""Fault: a narrow path: IPv6's smallest MTU, a smaller one, 1 Mbit/s, and streams over them."""

from __future__ import annotations

import json
import re

import pytest

from tests.integration.network import Report, ping, pinging, probing, serving
from tests.support.engines import in_turn, on_both
from tests.support.network.link import SERVER, SERVER6, Direction, Impairment, Link, Verdict

pytestmark = pytest.mark.network

MODES = ("datagram", "stream", "streams", "uni")
IPV6_MTU = 1280  # RFC 8200, section 5: every link has at least this


@in_turn("address", [SERVER, SERVER6])
def test_all_modes_ping_over_a_link_with_ipv6s_smallest_mtu(link: Link, address: str) -> None:
    link.impair(Impairment(delay=0.005, mtu=IPV6_MTU, silent_mtu=True))
    with (
        serving(link) as server,
        probing(link, server, address, mode=",".join(MODES), interval=0.05, size=1000) as probe,
    ):
        metrics = probe.wait_metrics(
            lambda m: all(
                m.total("pingpong_client_probes_completed_total", mode=mode, result="ok") >= 20
                for mode in MODES
            ),
            "each mode has its answers",
        )
        assert metrics.total("pingpong_client_connects_total") == 1
        assert metrics.total("pingpong_client_lost_total") == 0
    assert {record.verdict for record in link.settle()} == {Verdict.DELIVERED}


@pytest.mark.parametrize("link", [{"mtu": IPV6_MTU}], indirect=True)
@in_turn("address", [SERVER, SERVER6], swapped=True)
def test_a_message_larger_than_the_mtu_is_pinged_on_streams(link: Link, address: str) -> None:
    with serving(link) as server:
        words = ("-c", "20", "-i", "0.02", "-s", "20000", "--mode", "streams")
        report = ping(link, server, *words, address=address)
    assert report["received"] == 20
    # QUIC's packets are never fragmented (RFC 9000, section 14).
    assert max(record.size for record in link.settle()) <= IPV6_MTU


@on_both
@pytest.mark.parametrize("silent", [True, False], ids=["silent", "icmp"])
def test_a_path_too_narrow_for_quic_is_said_to_be_dead(link: Link, silent: bool) -> None:
    # RFC 9000, section 14: QUIC needs UDP payloads of 1,200 bytes.
    link.impair(Impairment(mtu=1200, silent_mtu=silent))
    with serving(link) as server, pinging(link, server, "-c", "1", "-w", "2") as running:
        assert running.finish() == 2
    (summary,) = map(json.loads, running.out)
    assert (summary["sent"], summary["connections"]) == (0, 0)
    assert "no answer on UDP port" in summary["error"]
    said = "\n".join(running.err)
    assert re.search("no answer on UDP port 4433" if silent else "no answer|too long|MTU", said)
    assert "nothing listens there" not in said
    assert {record.verdict for record in link.settle()} >= {Verdict.TOO_BIG}


@in_turn("mode", MODES)
def test_no_ping_is_lost_on_a_slow_link(link: Link, mode: str) -> None:
    link.impair(Impairment(delay=0.01, rate=1e6))
    size = 1000 if mode == "datagram" else 10_000
    with serving(link) as server:
        words = ("-c", "20", "-i", "0.2", "-W", "5", "-s", str(size), "--mode", mode)
        report = ping(link, server, *words)
    assert report["received"] == report["sent"] == 20
    assert report["skipped"] == 0
    # The server answers when all of a message is there: both ways count in full. What is sent
    # in a burst, after a pause, isn't waited for.
    shortest = 2 * (0.01 + max(size - 1500, 0) * 8 / 1e6)
    assert report["rtt_ms"]["min"] / 1000 > shortest
    assert report["rtt_ms"]["p50"] / 1000 < 1.5 * shortest + 0.05


@in_turn("mode", ["stream", "streams", "uni"], swapped=True)
def test_loss_shows_as_latency_on_streams(link: Link, mode: str) -> None:
    with (
        serving(link) as server,
        pinging(link, server, "-c", "100", "-i", "0.05", "-W", "20", "--mode", mode) as running,
    ):
        running.wait_line("rtt_ms")
        link.impair(Impairment(delay=0.01, loss=0.1))
        running.finish()
    report = Report.of(running)
    lost = [r for r in link.settle() if r.verdict is Verdict.LOST]
    assert {record.direction for record in lost} == set(Direction)
    assert report["received"] == report["sent"] == 100
    assert report["lost"] == 0
    assert report["rtt_ms"]["p50"] < 40
    assert report["rtt_ms"]["max"] > 60
