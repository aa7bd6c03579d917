"""Runs things at the two ends of a link, and reads what they say."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.support import running
from tests.support.network.link import CLIENT, SERVER, SERVER6, Link
from tests.support.network.namespaces import Namespace

ADMIN_PORT, PORT = 8080, 4433
"""Each namespace has all ports for itself."""


class Running(running.Running):
    """A process in a namespace."""

    def __init__(
        self, namespace: Namespace, *words: str, admin: str = "127.0.0.1", **environ: str
    ) -> None:
        self.namespace = namespace
        self.admin = admin
        """The address of its admin port, where it has one."""
        super().__init__(*namespace.command(*words), environ=environ)

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        client = http.client.HTTPConnection(self.admin, ADMIN_PORT, timeout=timeout)
        client.sock = self.namespace.tcp_connection(self.admin, ADMIN_PORT, timeout)
        return client


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
    own = {"targets": server.url(address), "cert_hash": server.sha256} | settings
    environ = {f"PINGPONG_{name.upper()}": str(value) for name, value in own.items()}
    with pingpong(
        link.client, "probe", "--log-format=json", f"--admin-port={ADMIN_PORT}", **environ
    ) as running:
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
