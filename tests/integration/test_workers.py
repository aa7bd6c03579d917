"""Fault: of several workers on one port one dies, or is frozen, or all are to leave."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.services import PORT, Probe, Server, at, probing, serving, with_names
from tests.support.engines import on_each_engine
from tests.support.nameserver import NameServer
from tests.support.running import Metrics

pytestmark = on_each_engine

NAMES = [f"n{number}.test" for number in range(16)]
"""So many that no worker is without a session, but for one time in 30,000."""
TARGETS = {f"{name}:{PORT}" for name in NAMES}


@pytest.fixture
def names() -> Iterator[NameServer]:
    with NameServer() as names:
        yield names


@pytest.fixture
def settings(names: NameServer, tmp_path: Path) -> dict[str, Any]:
    """Of a probe with many targets."""
    return {
        "server": ",".join(sorted(TARGETS)),
        "command": with_names(names, tmp_path),
        "interval": 0.1,
        "ready_requires": "all",
    }


def lead_to(names: NameServer, server: Server) -> None:
    for name in NAMES:
        names.set(name, "A", server.address, ttl=1)


def wait_all_up(probe: Probe) -> Metrics:
    """What the probe has counted when all are up: on a busy machine it may take them long."""
    probe.wait(probe.is_ready, "all targets are up")
    return probe.metrics()


def at_worker(server: Server, index: int) -> set[str]:
    """The targets whose sessions this worker has, or had."""
    requests = server.events("session_requested", worker=index)
    return {request["authority"] for request in requests} & TARGETS


def assert_undisturbed(probe: Probe, targets: set[str], before: Metrics) -> None:
    """Neither theirs nor anybody's fault was noticed there since `before`."""
    metrics = probe.metrics()
    for target in targets:
        assert metrics.connects("ok", target=target) == 1
        assert metrics.total("pingpong_client_connects_total", target=target) == 1
        assert metrics.completed("ok", target=target) > 5
        for result in ("late", "lost", "send_error"):
            assert metrics.completed(result, target=target) == before.completed(
                result, target=target
            )
        assert not probe.events("target_down", target=target)


def test_a_killed_worker_is_replaced(names: NameServer, settings: dict[str, Any]) -> None:
    with serving(workers=2, log_level="debug") as server:
        lead_to(names, server)
        with probing(**settings) as probe:
            all_up = wait_all_up(probe)
            probe.wait_answers(10 * len(TARGETS))
            server.wait_ready()
            before = server.metrics()
            assert before.total("pingpong_server_workers") == 2
            assert before.total("pingpong_server_sessions_active") == len(TARGETS)

            victim = server.processes[1]
            os.kill(victim, signal.SIGKILL)
            died = server.wait_event("worker_died")
            assert (died["pid"], died["status"]) == (victim, -signal.SIGKILL)
            index = died["worker"]
            replaced = server.wait_event("worker_replaced")
            assert replaced["worker"] == index
            hit, spared = at_worker(server, index), at_worker(server, 1 - index)
            assert hit
            assert spared
            # Those that it had are back as soon as its successor is there.
            probe.wait(lambda: len(probe.events("target_up")) >= len(TARGETS | hit), "all are back")
            wait_all_up(probe)
            for target in hit:
                up = probe.wait_event("target_up", 2, target=target)
                assert at(up) - at(replaced) < 2
            probe.wait_answers(10 * len(TARGETS))
            assert_undisturbed(probe, TARGETS - hit, all_up)
            assert probe.metrics().outages()[0] == len(hit)

            server.wait_ready()
            after = server.metrics()
            assert after.total("pingpong_server_workers") == 2
            assert after.total("pingpong_server_worker_restarts_total") == 1
            # What the dead one has counted is not forgotten, but for the last moments.
            for name in ("messages_answered", "sessions"):
                metric = f"pingpong_server_{name}_total"
                assert after.total(metric) >= before.total(metric)
            assert after.total("pingpong_server_sessions_active") == len(TARGETS)
            server.send(signal.SIGTERM)
            server.wait_event("stopping")


def test_a_frozen_worker_is_found(names: NameServer, settings: dict[str, Any]) -> None:
    with serving(workers=2, log_level="debug", self_ping_interval=0.5) as server:
        lead_to(names, server)
        with probing(**settings) as probe:
            all_up = wait_all_up(probe)
            server.wait_ready()
            victim = server.processes[1]
            os.kill(victim, signal.SIGSTOP)
            server.wait(lambda: server.ask("/livez")[0] == 503, "a worker says nothing", timeout=15)
            is_ok, reason = server.checks("/livez")["workers"]
            assert not is_ok
            assert "has said nothing for" in reason
            index = int(reason.split()[1])
            assert not server.is_ready()
            # The other one goes on, and metrics too.
            assert server.metrics().total("pingpong_server_workers") == 2
            spared = at_worker(server, 1 - index) - at_worker(server, index)
            assert_undisturbed(probe, spared, all_up)
            os.kill(victim, signal.SIGCONT)
            server.wait_ready()
            assert server.ask("/livez")[0] == 200
            wait_all_up(probe)
            assert server.metrics().total("pingpong_server_worker_restarts_total") == 0


def test_all_workers_are_drained(names: NameServer, settings: dict[str, Any]) -> None:
    with (
        serving(workers=2, log_level="debug") as server,
        serving(workers=2) as other,
    ):
        lead_to(names, server)
        with probing(**settings) as probe:
            all_up = wait_all_up(probe)
            assert at_worker(server, 0)
            assert at_worker(server, 1)
            lead_to(names, other)
            server.send(signal.SIGTERM)
            assert server.finish() == 0
            metrics = probe.wait_answers(5 * len(TARGETS))
            assert metrics.total("pingpong_client_sessions_closed_total", reason="drain") == len(
                TARGETS
            )
            assert len(probe.events("session_moved", address=other.address)) == len(TARGETS)
            assert not probe.events("target_down")
            for result in ("late", "lost", "send_error"):
                assert metrics.completed(result) == all_up.completed(result)
            sessions = "pingpong_server_sessions_active"
            assert other.metrics().total(sessions) == len(TARGETS)
