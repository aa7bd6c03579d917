"""What a soak runs: real servers and probes, bad ways between them, a name server, an API server."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pingpong.webtransport.certificates import Certificate
from tests.integration.services import Probe, Server, Service, own_address, with_names
from tests.soak import readings
from tests.soak.impaired import ImpairedRelay, impaired
from tests.support.certificates import Authority, Pair
from tests.support.kubernetes_api import ApiServer, endpoint, endpoint_slice, port
from tests.support.nameserver import NameServer
from tests.support.processes import SERVICES

MODES = ("datagram", "stream", "streams", "uni")
CHANGING_MODES = ("datagram", "uni")
INTERVAL = 0.2
"""Seconds between two pings of a probe to a target in a mode."""
IDLE_TIMEOUT = 5
"""Of servers: a client that has vanished is forgotten by then."""
POOL = 12
"""Addresses that changing targets are taken from."""
AT_REST = 3
"""How many of them are targets while nothing is changed: by DNS, and by EndpointSlices."""
_NAME = "pingpong.test"


class World:
    """All that runs. Closed with the `stack` that it is made with."""

    steady: Server
    """A server that wants tokens, is flooded, stopped and continued, but never ended."""
    workers: Server
    """One with two workers, at all addresses."""
    restarted: Server
    """One that is ended at times."""
    fixed: Probe
    """A probe with four targets, two of them by bad ways."""
    changing: Probe
    """A probe whose targets come and go."""

    def __init__(self, folder: Path, seed: str, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self._inside = (
            *("env", f"PYTHONPATH={readings.INSIDE}{os.pathsep}{SERVICES}"),
            f"{readings.FOLDER}={folder}",
        )
        self.authority = Authority(folder)
        self.pair = Pair(folder / "tls")
        self.token_files = (folder / "server.tokens", folder / "client.token")
        """The server's, which may have several, and the clients'."""
        self._token = _token()
        for file in self.token_files:
            file.write_text(self._token)
        self.pool = [own_address() for _ in range(POOL)]
        self.names = stack.enter_context(NameServer())
        self.api = stack.enter_context(ApiServer())
        self._start_servers(seed)
        self._start_probes()

    @property
    def links(self) -> tuple[ImpairedRelay, ImpairedRelay]:
        """The bad ways: to the steady server, and to the one that is restarted."""
        return self._links

    @property
    def watched(self) -> dict[str, Service]:
        """Those whose figures are to be flat."""
        return {
            "serve": self.steady,
            "serve ×2": self.workers,
            "probe fixed": self.fixed,
            "probe changing": self.changing,
        }

    def processes(self) -> dict[str, int]:
        """The ids of the processes of all that are watched."""
        return {
            name: pid
            for service_name, service in self.watched.items()
            for name, pid in readings.processes(service_name, service)
        }

    def wait_rest(self, timeout: float) -> None:
        """Wait until all targets are up, and no other client is there. Raises AssertionError."""
        for probe, targets in ((self.fixed, 4), (self.changing, 2 * AT_REST)):
            probe.wait_metrics(lambda m: readings.is_up(m, targets), "its targets are up", timeout)  # noqa: B023
        for server, sessions in ((self.steady, 2), (self.workers, 1 + 2 * AT_REST)):
            server.wait_metrics(
                lambda m: readings.is_left(m, sessions),  # noqa: B023
                f"it has {sessions} sessions, and nothing else",
                timeout,
            )

    # What is changed.

    def issue(self) -> Certificate:
        """A certificate for all servers, by whatever address they are reached."""
        return self.authority.issue(*self._hosts)

    def start_restarted(self) -> None:
        """Start the server that is ended at times."""
        self.restarted = Server(self._restarted_place, **self._served())
        self.restarted.wait_event("listening")

    def end_restarted(self, *, in_order: bool) -> None:
        """End it: in order, or at once."""
        self.restarted.send(signal.SIGTERM if in_order else signal.SIGKILL)
        self.restarted.close()

    def name_addresses(self, addresses: list[str]) -> None:
        """The name leads to these from now on."""
        self.names.set(_NAME, "A", *addresses, ttl=1)

    def slice_addresses(self, addresses: list[str]) -> None:
        """The Service has these endpoints from now on."""
        endpoints = [endpoint(address, pod=f"pod-{address}") for address in addresses]
        self.api.put(endpoint_slice("svc-1", *endpoints, ports=[port(self._port)]))

    def renew_token(self, pause: Callable[[float], object]) -> None:
        """Give clients another token, while the server takes both; then the old one is no more."""
        servers, clients = self.token_files
        old, self._token = self._token, _token()
        servers.write_text(f"{old}\n{self._token}")
        self.steady.send(signal.SIGHUP)
        pause(0.5)
        clients.write_text(self._token)
        pause(0.5)
        servers.write_text(self._token)

    # The start.

    def _start_servers(self, seed: str) -> None:
        steady, workers, self._restarted_place = (own_address() for _ in range(3))
        self._links = (
            self._stack.enter_context(impaired(steady, f"{seed}/steady")),
            self._stack.enter_context(impaired(self._restarted_place, f"{seed}/restarted")),
        )
        ways = [host_of(link.url) for link in self._links]
        self._hosts = [steady, workers, self._restarted_place, *ways]
        self.pair.write_in_place(self.issue())
        self.steady = self._stack.enter_context(
            Server(steady, auth="token", token_file=self.token_files[0], **self._served())
        )
        everywhere: dict[str, Any] = {"bind_host": "0.0.0.0", "bind_port": 0, "workers": 2}
        self.workers = self._stack.enter_context(Server(workers, **self._served(), **everywhere))
        self._stack.callback(lambda: self.restarted.close())
        self.start_restarted()
        self._port = int(self.workers.wait_event("listening")["port"])
        self.workers.url = f"https://{self.workers.address}:{self._port}/ping"

    def _served(self) -> dict[str, Any]:
        return {
            "command": (*self._inside, sys.executable, "-m", "pingpong"),
            "idle_timeout": IDLE_TIMEOUT,
            **self.pair.settings,
        }

    def _start_probes(self) -> None:
        self.name_addresses(self.pool[:AT_REST])
        self.slice_addresses(self.pool[AT_REST : 2 * AT_REST])
        kubeconfig = f"KUBECONFIG={self.api.kubeconfig(self.folder)}"
        command = (*self._inside, kubeconfig, *with_names(self.names, self.folder))
        common: dict[str, Any] = {
            "command": command,
            "interval": INTERVAL,
            "timeout": 0.5,
            "backoff_max": 1,
            "token_file": self.token_files[1],
        }
        urls = [self.steady.url, self.workers.url, *(link.url for link in self._links)]
        self.fixed = self._stack.enter_context(
            Probe(
                ",".join(urls),
                mode=",".join(MODES),
                ca=self.authority.file,
                **common,
            )
        )
        self.changing = self._stack.enter_context(
            Probe(
                f"{_NAME}:{self._port},endpointslice://ns/svc",
                mode=",".join(CHANGING_MODES),
                all=True,
                discovery_interval=1,
                **common,
            )
        )


def host_of(url: str) -> str:
    """The address in the URL of a server, or of a way to it."""
    return url.removeprefix("https://").partition(":")[0]


def _token() -> str:
    return f"{random.getrandbits(160):040x}"
