"""Pods and nodes that go without a word, or with one: how soon clients reach the server again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.conftest import Install, Report
from tests.e2e.faults_endpoints import ReadyEndpoints
from tests.e2e.faults_injection import evict, kill_container, network_cut, uncordoned
from tests.e2e.faults_logs import LogTail, time_of
from tests.e2e.faults_slots import Tally
from tests.e2e.faults_watchers import Watcher, install_watchers, now
from tests.e2e.pods import Pod
from tests.e2e.release import Release
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

RECOVERY = 3.0
"""Seconds from an endpoint's being available again to the first answer."""
FOLLOWED = 15.0
"""Seconds in which a client by address follows what DNS says, though nothing makes it look."""
IDLE = 15.0
"""Seconds of silence after which a session is given up: what heals later needs a new one."""


def test_a_pod_killed_and_deleted_with_grace_0_is_replaced_and_reached_soon(
    cluster: Cluster, namespace: str, install: Install, report: Report
) -> None:
    release, watchers = install_watchers(cluster, install)
    by_name = watchers[0]
    endpoints = ReadyEndpoints(cluster, namespace, "pingpong-server")
    old = release.pod("server")
    tally = Tally.take(by_name)
    killed_at = now()
    cluster.core.delete_namespaced_pod(old.name, namespace, grace_period_seconds=0)
    # Left to itself, kubelet gives it another second or two, in which it drains.
    kill_container(cluster, old)
    new = wait_replaced(release, [old])
    ready_at = wait_ready(endpoints, new, killed_at)
    report("deletion until another pod is ready", ready_at - killed_at)
    assert_reached(watchers, new, killed_at, ready_at, report)
    for watcher in watchers:
        for up in watcher.events("target_up", since=killed_at):
            if "outage_seconds" in up:
                report(f"without an answer, {watcher}", float(up["outage_seconds"]))
    after = Tally.take(by_name)
    after.assert_complete_since(tally)
    report("by name", str(after.account - tally.account))


def test_a_drained_node_loses_no_ping_and_the_disruption_budget_holds(
    cluster: Cluster, namespace: str, install: Install, report: Report
) -> None:
    release, watchers = install_watchers(cluster, install, server={"replicas": 2})
    by_name, by_address, by_pod = watchers
    endpoints = ReadyEndpoints(cluster, namespace, "pingpong-server")
    leaving, staying = pods_of_session_and_others(release, by_name)
    assert leaving.node != staying.node, "the chart spreads pods over nodes"
    tail = LogTail(cluster, namespace, leaving)
    tally = Tally.take(by_name)
    command = ("drain", leaving.node, "--ignore-daemonsets", "--delete-emptydir-data")
    drained_at = now()
    with (
        uncordoned(cluster, leaving.node),
        by_address.release.following(by_address.pod) as following,
        ThreadPoolExecutor() as executor,
    ):
        drain = executor.submit(cluster.kubectl, *command, "--timeout=60s", timeout=70)
        eventually(
            lambda: any(each.is_leaving for each in release.all_pods("server")),
            timeout=30,
            what="a pod is evicted",
            interval=0.05,
        )
        assert not evict(cluster, staying), "one pod at a time may be missing"
        drain.result()
        log = tail.wait_end(60)
    report("drain of the node, until its pod has ended", now() - drained_at)
    new = wait_replaced(release, [leaving, staying])
    ready_at = wait_ready(endpoints, new, drained_at)
    report("drain until another pod is ready", ready_at - drained_at)

    [moved] = by_name.events("session_moved", since=drained_at)
    [stopping] = [time_of(event) for event in log if event["event"] == "stopping"]
    [stopped] = [time_of(event) for event in log if event["event"] == "stopped"]
    assert moved["before"] == leaving.address
    assert time_of(moved) < stopped
    report("asked to leave until moved, by name", time_of(moved) - stopping)
    assert time_of(moved) - stopping < RECOVERY
    assert_reached([by_pod], new, drained_at, ready_at, report)
    assert_reached([by_address], new, drained_at, ready_at, report, within=FOLLOWED)

    for watcher in watchers:
        assert not watcher.events("target_down", since=drained_at)
    for target in following.targets:
        following.assert_none_lost(target)
    account = by_name.release.settled(by_name.pod) - tally.account
    assert (account.lost, account.send_error) == (0, 0)
    Tally.take(by_name).assert_complete_since(tally)
    report("by name", str(account))


def test_a_node_without_network_is_left_and_reached_again_when_it_heals(
    cluster: Cluster, namespace: str, install: Install, report: Report
) -> None:
    release, watchers = install_watchers(cluster, install, server={"replicas": 2})
    by_name, by_address, by_pod = watchers
    cut, other = pods_of_session_and_others(release, by_name)
    tally = Tally.take(by_name)
    cut_at = now()
    with network_cut(cluster, cut.node):
        made_at = now()
        moved_at = by_name.wait_reached(other.address, cut_at)
        report("cut until moved to another pod, by name", moved_at - made_at)
        for watcher in (by_address, by_pod):
            eventually(
                partial(_sessions_given_up, watcher),
                timeout=2 * IDLE,
                what=f"the session that was cut is given up, {watcher}",
            )
            [down] = watcher.events("target_down", since=cut_at)
            report(f"cut until seen, {watcher}", time_of(down) - made_at)
        healed_at = now()
    report("cut for", healed_at - made_at)
    assert moved_at - made_at < RECOVERY, "there was an endpoint all the time"
    assert_reached([by_address, by_pod], cut, healed_at, healed_at, report)
    for watcher in (by_address, by_pod):
        [up] = watcher.events("target_up", since=healed_at)
        report(f"without an answer, {watcher}", float(up["outage_seconds"]))
        [spared] = [name for name in watcher.scrape().targets if name != up["target"]]
        account = watcher.release.settled(watcher.pod, target=spared)
        assert (account.lost, account.send_error) == (0, 0), "the other node had its network"
    after = Tally.take(by_name)
    after.assert_complete_since(tally)
    report("by name", str(after.account - tally.account))
    assert release.restarts == 0


def _sessions_given_up(watcher: Watcher) -> float:
    return watcher.scrape().sum("pingpong_client_sessions_closed_total", reason="idle")


def pods_of_session_and_others(release: Release, by_name: Watcher) -> Sequence[Pod]:
    """The server's pods; first the one with which a client by name has its session."""
    address = by_name.session_address()
    return sorted(release.pods("server"), key=lambda pod: pod.address != address)


def wait_replaced(release: Release, before: Iterable[Pod]) -> Pod:
    """Wait for a ready pod of the server that was not there before."""
    known = {pod.uid for pod in before}

    def find() -> list[Pod]:
        return [pod for pod in release.pods("server") if pod.uid not in known]

    [new] = eventually(find, timeout=60, what="another pod is ready")
    return new


def wait_ready(endpoints: ReadyEndpoints, pod: Pod, since: float) -> float:
    """When the pod was an endpoint that is ready."""
    what = f"{pod} is a ready endpoint"
    at = eventually(lambda: endpoints.ready_at(pod.address, since), timeout=10, what=what)
    endpoints.stop()
    return at


def assert_reached(
    watchers: Iterable[Watcher],
    pod: Pod,
    since: float,
    available_at: float,
    report: Report,
    *,
    within: float = RECOVERY,
) -> None:
    """Each of them reaches the pod so soon after it could."""
    took = {str(each): each.wait_reached(pod.address, since) - available_at for each in watchers}
    for way, seconds in took.items():
        report(f"available until reached, {way}", seconds)
    assert max(took.values()) < within, took
