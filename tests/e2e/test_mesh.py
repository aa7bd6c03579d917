"""A server and a client on every node: each client pings each server, named by its pod."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.conftest import Install, Report
from tests.e2e.release import Release
from tests.e2e.scraping import Account
from tests.e2e.waiting import Stopwatch, eventually

pytestmark = pytest.mark.e2e

LABEL = "pingpong.test/mesh"
FOLLOWED_WITHIN = 15.0
"""Seconds from a change of the servers' pods until every client's series have followed."""


@pytest.fixture
def first_node(cluster: Cluster) -> Iterator[str]:
    """A node that is in the mesh from the start; labels are taken off in the end."""
    mark(cluster, cluster.workers[0], "yes")
    yield cluster.workers[0]
    for node in cluster.workers:
        mark(cluster, node, None)


def mark(cluster: Cluster, node: str, value: str | None) -> None:
    cluster.core.patch_node(node, {"metadata": {"labels": {LABEL: value}}})


def cells(release: Release) -> dict[tuple[str, str], Account]:
    """The matrix: the nodes of a client and of a server, and the pings between them.

    Raises AssertionError unless every client has every server, and no other, and all are up.
    """
    servers = {pod.name: pod.node for pod in release.pods("server")}
    matrix = {}
    for client in release.pods("client"):
        samples = release.metrics(client)
        assert samples.targets == samples.targets_up == set(servers), str(client)
        for server, node in servers.items():
            matrix[client.node, node] = samples.account(target=server)
    return matrix


def wait_for_mesh(release: Release, *nodes: str) -> dict[tuple[str, str], Account]:
    """Wait until pings are answered between all of these nodes, and no others; returns what was
    counted before the last look, which found more in every cell."""
    wanted = {(client, server) for client in nodes for server in nodes}
    before: dict[tuple[str, str], Account] = {}

    def is_fresh() -> bool:
        now = cells(release)
        seen = sorted(f"{client} to {server}" for client, server in now)
        assert now.keys() == wanted, f"{seen}"
        for cell in wanted:
            assert now[cell].ok > before.setdefault(cell, now[cell]).ok, f"{cell}: {now[cell]}"
        return True

    eventually(is_fresh, timeout=30, what=f"every cell of the mesh of {len(nodes)} nodes is fresh")
    return before


def test_a_mesh_has_a_fresh_cell_for_each_pair_of_nodes_as_nodes_and_pods_come_and_go(
    cluster: Cluster, first_node: str, install: Install, report: Report
) -> None:
    [_, second_node, *_] = cluster.workers
    on_nodes = {"kind": "DaemonSet", "nodeSelector": {LABEL: "yes"}}
    release = install(
        {
            "server": on_nodes,
            # Targets have the names of pods then.
            "client": {**on_nodes, "discovery": "endpointslice", "settings": {"interval": 0.2}},
        }
    )
    wait_for_mesh(release, first_node)

    watch = Stopwatch()
    mark(cluster, second_node, "yes")
    wait_for_mesh(release, first_node, second_node)
    report("a node more, until each pair of nodes pings", watch.seconds)
    assert release.metrics(release.pods("client")[0]).targets == {
        pod.name for pod in release.pods("server")
    }

    [gone] = [pod for pod in release.pods("server") if pod.node == second_node]
    [client] = [pod for pod in release.pods("client") if pod.node == first_node]
    watch = Stopwatch()
    cluster.core.delete_namespaced_pod(gone.name, release.namespace, grace_period_seconds=0)
    wait_for_mesh(release, first_node, second_node)
    report("a server's pod deleted, until each pair of nodes pings again", watch.seconds)
    assert watch.seconds < FOLLOWED_WITHIN
    assert gone.name not in release.metrics(client).targets
    [other] = [pod for pod in release.pods("server") if pod.node == first_node]
    undisturbed = release.settled(client, target=other.name)
    assert (undisturbed.lost, undisturbed.send_error) == (0, 0), str(undisturbed)

    mark(cluster, second_node, None)
    watch = Stopwatch()
    wait_for_mesh(release, first_node)
    report("a node less, until its row and column are gone", watch.seconds)
    assert watch.seconds < FOLLOWED_WITHIN
    assert release.restarts == 0
