"""Fault: the server is drained, while another stands ready, or none does."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.services import (
    PORT,
    Probe,
    at,
    probing,
    serving,
    with_names,
)
from tests.support.engines import on_each_engine
from tests.support.nameserver import NameServer
from tests.support.running import wait_until

NAME = "pingpong.test"
pytestmark = on_each_engine

MODES = ("datagram", "stream", "streams", "uni")


@pytest.fixture
def names() -> Iterator[NameServer]:
    with NameServer() as names:
        yield names


def assert_nothing_missed(probe: Probe, connections: int, drained: int) -> None:
    """Each ping was sent in its time, and answered in time."""
    metrics = probe.wait_answers(20 * len(MODES))
    for result in ("late", "lost", "malformed", "send_error"):
        assert metrics.completed(result) == 0, result
    for direction in ("out", "back", "unknown"):
        assert metrics.total("pingpong_client_lost_total", direction=direction) == 0
    # Those that are on their way this very moment are not answered yet.
    sent = metrics.total("pingpong_client_probes_sent_total")
    assert sent - metrics.completed("ok") <= len(MODES)
    assert metrics.connects("ok") == connections
    assert metrics.outages() == (0, 0)
    assert metrics.total("pingpong_client_sessions_closed_total", reason="drain") == drained
    assert not probe.events("target_down")


def test_sessions_move_to_another_server_first(names: NameServer, tmp_path: Path) -> None:
    with serving() as one, serving() as other:
        names.set(NAME, "A", one.address, other.address, ttl=1)
        command = with_names(names, tmp_path)
        with probing(f"{NAME}:{PORT}", command=command, mode=",".join(MODES)) as probe:
            probe.wait_answers()
            servers = {server.address: server for server in (one, other)}
            drained = servers.pop(probe.wait_up()["address"])
            (ready,) = servers.values()

            drained.send(signal.SIGTERM)
            moved = probe.wait_event("session_moved")
            assert (moved["before"], moved["address"]) == (drained.address, ready.address)
            assert drained.finish() == 0
            # The old session was left, and not waited out; before that there was the new one.
            took = at(drained.events("stopped")[0]) - at(drained.events("stopping")[0])
            assert took < 5
            assert at(moved) <= at(drained.events("stopped")[0])
            assert_nothing_missed(probe, connections=2, drained=1)
            assert ready.metrics().total("pingpong_server_sessions_active") == 1


def test_rolling_restart_of_two_servers(names: NameServer, tmp_path: Path) -> None:
    """Of which one is always ready, as a Deployment's update has it."""
    with serving() as one, serving() as other:
        names.set(NAME, "A", one.address, other.address, ttl=1)
        command = with_names(names, tmp_path)
        with probing(f"{NAME}:{PORT}", command=command, mode=",".join(MODES)) as probe:
            probe.wait_answers()
            place = probe.wait_up()["address"]
            first, second = (one, other) if place == one.address else (other, one)
            first.send(signal.SIGTERM)
            assert first.finish() == 0
            with serving(first.address) as again:
                again.wait_ready()
                second.send(signal.SIGTERM)
                assert second.finish() == 0
                assert probe.wait_event("session_moved", 2)["address"] == again.address
                assert_nothing_missed(probe, connections=3, drained=2)


@pytest.mark.parametrize("workers", [1, 2])
def test_who_is_to_stay_ready_is_so_to_the_end(workers: int) -> None:
    with (
        serving(drain_timeout=1, drain_stay_ready="true", workers=workers) as server,
        probing(server) as probe,
    ):
        probe.wait_answers()
        server.send(signal.SIGTERM)
        wait_until(lambda: "set to stay ready" in server.checks()["drain"][1], "it drains")
        assert server.ask("/readyz")[0] == 200
        assert server.metrics().total("pingpong_server_draining") == 1
        assert server.finish() == 0


def test_without_another_server_it_is_pinged_to_the_end() -> None:
    with serving(drain_timeout=1) as server, probing(server) as probe:
        probe.wait_answers()
        server.send(signal.SIGTERM)
        stopping = server.wait_event("stopping")
        wait_until(lambda: not server.checks()["drain"][0], "it is not ready any more")
        # A restart would be no help.
        assert server.ask("/livez")[0] == 200
        # Those who come now are sent away, and say so; who was here is answered.
        refused = probe.wait_metrics(
            lambda m: m.connects("http_status") or m.connects("refused"), "no other session"
        )
        assert refused.total("pingpong_client_session_up") == 1
        assert server.metrics().total("pingpong_server_draining") == 1
        assert server.finish() == 0
        down = probe.wait_event("target_down")
        assert at(down) - at(stopping) > 0.9
        probe.wait_metrics(
            lambda m: m.total("pingpong_client_sessions_closed_total", reason="drain"), "its end"
        )
        # A scrape is made in slices, and the end may have come between two of that one.
        metrics = probe.metrics()
        assert metrics.completed("late") == 0
        # What was asked after the end, which nobody had heard of yet.
        assert metrics.completed("lost") <= 1


def test_a_restart_of_the_only_server(names: NameServer) -> None:
    with serving(drain_timeout=0.5) as server, probing(server) as probe:
        probe.wait_answers()
        server.send(signal.SIGTERM)
        assert server.finish() == 0
        with serving(server.address) as again:
            up = probe.wait_up(2)
            assert at(up) - at(again.events("listening")[0]) < 2
            count, seconds = probe.wait_answers().outages()
            assert count == 1
            length = at(up) - at(server.events("stopped")[0])
            assert seconds == pytest.approx(length, abs=0.2)
