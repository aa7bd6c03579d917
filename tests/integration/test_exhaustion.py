"""Fault: no descriptor is left, the log's disk is full or nobody reads it, scrapes by the hundred."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.services import (
    ADMIN_PORT,
    FAST,
    PINGPONG,
    Ping,
    Server,
    Service,
    ping,
    probing,
    serving,
)

DESCRIPTORS = 48
MEGABYTE = 1 << 20


def limited(descriptors: int) -> tuple[str, ...]:
    """A command like `PINGPONG` that may have so many descriptors open."""
    return ("/bin/sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *PINGPONG)


@contextlib.contextmanager
def occupying(service: Service) -> Iterator[list[socket.socket]]:
    """All descriptors that it may have, by connections to its admin port that say nothing."""
    connections: list[socket.socket] = []

    def open_descriptors() -> int:
        return len(os.listdir(f"/proc/{service.popen.pid}/fd"))

    try:
        while open_descriptors() < DESCRIPTORS:
            assert len(connections) < 4 * DESCRIPTORS, "there is no end to them"
            # Those that it does not accept wait in the kernel.
            for _ in range(8):
                connections.append(socket.create_connection((service.admin, ADMIN_PORT), timeout=5))
            time.sleep(0.02)
        yield connections
    finally:
        for connection in connections:
            connection.close()


def assert_all_answered(session: Ping) -> None:
    """The session had no part in it."""
    session.popen.terminate()
    report = session.report()
    assert report["sent"] > 50
    assert report["lost"] + report["late"] + report["send_errors"] == 0
    assert report["connections"] == 1
    assert report["rtt_ms"]["p95"] + report["server_ms"]["p95"] < 100


def test_server_without_descriptors() -> None:
    with (
        serving(command=limited(DESCRIPTORS), self_ping_interval=0.5) as server,
        Ping(server, "-i0.02") as session,
    ):
        session.wait_replies(10)
        server.wait_ready()
        with occupying(server) as connections:
            connections += [
                socket.create_connection((server.admin, ADMIN_PORT), timeout=5) for _ in range(16)
            ]
            began, cpu = time.monotonic(), server.cpu()
            # QUIC needs none: who comes now gets in, too.
            for _ in range(2):
                assert ping(server, "-c10", "-i0.02")["received"] == 10
            # It doesn't turn in circles for want of them.
            assert (server.cpu() - cpu) / (time.monotonic() - began) < 0.5
        # The pressure is gone, and it is as before.
        server.wait(server.is_ready, "the admin port answers again", timeout=10)
        assert server.metrics().total("pingpong_server_sessions_active") == 1
        assert server.ask("/livez")[0] == 200
        assert_all_answered(session)
        server.send(signal.SIGTERM)
        assert server.finish() == 0


def test_probe_without_descriptors() -> None:
    with (
        serving() as server,
        probing(server, command=limited(DESCRIPTORS)) as probe,
    ):
        probe.wait_answers()
        with occupying(probe):
            # Another session takes another socket, which cannot be had now.
            server.send(signal.SIGSTOP)
            failed = probe.wait_event("connect_failed")
            assert "too many open files" in failed["error"].lower()
            probe.wait_event("target_down")
            server.send(signal.SIGCONT)
            probe.wait_up(2)
        probe.wait(probe.is_ready, "the admin port answers again", timeout=10)
        metrics = probe.wait_answers()
        assert metrics.completed("lost") + metrics.completed("send_error") == 0
        assert metrics.connects("ok") == 1
        assert metrics.outages()[0] == 1
        assert probe.ask("/livez")[0] == 200
        assert not probe.events("prober_failed")


def assert_serves_and_ends(server: Server) -> None:
    """With whatever log: it answers, says so on its admin port, and ends in time."""
    server.wait_ready()
    session = ping(server, "-c50", "-i0.01")
    assert session["received"] == 50
    server.send(signal.SIGHUP)
    assert server.metrics().total("pingpong_server_messages_answered_total", mode="datagram") == 50
    assert server.ask("/livez")[0] == 200
    server.send(signal.SIGTERM)
    assert server.finish(timeout=5) == 0


def test_disk_full_on_the_log() -> None:
    with Server(stderr=Path("/dev/full"), log_level="debug") as server:
        assert_serves_and_ends(server)


def test_nobody_reads_the_log(tmp_path: Path) -> None:
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        room = fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
        with Server(stderr=fifo, log_level="debug", workers=2) as server:
            server.wait_ready()
            # Each request is a line, until nothing fits any more.
            while _readable(reader) < room - 256:
                server.ask("/version")
            for _ in range(50):
                server.ask("/version")
            assert_serves_and_ends(server)
    finally:
        os.close(reader)


def _readable(descriptor: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))[0])


@contextlib.contextmanager
def scraping(service: Service, per_second: int) -> Iterator[list[float]]:
    """Ask for metrics so often; how long each answer took."""
    took: list[float] = []
    failures: list[BaseException] = []
    over = threading.Event()
    threads = 4

    def scrape() -> None:
        try:
            while not over.is_set():
                began = time.monotonic()
                service.get("/metrics")
                took.append(time.monotonic() - began)
                over.wait(max(threads / per_second - (time.monotonic() - began), 0))
        except BaseException as error:
            failures.append(error)

    scrapers = [threading.Thread(target=scrape) for _ in range(threads)]
    for scraper in scrapers:
        scraper.start()
    try:
        yield took
    finally:
        over.set()
        for scraper in scrapers:
            scraper.join()
    assert not failures


@pytest.mark.parametrize("workers", [1, 2])
def test_server_scraped_all_the_time(workers: int) -> None:
    with serving(workers=workers) as server, Ping(server, "-i0.01") as session:
        session.wait_replies(20)
        waited, replies = server.waited(), len(session.out)
        with scraping(server, 100) as took:
            session.wait_replies(replies + 200)
            server.wait(lambda: len(took) > 60, "it is scraped")
        # Without what it had to wait for a CPU on a machine that is busy.
        waited_ms = 1000 * (server.waited() - waited)
        session.popen.terminate()
        report = session.report()
        assert report["lost"] + report["late"] == 0
        assert report["rtt_ms"]["p95"] + report["server_ms"]["p95"] < 20 + waited_ms
        # And what an answer waited at the server at most.
        assert report["server_ms"]["p99"] < 50 + waited_ms


def test_probe_scraped_all_the_time() -> None:
    with serving() as server, probing(server) as probe:
        before = probe.wait_answers()
        began, waited = time.monotonic(), probe.waited()
        with scraping(probe, 100) as took:
            wanted = before.completed("ok") + 40
            probe.wait_metrics(lambda m: m.completed("ok") >= wanted, "pings go on")
            probe.wait(lambda: len(took) > 60, "it is scraped")
        seconds, waited = time.monotonic() - began, probe.waited() - waited
        metrics = probe.metrics()

        def since(name: str) -> float:
            return metrics.total(name) - before.total(name)

        skipped = since("pingpong_client_schedule_skipped_total")
        assert since("pingpong_client_probes_sent_total") + skipped == pytest.approx(
            seconds / FAST["interval"], rel=0.1, abs=2
        )
        # Slots pass only while it has to wait for a CPU on a machine that is busy.
        assert skipped <= waited / FAST["interval"]
        assert metrics.completed("lost") + metrics.completed("late") == 0
        assert metrics.above("pingpong_client_rtt_seconds", 0.1) == 0
