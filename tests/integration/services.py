"""Runs `pingpong serve`, `probe` and `ping` as processes on this machine, and reads what they say.

Each service has a loopback address of its own, and so all ports for itself: what is to be found
again at the same place can be, and nobody else's port is taken.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.integration.network import Report
from tests.support.nameserver import NameServer
from tests.support.processes import children
from tests.support.running import Metrics, Running

PORT, ADMIN_PORT = 24433, 28080

PINGPONG = (sys.executable, "-m", "pingpong")
_WITH_NAMES = """
import functools, pathlib, sys
from pingpong.__main__ import main
from pingpong.client.discovery import discovery
discovery.Resolver = functools.partial(
    discovery.Resolver, resolv_conf=pathlib.Path(sys.argv[1]), port=int(sys.argv[2])
)
sys.exit(main(sys.argv[3:]))
"""


def own_address() -> str:
    """A loopback address that nobody else uses."""
    one, two, three = (random.randrange(1, 255) for _ in range(3))
    return f"127.{one}.{two}.{three}"


def variables(settings: dict[str, Any]) -> dict[str, str]:
    """Settings (`interval=0.1`) as a service reads them from its environment."""
    return {f"PINGPONG_{name.upper()}": str(value) for name, value in settings.items()}


class Service(Running):
    """A process with an admin port, and settings in its environment."""

    def __init__(
        self, *words: str, admin: str = "", stderr: Path | None = None, **settings: Any
    ) -> None:
        self.admin = admin
        """The address of its admin port."""
        self.began = time.monotonic()
        super().__init__(*words, stderr=stderr, environ=variables(settings))

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.admin, ADMIN_PORT, timeout=timeout)

    def checks(self, path: str = "/readyz") -> dict[str, tuple[bool, str]]:
        """Each check of its health by name: whether it passes, and why."""
        status, text = self.ask(f"{path}?verbose")
        told = json.loads(text)
        assert told["ok"] == (status == 200)
        return {check["name"]: (check["ok"], check["reason"]) for check in told["checks"]}

    def wait_ready(self) -> None:
        self.wait(self.is_ready, "it is ready")

    def is_ready(self) -> bool:
        """Whether it says so; not while its admin port is not there yet."""
        try:
            return self.ask("/readyz")[0] == 200
        except OSError:
            return False

    # What it takes.

    @property
    def processes(self) -> list[int]:
        """Its process id, and those of its children."""
        return [self.popen.pid, *children(self.popen.pid)]

    def memory(self) -> int:
        """Bytes of memory that it and its children have (resident)."""
        return sum(_resident(pid) for pid in self.processes)

    def cpu(self) -> float:
        """Seconds of CPU that it has taken, without its children."""
        after_name = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")

    def waited(self) -> float:
        """Seconds that it and its children could have run in, had others not had the CPU."""
        stats = (Path(f"/proc/{pid}/schedstat").read_text() for pid in self.processes)
        return sum(int(stat.split()[1]) for stat in stats) / 1e9


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def at(event: dict[str, Any]) -> float:
    """When something was logged, as `time.time()` tells it."""
    return datetime.fromisoformat(event["timestamp"]).timestamp()


# pingpong serve.


class Server(Service):
    """A `pingpong serve`, at its address; `place` is one that another one has had."""

    def __init__(
        self,
        place: str | None = None,
        *,
        command: Sequence[str] = PINGPONG,
        stderr: Path | None = None,
        **settings: Any,
    ) -> None:
        self.address = place or own_address()
        self.url = f"https://{self.address}:{PORT}/ping"
        own = {
            "bind_host": self.address,
            "bind_port": PORT,
            "admin_host": self.address,
            "admin_port": ADMIN_PORT,
            "log_format": "json",
        }
        super().__init__(*command, "serve", admin=self.address, stderr=stderr, **(own | settings))

    @property
    def sha256(self) -> str:
        """Of the certificate that it had in the beginning."""
        return str(self.wait_event("listening")["sha256"])

    def reload(self) -> None:
        """Have it look at its files now, and not within a second."""
        nth = len(self.events("reloading")) + 1
        self.send(signal.SIGHUP)
        self.wait_event("reloading", nth)


@contextlib.contextmanager
def serving(place: str | None = None, **settings: Any) -> Iterator[Server]:
    """A server that listens."""
    with Server(place, **settings) as server:
        server.wait_event("listening")
        yield server


# pingpong probe.

FAST = {"interval": 0.05, "backoff_max": 1.0, "insecure": True}
"""Settings with which a test of a probe needs not be long."""


class Probe(Service):
    """A `pingpong probe` of a server, or of what `server` names."""

    def __init__(
        self, server: Server | str, *, command: Sequence[str] = PINGPONG, **settings: Any
    ) -> None:
        address = own_address()
        own: dict[str, Any] = FAST | {
            "targets": server if isinstance(server, str) else server.url,
            "admin_host": address,
            "admin_port": ADMIN_PORT,
            "log_format": "json",
        }
        if "cert_hash" in settings or "ca" in settings:
            del own["insecure"]
        super().__init__(*command, "probe", admin=address, **(own | settings))

    def wait_up(self, nth: int = 1) -> dict[str, Any]:
        """The event that says that the target is up, for the so manieth time."""
        return self.wait_event("target_up", nth)

    def wait_answers(self, more: int = 10) -> Metrics:
        """Wait for so many more answers in time."""
        wanted = self.metrics().completed("ok") + more
        return self.wait_metrics(lambda m: m.completed("ok") >= wanted, f"{more} more answers")


def with_names(names: NameServer, folder: Path) -> tuple[str, ...]:
    """A command like `PINGPONG`, of a `pingpong probe` that asks this name server.

    A system's name server has a port of its own, and who is not root can't listen there.
    """
    resolv_conf = names.resolv_conf(folder)
    return (sys.executable, "-c", _WITH_NAMES, str(resolv_conf), str(names.port))


@contextlib.contextmanager
def probing(server: Server | str, **settings: Any) -> Iterator[Probe]:
    """A probe whose first target is up."""
    with Probe(server, **settings) as probe:
        probe.wait_up()
        yield probe


# pingpong ping.


class Ping(Service):
    """A `pingpong ping --json` of a server."""

    def __init__(self, server: Server | str, *words: str) -> None:
        url = server if isinstance(server, str) else server.url
        trust = (
            () if any(word.startswith(("--ca", "--cert")) for word in words) else ("--insecure",)
        )
        super().__init__(*PINGPONG, "ping", url, "--json", *trust, *words)

    def wait_replies(self, count: int) -> None:
        """Wait until so many pings were answered."""
        self.wait(lambda: len(self.out) >= count, f"{count} replies")

    def report(self) -> Report:
        """What it says in the end."""
        self.finish()
        lines = [json.loads(line) for line in self.out]
        assert lines, repr(self)
        assert "sent" in lines[-1], repr(self)
        return Report(lines[:-1], lines[-1])


def ping(server: Server | str, *words: str) -> Report:
    """The report of a `pingpong ping --json`, after its end."""
    with Ping(server, *words) as running:
        return running.report()
