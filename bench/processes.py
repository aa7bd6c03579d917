"""Processes that are measured from outside, and pairs of a server and what pings it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class ProcessError(Exception):
    """A process failed; the text says which."""


def environment(root: Path = ROOT) -> dict[str, str]:
    """This process's environment, without `PINGPONG_…`, and with a checkout's code on the path."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PINGPONG_")}
    paths = [str(root / "services"), str(ROOT), environ.get("PYTHONPATH", "")]
    environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return environ


class Process:
    """A process with those that it starts. It ends when it is closed."""

    def __init__(self, name: str, command: list[str], root: Path = ROOT) -> None:
        self.name = name
        self._process = subprocess.Popen(
            command,
            env=environment(root),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._clocks: list[int] = []

    def wait(self) -> None:
        """Wait for a line that says that it is ready. Raises `ProcessError`."""
        assert self._process.stdout is not None
        line = ""
        for line in self._process.stdout:
            if line.strip() == "ready" or '"listening"' in line:
                break
        else:
            raise ProcessError(f"{self.name} has ended: {line.strip()}")
        self._clocks = [_clock(pid) for pid in self._family()]

    def drain(self) -> None:
        """Discard what it prints from now on."""
        assert self._process.stdout is not None
        threading.Thread(target=self._process.stdout.read, daemon=True).start()

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a line of JSON, and wait for one. Raises `ProcessError` if it ends instead."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            rest = line + self._process.stdout.read()
            raise ProcessError(f"{self.name} has ended: {rest.strip()}") from None
        return answer

    def pin(self, cpu: int) -> None:
        """Keep it on one CPU."""
        for pid in self._family():
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), {cpu})

    def cpu(self) -> int:
        """CPU time in nanoseconds, user and system, of all threads."""
        return sum(time.clock_gettime_ns(clock) for clock in self._clocks)

    def memory(self) -> int:
        """Resident bytes."""
        pages = 0
        for pid in self._family():
            pages += int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _family(self) -> list[int]:
        found = [self._process.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").iterdir():
                children = (task / "children").read_text(encoding="ascii")
                found += [int(child) for child in children.split()]
        return found


def _clock(pid: int) -> int:
    """The clock of a process's CPU time, as clock_getcpuclockid(3) makes it."""
    return (~pid << 3) | 2


class Pair:
    """A server, and a process that has sessions with it and pings on them when asked."""

    def __init__(self, name: str, server: Process, client: Process) -> None:
        self.name = name
        self.server = server
        self.client = client

    def do(self, what: str, **command: Any) -> dict[str, Any]:
        """Have the client do something. Returns its answer, with the CPU time of both."""
        server, client = self.server.cpu(), self.client.cpu()
        answer = self.client.ask(do=what, **command)
        answer["server"] = self.server.cpu() - server
        answer["client"] = self.client.cpu() - client
        return answer

    def pin(self, *, together: bool) -> None:
        """Pin both to one CPU, or each to its own if there are two."""
        cpus = sorted(os.sched_getaffinity(0))[-2:]
        self.server.pin(cpus[-1] if together else cpus[0])
        self.client.pin(cpus[-1])
