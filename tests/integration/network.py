"""Runs things at the two ends of a link, and reads what they say."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Self

from prometheus_client.parser import text_string_to_metric_families

from tests.support.link.link import CLIENT, SERVER, SERVER6, Link, wait_until
from tests.support.link.namespaces import Namespace
from tests.support.processes import environment

ADMIN_PORT, PORT = 8080, 4433
"""Each namespace has all ports for itself."""
PATIENCE = 90.0
"""Seconds after which a process has hung."""


class Running:
    """A process in a namespace; what it writes is read as it comes. Killed at the latest at exit."""

    def __init__(
        self, namespace: Namespace, *words: str, admin: str = "127.0.0.1", **environ: str
    ) -> None:
        self.namespace = namespace
        self.admin = admin
        """The address of its admin port, where it has one."""
        self.popen = subprocess.Popen(
            namespace.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment() | environ,
            start_new_session=True,
        )
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [
            threading.Thread(target=_read, args=each)
            for each in ((self.popen.stdout, self.out), (self.popen.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    # What it says.

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """What it has logged so far, or what of it has this name."""
        found: list[dict[str, Any]] = []
        for line in [*self.out, *self.err]:
            if line.startswith("{"):
                event = json.loads(line)
                if "event" in event and name in (None, event["event"]):
                    found.append(event)
        return found

    def wait_event(self, name: str) -> dict[str, Any]:
        """The first event of this name."""
        self._wait_for(lambda: self.events(name), f"{name!r} is logged")
        return self.events(name)[0]

    def wait_line(self, text: str) -> str:
        """The first line of stdout that contains `text`."""

        def found() -> list[str]:
            return [line for line in list(self.out) if text in line]

        self._wait_for(found, f"{text!r} is said")
        return found()[0]

    def metrics(self) -> Metrics:
        """What it tells Prometheus now."""
        return Metrics(self.get("/metrics"))

    def get(self, path: str, status: int = 200) -> str:
        """What its admin port answers; AssertionError where the status is another."""
        client = http.client.HTTPConnection(self.admin, ADMIN_PORT, timeout=PATIENCE)
        client.sock = self.namespace.tcp_connection(self.admin, ADMIN_PORT, PATIENCE)
        with contextlib.closing(client):
            client.request("GET", path)
            response = client.getresponse()
            text = response.read().decode()
        assert response.status == status, text
        return text

    def wait_metrics(self, condition: Any, what: str, timeout: float = 30.0) -> Metrics:
        """Scrape until `condition` of the metrics holds; those of that time."""
        found: list[Metrics] = []

        def holds() -> bool:
            assert self.popen.poll() is None, self
            with contextlib.suppress(ConnectionRefusedError):
                found[:] = [self.metrics()]
            return bool(found and condition(found[0]))

        wait_until(holds, what, timeout)
        return found[0]

    # Its end.

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def finish(self, timeout: float = PATIENCE) -> int:
        """Wait for its end: the exit status."""
        try:
            status = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"does not end: {self}") from None
        for reader in self._readers:
            reader.join()
        return status

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.finish()
        for stream in (self.popen.stdout, self.popen.stderr):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __repr__(self) -> str:
        tail = "\n".join([*self.out[-20:], *self.err[-40:]])
        return f"{self.popen.args!r} ({self.popen.poll()}):\n{tail}"

    def _wait_for(self, condition: Any, what: str) -> None:
        def holds() -> bool:
            if condition():
                return True
            assert self.popen.poll() is None, f"has ended before {what}: {self}"
            return False

        try:
            wait_until(holds, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self}") from None


def _read(stream: IO[str], lines: list[str]) -> None:
    for line in stream:
        lines.append(line.rstrip("\n"))


class Metrics:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self._samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels; AssertionError where there is none."""
        found = [
            sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert found, f"no {name} with {labels}"
        return sum(found)

    def mean(self, name: str, **labels: str) -> float:
        """The mean of what a histogram has observed."""
        return self.total(f"{name}_sum", **labels) / self.total(f"{name}_count", **labels)


# pingpong.


@dataclass(frozen=True)
class Server:
    """A `pingpong serve` at the server's end."""

    running: Running
    sha256: str

    def url(self, address: str = SERVER) -> str:
        """What to ping."""
        host = f"[{address}]" if ":" in address else address
        return f"https://{host}:{PORT}/ping"


@contextlib.contextmanager
def serving(link: Link, *words: str) -> Iterator[Server]:
    """A server at the server's end."""
    with pingpong(link.server, "serve", "--log-format=json", *words) as running:
        yield Server(running, running.wait_event("listening")["sha256"])


@contextlib.contextmanager
def pinging(link: Link, server: Server, *words: str, address: str = SERVER) -> Iterator[Running]:
    """A `pingpong ping --json` at the client's end."""
    trust = f"--cert-hash={server.sha256}"
    command = ("ping", server.url(address), trust, "--json", *words)
    with pingpong(link.client, *command) as running:
        yield running


def ping(link: Link, server: Server, *words: str, address: str = SERVER) -> Report:
    """The report of a `pingpong ping --json`, after its end."""
    with pinging(link, server, *words, address=address) as running:
        running.finish()
        return Report.of(running)


@contextlib.contextmanager
def probing(
    link: Link, server: Server, address: str = SERVER, **settings: object
) -> Iterator[Running]:
    """A `pingpong probe` at the client's end, with these settings (`interval=0.1`)."""
    own = {"server": server.url(address), "cert_hash": server.sha256} | settings
    environ = {f"PINGPONG_{name.upper()}": str(value) for name, value in own.items()}
    with pingpong(link.client, "probe", "--log-format=json", **environ) as running:
        yield running


def pingpong(namespace: Namespace, *words: str, **more: str) -> Running:
    """A `pingpong` with these words; `more` as of `Running`."""
    return Running(namespace, sys.executable, "-m", "pingpong", *words, **more)


@dataclass(frozen=True)
class Report:
    """What `pingpong ping --json` said."""

    replies: list[dict[str, Any]]
    summary: dict[str, Any]

    @classmethod
    def of(cls, running: Running) -> Report:
        """Of one that has ended. AssertionError where it has no summary."""
        lines = [json.loads(line) for line in running.out]
        assert lines, running
        assert "sent" in lines[-1], running
        return cls(lines[:-1], lines[-1])

    def __getitem__(self, name: str) -> Any:
        return self.summary[name]


# ping(8).

_ICMP_TIME = re.compile(r"icmp_seq=\d+ ttl=\d+ time=([\d.]+) ms")
_ICMP_MEAN = re.compile(r"rtt min/avg/max/mdev = [\d.]+/([\d.]+)/")


@dataclass(frozen=True)
class IcmpReport:
    """What ping(8) said. Times in seconds."""

    rtts: list[float]
    """Of each answer, in the order of their arrival."""
    mean: float


@contextlib.contextmanager
def icmp_pinging(link: Link, *words: str, address: str = SERVER) -> Iterator[Running]:
    """A ping(8) at the client's end."""
    with Running(link.client, "ping", "-n", *words, address) as running:
        yield running


def icmp_report(running: Running) -> IcmpReport:
    """Of a ping(8) that has ended, or ends by itself."""
    running.finish()
    rtts = [float(found[1]) / 1000 for line in running.out if (found := _ICMP_TIME.search(line))]
    mean = _ICMP_MEAN.search(running.out[-1] if running.out else "")
    assert mean, running
    return IcmpReport(rtts, float(mean[1]) / 1000)


__all__ = [
    "CLIENT",
    "SERVER",
    "SERVER6",
    "IcmpReport",
    "Metrics",
    "Report",
    "Running",
    "Server",
    "icmp_pinging",
    "icmp_report",
    "ping",
    "pinging",
    "probing",
    "serving",
]
