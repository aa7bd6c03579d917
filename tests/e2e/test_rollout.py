"""A new version of the server, and back to the old one: no ping is lost on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.conftest import Install, Report
from tests.e2e.faults_logs import Event, LogTail, time_of
from tests.e2e.faults_slots import Tally
from tests.e2e.faults_watchers import Watcher, install_watchers, now
from tests.e2e.following import Following
from tests.e2e.pods import Pod
from tests.e2e.release import Release

pytestmark = pytest.mark.e2e

RECOVERY = 3.0
"""Seconds that a client by address may be without any target, between an old one and a new one."""
END = 60.0
"""Seconds that the last old pod may take to end once the new ones are there."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """What was seen of one."""

    began: float
    old: list[Pod]
    new: list[Pod]
    logs: dict[str, list[Event]]
    """Of the old pods, by address, to their end."""
    following: Following
    """Of the watcher by address."""

    def ended_at(self, address: str) -> float:
        """When the old pod with this address had stopped, as it says."""
        [stopped] = [event for event in self.logs[address] if event["event"] == "stopped"]
        return time_of(stopped)


@pytest.mark.parametrize("replicas", [1, 2])
def test_an_upgrade_and_a_rollback_lose_no_ping_and_move_sessions_before_old_pods_leave(
    cluster: Cluster,
    install: Install,
    report: Report,
    replicas: int,
) -> None:
    release, [by_name, by_address] = install_watchers(
        cluster, install, ("name", "address"), server={"replicas": replicas}
    )

    def upgrade() -> None:
        release.upgrade({"server": {"podAnnotations": {"example.org/version": "2"}}})

    for verb, change in (("upgrade", upgrade), ("rollback", release.rollback)):
        tally = Tally.take(by_name)
        rollout = roll(cluster, release, by_address, change)
        _assert_moved_in_time(by_name, rollout)
        _assert_followed_in_time(by_address, rollout)

        account = by_name.release.settled(by_name.pod)
        after = Tally.take(by_name)
        after.assert_complete_since(tally)
        change_of = account - tally.account
        assert (change_of.lost, change_of.send_error, change_of.malformed) == (0, 0, 0)
        report(f"{verb}, until the last old pod has stopped", _length(rollout))
        report(f"{verb}, by name", str(change_of))
        gap = _longest_without_target(rollout.following)
        report(f"{verb}, longest between scrapes with a target up, by address", gap)
        assert gap < RECOVERY
    assert release.restarts == 0


def roll(
    cluster: Cluster, release: Release, by_address: Watcher, change: Callable[[], None]
) -> Rollout:
    """Have all pods of the server replaced; until the old ones have ended."""
    old = release.pods("server")
    tails = {pod.address: LogTail(cluster, release.namespace, pod) for pod in old}
    began = now()
    with by_address.release.following(by_address.pod) as following:
        change()
        new = release.pods("server")
        logs = {address: tail.wait_end(END) for address, tail in tails.items()}
        by_address.release.wait_up(len(new), by_address.pod)
    assert not {pod.uid for pod in old} & {pod.uid for pod in new}
    return Rollout(began, old, new, logs, following)


def _assert_moved_in_time(watcher: Watcher, rollout: Rollout) -> None:
    """Its one session went from pod to pod, and was nowhere when a pod ended."""
    events = watcher.events("target_down", "session_moved", since=rollout.began)
    assert not [event for event in events if event["event"] == "target_down"]
    assert events, "a session was to move"
    for moved in events:
        assert moved["before"] in rollout.logs, "it left a pod that was to stay"
        assert time_of(moved) < rollout.ended_at(moved["before"])
    assert events[-1]["address"] in {pod.address for pod in rollout.new}
    for log in rollout.logs.values():
        assert not [event for event in log if event["event"] == "drain_timed_out"], (
            "none was sent away"
        )


def _assert_followed_in_time(watcher: Watcher, rollout: Rollout) -> None:
    """It left each old pod before that ended, and lost nothing on any."""
    events = watcher.events("target_down", "target_removed", since=rollout.began)
    assert not [event for event in events if event["event"] == "target_down"]
    removed = {event["target"]: time_of(event) for event in events}
    for address in rollout.logs:
        [target] = [name for name in removed if f"[{address}]" in name]
        assert removed[target] < rollout.ended_at(address)
        # What was sent after the last scrape before it was removed is on no account.
        rollout.following.assert_none_lost(target)
    for pod in rollout.new:
        [target] = [name for name in rollout.following.targets if f"[{pod.address}]" in name]
        account = watcher.release.settled(watcher.pod, target=target)
        assert (account.lost, account.send_error, account.malformed) == (0, 0, 0)


def _longest_without_target(following: Following) -> float:
    """Seconds, as far as scrapes tell."""
    longest, up_at = 0.0, following.moments[0].at
    for moment in following.moments:
        if moment.samples.targets_up:
            longest = max(longest, moment.at - up_at)
            up_at = moment.at
    return longest


def _length(rollout: Rollout) -> float:
    return max(rollout.ended_at(address) for address in rollout.logs) - rollout.began
