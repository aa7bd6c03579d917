"""The processes of a benchmark, and pairs of them that talk to each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class WorkerError(Exception):
    """A process failed; its output is on standard error."""


class Process:
    """A `worker` process. It ends when it is closed, or when this process ends.

    `root` is the checkout whose `bench` and `services` it runs.
    """

    def __init__(self, role: str, kind: str, *arguments: str, root: Path = ROOT) -> None:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("PINGPONG_")}
        paths = [str(root), str(root / "services"), environ.get("PYTHONPATH", "")]
        environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        # -P: do not add the current folder to the path.
        command = [sys.executable, "-P", "-m", "bench.worker", role, kind, *arguments]
        self._name = f"{kind} {role}"
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, text=True
        )

    def read(self) -> dict[str, Any]:
        """Read a line of the process. Raises `WorkerError` if it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"the {self._name} has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def do(self, name: str, **command: Any) -> dict[str, Any]:
        """Send a command to the process, and wait for its answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": name, **command}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(f"the {self._name} has ended") from None
        return self.read()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        self._process.stdout.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True, slots=True)
class Cost:
    """A cost in nanoseconds: CPU time of the server and of the client, and wall time."""

    server: float
    client: float
    wall: float
    lost: int = 0

    def each(self, count: int) -> Cost:
        """The cost of each of `count` items."""
        return Cost(self.server / count, self.client / count, self.wall / count, self.lost)


class Pair:
    """A server process, of the checkout `root`, and a client process that talk to each other.

    `engine` is the server's, if it is ours or bare.
    """

    def __init__(
        self,
        server: str,
        client: str,
        certificate: Path,
        *,
        max_sessions: int = 16,
        engine: str = "auto",
        root: Path = ROOT,
    ) -> None:
        self._cpus = sorted(os.sched_getaffinity(0))[-2:]
        self.server = Process(
            *("server", server, "--certificate", str(certificate)),
            *("--max-sessions", str(max_sessions)),
            # Another checkout may not know it.
            *(() if engine == "auto" else ("--engine", engine)),
            root=root,
        )
        self.client = Process("client", client)

    def start(self) -> None:
        """Wait until both are ready. A separate step, so that many can start in parallel."""
        self.client.read()
        self.client.do("target", port=self.server.read()["port"])

    def __enter__(self) -> Pair:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End both."""
        self.client.close()
        self.server.close()

    def pin(self, *, together: bool) -> None:
        """Pin both to one CPU, or each to its own if there are two."""
        self.server.do("pin", cpu=self._cpus[-1] if together else self._cpus[0])
        self.client.do("pin", cpu=self._cpus[-1])

    def measure(self, name: str, **command: Any) -> Cost:
        """Send a command to the client, and measure the cost of both processes."""
        before = self.server.do("cpu")["cpu"]
        client = self.client.do(name, **command)
        server = self.server.do("cpu")["cpu"] - before
        return Cost(server, client["cpu"], client["wall"], client["lost"])

    def memory(self) -> tuple[int, int]:
        """The memory of the server and of the client, in bytes."""
        return self.server.do("memory")["memory"], self.client.do("memory")["memory"]
