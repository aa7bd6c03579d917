"""A server with an address of its own: on nodes' ports, behind load balancers and kube-proxy."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.e2e import outside
from tests.e2e.cluster import Cluster
from tests.e2e.conftest import Install, Report
from tests.e2e.faults_injection import kill_container
from tests.e2e.outside import Stayer
from tests.e2e.pods import Pod
from tests.e2e.release import Release
from tests.e2e.scraping import Samples
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

DRAIN = 9
"""Seconds that a server waits for sessions to leave."""
STAYED = DRAIN - 1.0
"""Seconds after it was asked to leave in which a session is answered at least, if nothing cuts it."""
OUTAGES = "pingpong_client_outage_seconds_count"
OUTAGE_SECONDS = "pingpong_client_outage_seconds_sum"
RECOVERED_WITHIN = 5.0
"""Seconds from the last answer of a pod that is killed to the first one of another: until kube-proxy
has heard of it, new connections go to nobody as well, and repeat their first packet after a second."""
NO_CLIENT = {"client": {"enabled": False}}


def service_of(cluster: Cluster, namespace: str) -> Any:
    return cluster.core.read_namespaced_service(outside.SERVICE, namespace).spec


def health_check(cluster: Cluster, node: str, service: Any) -> int:
    """The status that kube-proxy of a node gives to a load balancer that asks."""
    url = f"http://{cluster.node_address(node)}:{service.health_check_node_port}/healthz"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_a_node_port_answers_outside_on_every_node_and_with_local_only_where_a_server_is(
    cluster: Cluster, namespace: str, install: Install
) -> None:
    release = install({"server": {"externalService": {"enabled": True}}, **NO_CLIENT})
    server = release.pod("server")
    [other] = [node for node in cluster.workers if node != server.node]
    service = service_of(cluster, namespace)
    assert (service.type, service.external_traffic_policy) == ("NodePort", "Cluster")
    [listening] = release.events(server, "listening")
    trusting = ("--cert-hash", listening["sha256"], "-c", "3", "-i", "0.1")
    urls = [outside.server_url(cluster, namespace, node) for node in cluster.nodes]
    output = outside.eventually_ping(*urls, *trusting)
    assert output.count("3 sent, 3 received, 0% loss") == len(urls), output

    release.upgrade({"server": {"externalService": {"externalTrafficPolicy": "Local"}}})
    assert service_of(cluster, namespace).ports == service.ports
    assert release.pod("server") == server

    def is_silent() -> bool:
        pinged = outside.ping(
            outside.server_url(cluster, namespace, other), "--insecure", "-c", "1", "-w", "2"
        )
        assert pinged.status == 2, pinged.output
        return True

    eventually(is_silent, timeout=20, what=f"{other}, without a server, does not answer")
    outside.eventually_ping(outside.server_url(cluster, namespace, server.node), *trusting)


def test_a_load_balancer_is_accepted_and_is_told_which_nodes_have_a_server(
    cluster: Cluster, namespace: str, install: Install
) -> None:
    external = {
        "enabled": True,
        "type": "LoadBalancer",
        "port": 443,
        "externalTrafficPolicy": "Local",
        "adminPort": {"enabled": True},
        "annotations": {"pingpong.test/made-by": "nobody"},
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
    }
    release = install({"server": {"externalService": external}, **NO_CLIENT})
    service = service_of(cluster, namespace)
    assert service.type == "LoadBalancer"
    assert service.load_balancer_source_ranges == ["192.0.2.0/24"]
    assert {(each.protocol, each.port, each.target_port) for each in service.ports} == {
        ("UDP", 443, "webtransport"),
        ("TCP", 8080, "admin"),
    }
    statuses = {node: 200 if node == release.pod("server").node else 503 for node in cluster.nodes}
    eventually(
        lambda: {node: health_check(cluster, node, service) for node in cluster.nodes} == statuses,
        timeout=20,
        what=f"nodes tell load balancers {statuses}",
    )


def test_a_rolling_upgrade_behind_kube_proxy_cuts_no_flow_of_a_server_that_stays_ready(
    cluster: Cluster, namespace: str, install: Install, report: Report
) -> None:
    release = install(
        {
            "server": {
                # Both ways go through kube-proxy's translation: its ClusterIP, and the NodePort.
                "externalService": {"enabled": True, "type": "NodePort"},
                "drain": {"stayReady": True, "preStopSeconds": 1, "timeoutSeconds": DRAIN},
                "minReadySeconds": 0,
            },
            "client": through_cluster_ip(namespace),
        }
    )
    release.wait_up(1)
    before = release.settled()
    outside.eventually_ping(
        outside.server_url(cluster, namespace, cluster.workers[0]), "--insecure", "-c", "1"
    )
    url = outside.server_url(cluster, namespace, cluster.workers[0], "/echo")

    # The pods that leave stay ready; those that come will not.
    with Stayer(url) as stayer:
        roll_out(release, {"drain": {"stayReady": False}})
        stayed = time_stayed(stayer)
    report(f"asked to leave, a session stayed of {DRAIN} s, with stayReady", stayed)
    assert stayed > STAYED
    assert stayer.closed is not None
    assert stayer.closed.by_peer, stayer.closed
    assert stayer.closed.clean, stayer.closed
    moved = release.settled() - before
    assert (moved.lost, moved.late, moved.send_error) == (0, 0, 0), str(moved)
    report("the client's pings meanwhile, through the ClusterIP", str(moved))

    before = release.settled()
    with Stayer(url) as stayer:
        roll_out(release, {"podAnnotations": {"pingpong.test/rolled": "again"}})
        stayed = time_stayed(stayer)
    report(f"asked to leave, a session stayed of {DRAIN} s, without stayReady", stayed)
    assert stayed < STAYED, "stayReady is good for nothing: is its note in the chart true?"
    report("the client's pings meanwhile", str(release.settled() - before))
    assert release.restarts == 0


def test_behind_a_cluster_ip_a_client_goes_to_another_pod_when_its_own_is_killed(
    cluster: Cluster, namespace: str, install: Install, report: Report
) -> None:
    release = install(
        {
            "server": {
                "replicas": 2,
                "externalService": {"enabled": True, "type": "ClusterIP"},
            },
            "client": through_cluster_ip(namespace),
        }
    )
    release.wait_up(1)
    [own] = [pod for pod in release.pods("server") if has_session(release, pod)]
    client = release.pod("client")
    before = release.metrics(client)
    # First the container: kubelet would let it end in order, for a second or two.
    kill_container(cluster, own)
    cluster.core.delete_namespaced_pod(own.name, namespace, grace_period_seconds=0)

    def is_through() -> Samples:
        samples = release.metrics(client)
        assert samples.value(OUTAGES) > before.value(OUTAGES)
        assert samples.targets_up == samples.targets
        return samples

    after = eventually(is_through, timeout=30, what="the client is through an outage")
    outage = after.value(OUTAGE_SECONDS) - before.value(OUTAGE_SECONDS)
    report("a pod killed: no answers for", outage)
    assert outage < RECOVERED_WITHIN
    assert release.restarts == 0


def has_session(release: Release, server: Pod) -> bool:
    return release.metrics(server).value("pingpong_server_sessions_active") > 0


def through_cluster_ip(namespace: str) -> dict[str, Any]:
    """Values of a client that pings the Service with an address of its own."""
    return {
        "targets": [f"https://{outside.SERVICE}.{namespace}.svc:4433/ping"],
        "tls": {"insecure": True},
        "settings": {"interval": 0.05, "all": False},
    }


def roll_out(release: Release, values: dict[str, Any]) -> None:
    """Change the server, and wait until no old pod of it is left."""
    old = {pod.name for pod in release.all_pods("server")}
    release.upgrade({"server": values})

    def are_gone() -> bool:
        left = old & {pod.name for pod in release.all_pods("server")}
        assert not left, f"{left}"
        return True

    eventually(are_gone, timeout=60, what="the old pods are gone")
    release.wait_up(1)


def time_stayed(stayer: Stayer) -> float:
    """Seconds in which a session was answered after it was asked to leave."""
    assert stayer.asked_to_leave_at is not None
    return stayer.answered_at - stayer.asked_to_leave_at
