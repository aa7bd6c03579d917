"""Servers come and go, and a client with a target for each address follows."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.conftest import Install, Report
from tests.e2e.release import Release
from tests.e2e.waiting import Stopwatch, eventually

pytestmark = pytest.mark.e2e

FOLLOWS_WITHIN = 15.0
"""Seconds from when DNS has, or has no more, a server until the client's targets say so."""


def test_a_client_follows_the_servers_from_one_to_three_and_back(
    install: Install, report: Report
) -> None:
    release = install({"client": {"settings": {"interval": 0.05}}})
    [first] = release.wait_up(1).targets

    with release.following() as following:
        release.upgrade({"server": {"replicas": 3}})
        watch = Stopwatch()
        three = release.wait_up(3, timeout=FOLLOWS_WITHIN)
        report("targets up after three servers were ready", watch.seconds)
        assert first in three.targets
        addresses = {f"[{pod.address}]" for pod in release.pods("server")}
        assert {name[name.index("[") :] for name in three.targets} == addresses

        release.upgrade({"server": {"replicas": 1}}, wait=False)
        watch = Stopwatch()
        one = release.wait_up(1, timeout=FOLLOWS_WITHIN)
        report("targets gone after two servers were asked to leave", watch.seconds)
        [stayed], [target] = release.pods("server"), one.targets
        assert f"[{stayed.address}]" in target
        named = {name: one.labels(name, "target") - {target} for name in one.names}
        assert {name: others for name, others in named.items() if others} == {}

        # Whatever those that leave do to pings would show until they are gone.
        eventually(_is_one_pod(release), timeout=60, what="two servers are gone")
    report("two servers gone after", watch.seconds)

    for name in three.targets:
        accounts = following.accounts(name)
        assert accounts[-1].ok > 0
        assert accounts[-1].late == 0, f"{name}: {accounts[-1]}"
        following.assert_none_lost(name)
    settled = release.settled()
    assert (settled.lost, settled.late, settled.send_error) == (0, 0, 0), str(settled)
    ever = [following.accounts(name)[-1] for name in three.targets]
    report("pings", f"{sum(each.sent for each in ever)}, none of them lost")
    assert release.restarts == 0


def _is_one_pod(release: Release) -> Callable[[], bool]:
    return lambda: len(release.all_pods("server")) == 1
