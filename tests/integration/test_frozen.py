"""Fault: the server is frozen for a while, and continued; or one of its workers is."""

from __future__ import annotations

import signal
import time

import pytest

from tests.integration.services import FAST, probing, serving

INTERVAL = FAST["interval"]
TIMEOUT = 0.5


def test_late_answers_are_late() -> None:
    with serving() as server, probing(server, timeout=TIMEOUT) as probe:
        probe.wait_answers()
        server.send(signal.SIGSTOP)
        frozen_at = time.monotonic()
        # The length of the fault itself; nothing is waited for.
        time.sleep(10)
        during = probe.metrics()
        server.send(signal.SIGCONT)
        seconds = time.monotonic() - frozen_at
        late = (seconds - TIMEOUT) / INTERVAL
        metrics = probe.wait_metrics(
            lambda m: m.completed("late") > 0.8 * late and m.total("pingpong_client_session_up"),
            "the answers come, late",
        )
        metrics = probe.wait_answers()

        # The frozen time was on the server's side: all came back, in the end.
        assert metrics.completed("late") == pytest.approx(late, abs=0.2 / INTERVAL)
        assert metrics.completed("lost") == 0
        assert metrics.completed("send_error") == 0
        assert metrics.total("pingpong_client_duplicates_total") == 0
        sent = metrics.total("pingpong_client_probes_sent_total")
        assert sent - metrics.completed("ok") - metrics.completed("late") <= 2

        # It was found to be down, and was so once.
        assert during.total("pingpong_client_session_up") == 0
        outages, length = metrics.outages()
        assert outages == len(probe.events("target_down")) == 1
        assert length == pytest.approx(seconds, abs=0.3)

        # Nobody stormed a server that was slow: one attempt every second or so, none after it.
        assert metrics.connects("ok") <= 2
        attempts = metrics.total("pingpong_client_connects_total")
        assert attempts <= 2 + seconds
        assert server.metrics().total("pingpong_server_sessions_active") == 1
        assert server.ask("/livez")[0] == 200
        assert probe.ask("/livez")[0] == 200


def test_the_server_says_that_it_was_held_up() -> None:
    with serving(self_ping_interval=0.5) as server, probing(server) as probe:
        server.wait_ready()
        server.send(signal.SIGSTOP)
        time.sleep(0.8)
        server.send(signal.SIGCONT)
        server.wait_ready()
        probe.wait_answers()
        metrics = server.wait_metrics(
            lambda m: m.above("pingpong_server_event_loop_lag_seconds", 0.512), "lag is counted"
        )
        # Its own time with the pings that it found in its socket is its own, not the network's.
        assert metrics.above("pingpong_server_answer_duration_seconds", 0.25) > 5
        told = probe.metrics()
        assert told.above("pingpong_client_server_time_seconds", 0.256) > 5
        assert told.above("pingpong_client_rtt_seconds", 0.1) == 0
        # And nothing was amiss: no answer took longer than the timeout allows.
        assert told.outages() == (0, 0)
        assert told.connects("ok") == told.total("pingpong_client_connects_total") == 1
