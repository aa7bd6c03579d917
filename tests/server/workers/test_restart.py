"""A server that is killed: nothing of it is left, and the one that takes its place is heard of."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pingpong.webtransport.certificates import Certificate
from pingpong.webtransport.quic.engine import RESET_REASON
from tests.server.workers.groups import HOST, Client, certificate, until
from tests.support.processes import Process, children, environment, is_alive

pytestmark = pytest.mark.process


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The words with which a server shows the tests' certificate."""
    return [f"--tls-cert-file={write(tmp_path, certificate())}", f"--tls-key-file={tmp_path}/pem"]


def write(folder: Path, shown: Certificate) -> Path:
    path = folder / "pem"
    path.write_bytes(shown.private_pem())
    return path


@contextlib.contextmanager
def serving(*words: str) -> Iterator[tuple[Process, dict[str, Any]]]:
    bound = (f"--bind-host={HOST}", f"--admin-host={HOST}", "--admin-port=0")
    with Process("serve", *bound, "--log-format=json", *words) as server:
        yield server, server.read_event("listening")


def free_port() -> int:
    """One that nobody is given who asks for any, in between."""
    while True:
        port = random.randrange(20_000, 32_000)
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
            contextlib.suppress(OSError),
        ):
            sock.bind((HOST, port))
            return port


async def test_workers_of_a_server_that_is_killed_end_with_it(files: list[str]) -> None:
    with serving("--bind-port=0", "--workers=2", *files) as (server, event):
        workers = children(server.popen.pid)
        assert len(workers) == 2
        client = await Client.join(event["port"])
        server.send(signal.SIGKILL)
        await until(lambda: not any(map(is_alive, workers)))
        client.connection.abort()


@pytest.mark.parametrize("workers", [1, 2])
async def test_clients_of_a_server_that_is_started_again_hear_of_it_at_once(
    files: list[str], workers: int
) -> None:
    words = (f"--bind-port={free_port()}", f"--workers={workers}", *files)
    with serving(*words) as (server, event):
        # It is told by no ICMP message, and would find out in a minute.
        client = await Client.join(event["port"])
        client.connection.socket_error = lambda error: None
        assert await client.ping()
        server.send(signal.SIGKILL)
        server.popen.wait()
    with serving(*words):
        assert not client.ended.done()
        client.send(1)
        closed = await client.ended
        assert closed.by_peer
        assert client.connection.closed is not None
        assert client.connection.closed.reason == RESET_REASON
        again = await Client.join(event["port"])
        assert await again.ping()
        await again.leave()
        client.connection.abort()


async def test_second_signal_ends_the_workers_too(files: list[str]) -> None:
    with serving("--bind-port=0", "--workers=2", "--drain-timeout=60", *files) as (server, event):
        workers = children(server.popen.pid)
        client = await Client.join(event["port"])
        server.send(signal.SIGTERM)
        await client.draining.wait()
        assert server.popen.poll() is None
        server.send(signal.SIGTERM)
        assert server.finish()[0] == 128 + signal.SIGTERM
        await until(lambda: not any(map(is_alive, workers)))
        client.connection.abort()


async def test_server_without_sessions_stops_at_once(files: list[str]) -> None:
    with serving("--bind-port=0", "--workers=2", *files) as (server, _):
        workers = children(server.popen.pid)
        server.send(signal.SIGTERM)
        status, _, log = server.finish()
        assert status == 0
        assert "error" not in log
        assert not any(map(is_alive, workers))


BUSY = """
import os, socket, threading
from pingpong.server.workers.child import end_with_server
control = socket.socket(fileno=0)
threading.Thread(target=end_with_server, args=(control.fileno(),), daemon=True).start()
print("busy", flush=True)
while True:
    pass
"""


def test_worker_whose_loop_is_stuck_ends_with_its_server_all_the_same() -> None:
    ours, its = socket.socketpair()
    with (
        its,
        subprocess.Popen(
            [sys.executable, "-c", BUSY],
            stdin=its.fileno(),
            stdout=subprocess.PIPE,
            env=environment(),
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == b"busy\n"
        its.close()
        ours.send(b"not the end yet")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
        ours.close()
        assert process.wait(20) == 1
