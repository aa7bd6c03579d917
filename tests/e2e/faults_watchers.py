"""Clients that watch one server, found in each of the ways that there are."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.e2e.cluster import Cluster
from tests.e2e.conftest import Install
from tests.e2e.faults_logs import Event, time_of
from tests.e2e.pods import Pod
from tests.e2e.release import Release, Values
from tests.e2e.scraping import Samples
from tests.e2e.waiting import eventually

INTERVAL = 0.05
"""Seconds between two pings of a watcher to a target."""

WAYS = ("name", "address", "pod")
"""By the server's name, one target; by its addresses in DNS; by its pods in the API: one each."""


@dataclass(frozen=True, slots=True)
class Watcher:
    """A client, and the way in which it finds the server."""

    way: str
    release: Release
    pod: Pod

    def __str__(self) -> str:
        return f"by {self.way}"

    def events(self, *names: str, since: float = 0.0) -> list[Event]:
        """What it has logged, at or after `since`: events of these names, or all."""
        return [
            event
            for event in self.release.events(self.pod)
            if (not names or event["event"] in names) and time_of(event) >= since
        ]

    def scrape(self) -> Samples:
        """Its metrics."""
        return self.release.metrics(self.pod)

    def session_address(self) -> str:
        """Where the last session leads that it has told of."""
        last = self.events("target_up", "session_moved")[-1]
        return str(last["address"])

    def reached_at(self, address: str, since: float) -> float:
        """When it first had a session there after `since`. Raises AssertionError before that."""
        for event in self.events("target_up", "session_moved", since=since):
            if event["address"] == address:
                return time_of(event)
        raise AssertionError(f"not reached by {self.way}: {self.events(since=since)}")

    def wait_reached(self, address: str, since: float, timeout: float = 20) -> float:
        """The same, waited for."""
        what = f"{address} is reached by {self.way}"
        return eventually(lambda: self.reached_at(address, since), timeout=timeout, what=what)


def control_plane(cluster: Cluster) -> str:
    """A node on which no server stands."""
    return next(node for node in cluster.nodes if node not in cluster.workers)


def install_watchers(
    cluster: Cluster,
    install: Install,
    ways: tuple[str, ...] = WAYS,
    *,
    server: Values | None = None,
) -> tuple[Release, list[Watcher]]:
    """A server, and a watcher for each of these ways, apart from it on the control plane.

    The server's release is that of the first watcher; each has all its targets up.
    """
    releases: list[Release] = []
    for way in ways:
        client: dict[str, object] = {
            "settings": {"all": way != "name", "interval": INTERVAL},
            "nodeSelector": {"kubernetes.io/hostname": control_plane(cluster)},
            "tolerations": [{"operator": "Exists"}],
        }
        if not releases:
            first = install({"server": server or {}, "client": client}, wait=False)
            releases.append(first)
            continue
        host = "pingpong-server"
        client["targets"] = [
            f"endpointslice://{releases[0].namespace}/{host}"
            if way == "pod"
            else f"https://{host}.{releases[0].namespace}.svc:4433/ping"
        ]
        client["tls"] = {"insecure": True}
        values = {"server": {"enabled": False}, "client": client}
        releases.append(install(values, name=f"by-{way}", wait=False))
    for release in releases:
        release.wait()
    servers = len(releases[0].pods("server"))
    watchers = [
        Watcher(way, release, release.pod("client"))
        for way, release in zip(ways, releases, strict=True)
    ]
    for watcher in watchers:
        watcher.release.wait_up(1 if watcher.way == "name" else servers, watcher.pod)
    return releases[0], watchers


def now() -> float:
    """Seconds since 1970: what logs are compared with."""
    return time.time()
