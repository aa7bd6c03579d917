"""Fault: the server is killed, and started again on its port."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.relay import relaying
from tests.integration.services import (
    FAST,
    Probe,
    Server,
    at,
    own_address,
    probing,
    serving,
)
from tests.support.certificates import Authority, Pair
from tests.support.engines import on_each_engine
from tests.support.running import Metrics

pytestmark = on_each_engine

WITHIN = 2.0
"""Seconds after the start of the new server, within which it is to be pinged."""
EXACT = 0.2
"""Seconds by which an outage's length may differ from the true one."""


@pytest.fixture
def place() -> str:
    return own_address()


@pytest.fixture
def from_files(place: str, tmp_path: Path) -> dict[str, Any]:
    """Settings of a server whose successor has the same certificate."""
    pair = Pair(tmp_path / "tls")
    pair.write_in_place(Authority(tmp_path).issue(place))
    return pair.settings


def assert_one_outage(probe: Probe, killed_at: float, server: Server) -> Metrics:
    """It is up again soon after the server was, and says how long it was not."""
    up = probe.wait_up(2)
    assert at(up) - at(server.events("listening")[0]) < WITHIN
    metrics = probe.wait_answers()
    true_length = at(up) - killed_at
    count, seconds = metrics.outages()
    assert count == 1
    assert seconds == pytest.approx(true_length, abs=EXACT)
    assert up["outage_seconds"] == pytest.approx(true_length, abs=EXACT)
    assert metrics.total("pingpong_client_session_up") == 1
    # Each slot of that time was either sent, in vain, or had no session to be sent on.
    sent = metrics.total("pingpong_client_probes_sent_total") - metrics.completed("ok")
    slots = sent + metrics.completed("send_error")
    assert slots == pytest.approx(true_length / FAST["interval"], abs=EXACT / FAST["interval"])
    assert len(probe.events("target_down")) == 1
    return metrics


def test_killed_for_a_moment(place: str, from_files: dict[str, Any]) -> None:
    with serving(place, **from_files) as server, probing(server) as probe:
        probe.wait_answers()
        server.kill()
        killed_at = time.time()
        with serving(place, **from_files) as again:
            assert_one_outage(probe, killed_at, again)


def test_stateless_reset_tells_that_another_server_is_there(
    place: str, from_files: dict[str, Any]
) -> None:
    with (
        serving(place, **from_files) as server,
        relaying(place) as relay,
        probing(relay.url) as probe,
    ):
        probe.wait_answers()
        server.kill()
        killed_at = time.time()
        with serving(place, **from_files) as again:
            metrics = assert_one_outage(probe, killed_at, again)
            # At once, and not after a time of silence.
            assert at(probe.wait_up(2)) - at(again.events("listening")[0]) < 0.8
    assert metrics.connects("ok") == 2
    assert metrics.connects("timeout") == 0


def test_a_server_with_other_keys_is_found(place: str) -> None:
    """Nobody can know whether its resets are its own, and so what they say is only suspected."""
    with serving(place) as server, relaying(place) as relay, probing(relay.url) as probe:
        probe.wait_answers()
        server.kill()
        killed_at = time.time()
        with serving(place) as again:
            assert_one_outage(probe, killed_at, again)


def test_workers_end_with_a_killed_server(place: str) -> None:
    with serving(place, workers=2) as server, probing(server) as probe:
        probe.wait_answers()
        server.kill()
        killed_at = time.time()
        with serving(place, workers=2) as again:
            assert_one_outage(probe, killed_at, again)
