"""Fault: DNS fails, answers nothing, answers other addresses."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.services import PORT, Probe, at, probing, serving, with_names
from tests.support.nameserver import NameServer

NAME = "pingpong.test"
TARGET = f"{NAME}:{PORT}"
LOOKUP = 2.0
"""Seconds that an attempt to connect waits for a name server, at most."""


@pytest.fixture
def names() -> Iterator[NameServer]:
    with NameServer() as names:
        yield names


@pytest.fixture
def settings(names: NameServer, tmp_path: Path) -> dict[str, Any]:
    """With which a probe asks that name server, and often."""
    return {"command": with_names(names, tmp_path), "discovery_interval": 1}


def lookups(probe: Probe, result: str) -> float:
    return probe.metrics().total("pingpong_client_discovery_total", result=result)


FAULTS: dict[str, Callable[[NameServer], None]] = {
    "timeout": lambda names: names.silence(),
    "servfail": lambda names: names.fail(NAME, "SERVFAIL"),
    "nxdomain": lambda names: names.fail(NAME, "NXDOMAIN"),
    "empty": lambda names: names.set(NAME, "A"),
}


@pytest.mark.parametrize("result", FAULTS)
def test_the_last_good_answer_is_kept(
    names: NameServer, settings: dict[str, Any], result: str
) -> None:
    with serving() as server:
        names.set(NAME, "A", server.address, ttl=1)
        with probing(TARGET, ready_requires="all", **settings) as probe:
            before = probe.wait_answers()
            assert before.total("pingpong_client_discovery_total", result=result) == 0
            FAULTS[result](names)
            failed = probe.wait_event("discovery_failed")
            assert (failed["result"], failed["addresses_kept"]) == (result, 1)
            metrics = probe.metrics()
            assert metrics.total("pingpong_client_discovery_total", result=result) >= 1
            # How old the answer is that is still used can be seen.
            last = "pingpong_client_discovery_last_success_timestamp_seconds"
            assert metrics.total(last) < at(failed)
            assert metrics.total("pingpong_client_targets") == 1

            # The session goes on, and a new one is made with what was known.
            server.kill()
            with serving(server.address) as again:
                up = probe.wait_up(2)
                assert at(up) - at(again.events("listening")[0]) < 2 + LOOKUP
                after = probe.wait_answers()
            assert after.connects("dns") == 0
            assert after.outages()[0] == 1
            assert after.total(last) == pytest.approx(metrics.total(last), abs=0.1)


def test_names_that_come_back_are_told(names: NameServer, settings: dict[str, Any]) -> None:
    with serving() as server:
        names.set(NAME, "A", server.address, ttl=1)
        with probing(TARGET, **settings) as probe:
            names.fail(NAME, "SERVFAIL")
            failed = probe.wait_event("discovery_failed")
            last = "pingpong_client_discovery_last_success_timestamp_seconds"
            names.restore()
            probe.wait_event("discovery_recovered")
            assert probe.metrics().total(last) > at(failed)
            # However often it failed, it was said once.
            assert len(probe.events("discovery_failed")) == 1


def test_a_drained_servers_successor_is_found_at_another_address(
    names: NameServer, settings: dict[str, Any]
) -> None:
    with serving() as server, serving() as other:
        names.set(NAME, "A", server.address, ttl=30)
        with probing(TARGET, **(settings | {"discovery_interval": 30})) as probe:
            probe.wait_answers()
            names.set(NAME, "A", other.address, ttl=30)
            server.send(signal.SIGTERM)
            assert server.finish() == 0
            assert probe.wait_event("session_moved")["address"] == other.address
            assert probe.wait_answers().outages() == (0, 0)


def test_a_dead_servers_successor_is_found_at_another_address(
    names: NameServer, settings: dict[str, Any]
) -> None:
    with serving() as server, serving() as other:
        names.set(NAME, "A", server.address, ttl=30)
        with probing(TARGET, **(settings | {"discovery_interval": 30})) as probe:
            probe.wait_answers()
            server.kill()
            # Whatever the time to live is: whoever connects looks up first.
            names.set(NAME, "A", other.address, ttl=30)
            up = probe.wait_up(2)
            assert up["address"] == other.address
            assert up["outage_seconds"] < 2
            assert len(probe.events("target_up")) == 2


def test_each_address_is_a_target_while_it_is_there(
    names: NameServer, settings: dict[str, Any]
) -> None:
    with serving() as one, serving() as two, serving() as three:

        def targets(*servers: Any) -> set[str]:
            return {f"{TARGET}[{server.address}]" for server in servers}

        names.set(NAME, "A", one.address, two.address, ttl=1)
        with probing(TARGET, all=True, **settings) as probe:
            up = "pingpong_client_session_up"

            def all_up(*servers: Any) -> Callable[[Any], bool]:
                wanted = targets(*servers)
                return lambda m: m.labels(up, "target") == wanted and m.total(up) == len(wanted)

            probe.wait_metrics(all_up(one, two), "both are probed")
            names.set(NAME, "A", two.address, three.address, ttl=1)
            metrics = probe.wait_metrics(all_up(two, three), "the series are those of the new ones")
            # Who stayed was left in peace.
            (stayed,) = targets(two)
            assert metrics.connects("ok", target=stayed) == 1
            assert metrics.completed("lost", target=stayed) == 0
            names.fail(NAME, "NXDOMAIN")
            probe.wait_event("discovery_failed")
            assert probe.metrics().labels(up, "target") == targets(two, three)


def test_a_name_that_is_not_there_yet(names: NameServer, settings: dict[str, Any]) -> None:
    with serving() as server, Probe(TARGET, ready_requires="all", **settings) as probe:
        failed = probe.wait_event("connect_failed")
        assert failed["result"] == "dns"
        is_ok, reason = probe.checks()["targets"]
        assert not is_ok
        assert NAME in reason
        assert "0 of 1 targets are up" in reason
        assert probe.metrics().connects("dns") >= 1
        assert lookups(probe, "nxdomain") >= 1
        # What measures an outage is itself well.
        assert probe.ask("/livez")[0] == 200
        names.set(NAME, "A", server.address, ttl=1)
        probe.wait_up()
        probe.wait_ready()
        assert probe.metrics().outages() == (0, 0)


@pytest.mark.parametrize(("requires", "ready"), [("none", True), ("any", True), ("all", False)])
def test_readiness_with_a_name_that_fails(
    settings: dict[str, Any], requires: str, ready: bool
) -> None:
    with serving() as server:
        both = f"{TARGET},{server.address}:{PORT}"
        with probing(both, ready_requires=requires, **settings) as probe:
            probe.wait_event("discovery_failed")
            is_ok, reason = probe.checks()["targets"]
            assert is_ok == ready
            assert "1 of 2 targets are up" in reason
