"""Runs `pingpong` as a process of its own, for what only a process can show: signals and ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

SERVICES = Path(__file__).parents[2] / "services"
PATIENCE = 30.0
"""Seconds after which a process has hung, and is killed."""
PATIENCE_WITH_SERVER = 300.0
"""The same of a server, which may be there for all tests of a file."""


def environment() -> dict[str, str]:
    """This process's, without what is set for pingpong or its tests, but for a test's engine."""
    own = ("PINGPONG_ENGINE",)
    environ = {k: v for k, v in os.environ.items() if k in own or not k.startswith("PINGPONG_")}
    return {**environ, "PYTHONPATH": str(SERVICES)}


class Process:
    """`pingpong` with these words; killed at the latest when the test is over."""

    def __init__(
        self, *words: str, stdout: int | IO[str] = subprocess.PIPE, patience: float = PATIENCE
    ) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "pingpong", *words],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            start_new_session=True,
        )
        self._patience = threading.Timer(patience, self.popen.kill)
        self._patience.start()

    def read_until(self, text: str) -> list[str]:
        """Lines of stdout, without their ends, up to the one that contains `text`."""
        assert self.popen.stdout is not None
        lines = []
        for line in self.popen.stdout:
            lines.append(line.rstrip("\n"))
            if text in line:
                return lines
        raise AssertionError(f"{text!r} is not in {lines}, {self.finish()}")

    def read_event(self, name: str) -> dict[str, Any]:
        """The next event of this name that is logged to stderr."""
        assert self.popen.stderr is not None
        seen = []
        for line in self.popen.stderr:
            seen.append(line)
            event: dict[str, Any] = json.loads(line)
            if event["event"] == name:
                return event
        raise AssertionError(f"no {name!r} in {seen}")

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def finish(self) -> tuple[int, str, str]:
        """Wait for the end: exit status, and what else came on stdout and stderr."""
        out, err = self.popen.communicate(timeout=PATIENCE)
        return self.popen.returncode, out, err

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *raised: object) -> None:
        self._patience.cancel()
        self._patience.join()
        if self.popen.poll() is None:
            self.popen.kill()
        for stream in (self.popen.stdout, self.popen.stderr):
            if stream is not None:
                stream.close()
        self.popen.wait()


@contextlib.contextmanager
def serving(*words: str) -> Iterator[tuple[Process, list[str]]]:
    """A server on a free port, and the words with which to ping it."""
    bound = ("--bind-host=127.0.0.1", "--bind-port=0", "--admin-host=127.0.0.1", "--admin-port=0")
    command = ("serve", *bound, "--log-format=json", *words)
    with Process(*command, patience=PATIENCE_WITH_SERVER) as server:
        event = server.read_event("listening")
        url = f"https://127.0.0.1:{event['port']}/ping"
        yield server, ["ping", url, f"--cert-hash={event['sha256']}"]


def run(*words: str) -> tuple[int, str, str]:
    """Run to the end: exit status, stdout, stderr."""
    with Process(*words) as process:
        return process.finish()


# What there is on this machine


def is_alive(pid: int) -> bool:
    """Whether there is such a process; one that nobody has asked for its status is dead."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def children(pid: int) -> list[int]:
    """The processes that a process has started, of all its threads."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(child) for task in tasks for child in task.read_text().split()]
    return []


def sockets() -> int:
    """Sockets that this process has open."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count


def type_check(folder: Path) -> subprocess.CompletedProcess[str]:
    """What `mypy --strict` says of a folder's programs, which see pingpong as a user's do."""
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", "cache", "."],
        cwd=folder,
        env=environment() | {"MYPYPATH": ""},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
