"""A cluster without DNS: pings go on, sessions come back, and what is new is found afterwards."""

from __future__ import annotations

from functools import partial

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.conftest import Install, Report
from tests.e2e.faults_endpoints import ReadyEndpoints
from tests.e2e.faults_injection import hold, kill_container, without_dns
from tests.e2e.faults_slots import Tally
from tests.e2e.faults_watchers import install_watchers, now
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

OUTAGE = 30.0
"""Seconds without DNS."""
RECOVERY = 3.0
"""Seconds from an endpoint's being available again to the first answer."""
FOLLOWED = 15.0
"""Seconds in which a client follows what DNS says."""


def test_pings_go_on_without_dns_and_new_pods_are_found_when_it_is_back(
    cluster: Cluster, namespace: str, install: Install, report: Report
) -> None:
    release, [by_name, by_address] = install_watchers(cluster, install, ("name", "address"))
    [old] = release.pods("server")
    taken_at = now()
    with without_dns(cluster):
        began = now()
        tally = Tally.take(by_name)
        release.upgrade({"server": {"replicas": 2}})
        [new] = [pod for pod in release.pods("server") if pod.uid != old.uid]
        hold(began + OUTAGE - now())
        for watcher in (by_name, by_address):
            assert watcher.events("discovery_failed", since=taken_at), "it asked in vain"
            assert not watcher.events(
                "target_down", "target_added", "target_removed", since=taken_at
            )
            account = watcher.release.settled(watcher.pod)
            assert (account.lost, account.malformed) == (0, 0)
        after = Tally.take(by_name)
        after.assert_complete_since(tally)
        assert after.account.send_error == tally.account.send_error
        report("without DNS, by name", str(after.account - tally.account))

        # What has to connect anew goes by the last good answer.
        endpoints = ReadyEndpoints(cluster, namespace, "pingpong-server")
        pod = next(p for p in (old, new) if p.address == by_name.session_address())
        killed_at = now()
        kill_container(cluster, pod)
        ready_at = eventually(
            lambda: endpoints.ready_at(pod.address, killed_at),
            timeout=30,
            what="the killed container is ready again",
        )
        endpoints.stop()
        reached_at = by_name.wait_reached(pod.address, killed_at)
        report("container killed, until ready", ready_at - killed_at)
        report("ready until reached without DNS, by name", reached_at - ready_at)
        assert reached_at - ready_at < RECOVERY
        asked_at = now()
    back_at = now()
    report("until CoreDNS was ready again", back_at - asked_at)
    reached_at = by_address.wait_reached(new.address, asked_at, timeout=FOLLOWED)
    report("CoreDNS back until the new pod was reached, by address", reached_at - back_at)
    for watcher in (by_name, by_address):
        eventually(
            partial(watcher.events, "discovery_recovered", since=asked_at),
            timeout=FOLLOWED,
            what="names are found again",
        )
