"""A tenth of a core and 128 MiB are enough for 50 pings a second, and to get ready with."""

from __future__ import annotations

from functools import partial

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.conftest import Install, Report
from tests.e2e.pods import Pod
from tests.e2e.release import Release
from tests.e2e.scraping import Samples
from tests.e2e.waiting import Stopwatch, eventually

pytestmark = pytest.mark.e2e

LIMITS = {"cpu": "100m", "memory": "128Mi"}
RATE = 50
PINGS = 1000
ENOUGH = 0.9
SKIPPED = "pingpong_client_schedule_skipped_total"


def test_a_tenth_of_a_core_and_128_mib_bear_50_pings_a_second(
    cluster: Cluster, install: Install, report: Report
) -> None:
    resources = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": LIMITS}
    watch = Stopwatch()
    release = install(
        {
            "server": {"resources": resources},
            "client": {"resources": resources, "settings": {"interval": 1 / RATE}},
        }
    )
    report("both pods ready after", watch.seconds)
    release.wait_up(1)
    server, client = release.pod("server"), release.pod("client")
    for pod in (server, client):
        [container] = pod.found.spec.containers
        assert container.resources.limits == LIMITS

    # Either takes half of its limit for that; a machine that is busy itself may have less to give
    # for a while.
    rates: list[str] = []
    for _ in range(3):
        before, watch = release.metrics(client), Stopwatch()
        after = eventually(
            partial(_after_so_many, release, client, before),
            timeout=PINGS / RATE * 3,
            what=f"{PINGS} pings are sent",
            interval=2,
        )
        rate = (after.account() - before.account()).sent / watch.seconds
        skipped = after.sum(SKIPPED) - before.sum(SKIPPED)
        rates.append(f"{rate:.1f} ({skipped:.0f} slots missed)")
        if rate >= ENOUGH * RATE:
            break
    report("pings a second", "; ".join(rates))
    assert rate >= ENOUGH * RATE, rates
    settled = release.settled()
    report("pings", settled)
    assert (settled.lost, settled.send_error, settled.malformed) == (0, 0, 0)

    for pod in (server, client):
        usage = _usage(cluster, pod)
        throttled = usage.sum("container_cpu_cfs_throttled_periods_total", pod=pod.name)
        assert throttled > 0, "a start takes more than the limit has, so that the limit counts"
        used = usage.sum("container_memory_working_set_bytes", pod=pod.name, container=pod.part)
        report(f"memory of the {pod.part}", f"{used / 2**20:.0f} MiB")
    for part in ("server", "client"):
        [now] = release.all_pods(part)
        [status] = now.found.status.container_statuses
        assert (now.is_ready, now.restarts) == (True, 0)
        assert status.last_state.terminated is None


def _after_so_many(release: Release, client: Pod, before: Samples) -> Samples:
    samples = release.metrics(client)
    sent = (samples.account() - before.account()).sent
    assert sent >= PINGS, f"{sent} sent"
    return samples


def _usage(cluster: Cluster, pod: Pod) -> Samples:
    """What the pod's kubelet has measured of its containers."""

    def measured() -> Samples:
        answer = cluster.get(f"/api/v1/nodes/{pod.node}/proxy/metrics/cadvisor")
        assert answer.ok, answer.text
        samples = Samples(answer.text)
        assert samples.series("container_memory_working_set_bytes", pod=pod.name)
        return samples

    return eventually(measured, timeout=30, what=f"kubelet has measured {pod}")
