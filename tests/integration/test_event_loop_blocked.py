"""Fault: the client itself is held up for 300 ms: stopped, or its event loop blocked."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable

import pytest

from tests.integration.services import FAST, PINGPONG, Probe, probing, serving

INTERVAL = FAST["interval"]
BLOCKED = 0.3
BLOCKS = 2
MODES = ("datagram", "stream", "streams", "uni")
SENT, SKIPPED = "pingpong_client_probes_sent_total", "pingpong_client_schedule_skipped_total"

# A handler of Python's runs in the event loop's thread, between two steps of whatever runs there.
_BLOCKABLE = f"""
import signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: time.sleep({BLOCKED}))
from pingpong.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def stop(probe: Probe) -> None:
    probe.send(signal.SIGSTOP)
    time.sleep(BLOCKED)
    probe.send(signal.SIGCONT)


def block(probe: Probe) -> None:
    probe.send(signal.SIGUSR1)


def wait_lag(probe: Probe, count: int) -> None:
    """Wait until so many beats of the event loop have come late."""
    name = "pingpong_client_event_loop_lag_seconds"
    probe.wait_metrics(lambda m: m.above(name, 0.032) >= count, "lag is counted")


@pytest.mark.parametrize("hold_up", [stop, block])
def test_the_network_is_not_blamed(hold_up: Callable[[Probe], None]) -> None:
    command = (sys.executable, "-c", _BLOCKABLE) if hold_up is block else PINGPONG
    with serving() as server, probing(server, command=command, mode=",".join(MODES)) as probe:
        before, began = probe.wait_answers(), time.monotonic()
        for count in range(1, BLOCKS + 1):
            hold_up(probe)
            # What is held up is what was due in that time: at least one of the lag's beats.
            wait_lag(probe, count)
            metrics = probe.wait_answers()

        # Of the slots that passed meanwhile one was kept, late; the others were not made up for.
        skipped = metrics.total(SKIPPED)
        assert skipped > 0.7 * BLOCKS * (BLOCKED / INTERVAL - 1) * len(MODES)
        # And none is missing from the account.
        slots = skipped - before.total(SKIPPED) + metrics.total(SENT) - before.total(SENT)
        passed = (time.monotonic() - began) / INTERVAL
        assert slots / len(MODES) == pytest.approx(passed, rel=0.1, abs=3)

        for result in ("late", "lost", "malformed", "send_error"):
            assert metrics.completed(result) == 0, result
        for mode in MODES:
            assert metrics.above("pingpong_client_rtt_seconds", 0.1, mode=mode) == 0, mode
        assert metrics.outages() == (0, 0)
        assert metrics.total("pingpong_client_session_up") == 1
        assert metrics.connects("ok") == metrics.total("pingpong_client_connects_total") == 1
        assert probe.ask("/livez")[0] == 200
