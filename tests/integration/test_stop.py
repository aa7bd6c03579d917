"""The server's orderly end: under load, with no session, at a second signal; and its start."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.integration.services import Ping, Server, at, probing, serving
from tests.support.engines import on_both

MODES = ("datagram", "stream", "streams", "uni")
TRIES = 5
"""One of them is to succeed: what a loaded machine adds to the others is nobody's fault."""
SERVER_LIBRARIES = (
    "aiohttp.web",
    "aioquic.h3.connection",
    "cryptography.x509",
    "prometheus_client",
    "pydantic_settings",
    "structlog",
    "uvloop",
)
CLIENT_LIBRARIES = (*SERVER_LIBRARIES, "dns.asyncresolver")


@on_both
@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_asked_before_the_end_is_answered(workers: int) -> None:
    with (
        serving(drain_timeout=0.5, workers=workers) as server,
        contextlib.ExitStack() as stack,
    ):
        clients = [
            stack.enter_context(Ping(server, "-i0.01", f"--mode={mode}", "-W5", "-D"))
            for mode in (*MODES, "datagram")
        ]
        for client in clients:
            client.wait_replies(50)
        waited = [client.waited() for client in clients]
        server.send(signal.SIGTERM)
        assert server.finish() == 0
        stopping, closing = (server.events(name)[0] for name in ("stopping", "drain_timed_out"))
        for client, before in zip(clients, waited, strict=True):
            held_up = client.waited() - before
            client.send(signal.SIGINT)
            report = client.report()
            # While they were asked to leave they were answered as ever: to the end, but for
            # what the next ping's time was after that, or the client itself was late,
            last = max(reply["time"] for reply in report.replies)
            assert last > at(closing) - 0.05 - held_up
            # and without a gap. Unanswered are those that were asked until the client had heard
            # of the end: nobody can know which way they were lost.
            assert sorted(r["seq"] for r in report.replies) == [*range(1, report["received"] + 1)]
            assert report["late"] + report["malformed"] + report["duplicates"] == 0
            assert report["lost_out"] + report["lost_back"] == 0
        assert at(server.events("stopped")[-1]) - at(stopping) < 2


@on_both
@pytest.mark.parametrize("workers", [1, 2])
def test_what_waits_in_the_socket_at_the_end_is_answered(workers: int) -> None:
    with (
        serving(drain_timeout=0, workers=workers) as server,
        contextlib.ExitStack() as stack,
    ):
        clients = [
            stack.enter_context(Ping(server, "-i0.01", f"--mode={mode}", "-W5", "-D"))
            for mode in MODES
        ]
        for client in clients:
            client.wait_replies(20)
        waited = [client.waited() for client in clients]
        # What is asked now waits in the kernel, until the server goes on, and ends.
        for pid in server.processes:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(0.3)
        server.send(signal.SIGTERM)
        ended_at = time.time()
        for pid in server.processes:
            os.kill(pid, signal.SIGCONT)
        assert server.finish() == 0
        for client, before in zip(clients, waited, strict=True):
            held_up = client.waited() - before
            client.send(signal.SIGINT)
            report = client.report()
            asked = {
                r["seq"]: r["time"] - (r["rtt_ms"] + r["server_ms"]) / 1000 for r in report.replies
            }
            assert len(asked) == report["received"]
            # A client that is quick has a session with the other worker before that ends too: what
            # it asked in between has no answer.
            last = next(seq for seq in itertools.count(1) if seq + 1 not in asked)
            assert asked[last] > ended_at - 0.03 - held_up, (
                "some were not answered that were asked before"
            )
            assert report["lost_out"] + report["lost_back"] == 0


def test_a_second_signal_ends_it_at_once() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with serving(workers=2) as server, probing(server):
            server.send(number)
            server.wait_event("stopping", signal=number.name)
            began = time.monotonic()
            server.send(signal.SIGTERM)
            assert server.finish() == 128 + signal.SIGTERM
            assert time.monotonic() - began < 1
            # Its workers are gone too: the port is free.
            with serving(server.address) as again:
                again.wait_ready()


def test_probe_stops_at_once() -> None:
    with serving() as server, probing(server, mode=",".join(MODES)) as probe:
        probe.wait_answers()
        probe.send(signal.SIGTERM)
        began = time.monotonic()
        assert probe.finish() == 0
        assert time.monotonic() - began < 1
        # It said goodbye: nothing is left of it at the server.
        server.wait_metrics(
            lambda m: m.total("pingpong_server_sessions_active") == 0, "the session is over", 2
        )


def can_be_within(limit: float, measure: Callable[[], float]) -> bool:
    """Whether what it measures is below a limit in one of some tries, as on an idle machine."""
    return any(measure() < limit for _ in range(TRIES))


@pytest.mark.parametrize("workers", [1, 2])
def test_how_long_it_takes_to_stop(workers: int) -> None:
    def stop() -> float:
        with serving(workers=workers) as server:
            server.wait_ready()
            began = time.monotonic()
            server.send(signal.SIGTERM)
            assert server.finish() == 0
            return time.monotonic() - began

    assert can_be_within(0.3, stop)


def importing(libraries: tuple[str, ...]) -> float:
    """Seconds of CPU that a Python takes that only imports these: the measure of this machine."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", f"import {', '.join(libraries)}"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_how_long_it_takes_to_start() -> None:
    def start() -> float:
        with Server() as server:
            server.wait_ready()
            took = time.monotonic() - server.began - server.waited()
        return took / importing(SERVER_LIBRARIES)

    assert can_be_within(1.5, start)


def test_how_long_a_probe_takes_to_its_first_answer() -> None:
    with serving() as server:

        def start() -> float:
            with probing(server) as probe:
                took = time.monotonic() - probe.began - probe.waited()
            return took / importing(CLIENT_LIBRARIES)

        assert can_be_within(1.5, start)
