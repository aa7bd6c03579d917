"""The chart's NetworkPolicies: what they let through, where the cluster's network heeds them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e import inside
from tests.e2e.cluster import Cluster
from tests.e2e.conftest import Install, Report
from tests.e2e.release import Release
from tests.e2e.visitors import visitor
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

DENY_ALL = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "deny-all"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
}


def can_connect(release: Release) -> bool:
    """Whether a new connection from the client's pod to the server answers within seconds."""
    refusal = inside.refusal(release, release.pod("client"), patience=2)
    assert refusal is None or "unreachable" in refusal or "no answer" in refusal, refusal
    return refusal is None


def network_enforces_policies(cluster: Cluster, release: Release) -> bool:
    """Whether a policy that denies everything keeps a connection from being made.

    It may take a moment until it does.
    """
    assert can_connect(release)
    policy = {**DENY_ALL, "metadata": {"name": "deny-all", "namespace": release.namespace}}
    cluster.apply(policy)
    try:
        eventually(
            lambda: not can_connect(release), timeout=6, what="the policy denies a connection"
        )
    except AssertionError:
        return False
    finally:
        cluster.networking.delete_namespaced_network_policy("deny-all", release.namespace)
    eventually(lambda: can_connect(release), timeout=30, what="the policy is gone")
    return True


def ports(rules: list[Any]) -> set[tuple[str, int | str]]:
    return {(port.protocol, port.port) for rule in rules for port in rule.ports or ()}


def test_the_policies_let_pings_names_and_metrics_through_and_strangers_not(
    cluster: Cluster, namespace: str, install: Install, report: Report
) -> None:
    release = install({"client": {"discovery": "endpointslice"}})
    release.wait_up(1)
    enforces = network_enforces_policies(cluster, release)
    report("this cluster's network enforces NetworkPolicies", "yes" if enforces else "no")

    friend = {"podSelector": {"matchLabels": {"pingpong.test/friend": "yes"}}}
    release.upgrade(
        {
            "networkPolicy": {"enabled": True, "dataFrom": [friend]},
            # Another pod, that has to connect to everything anew.
            "client": {"podAnnotations": {"pingpong.test/policies": "yes"}},
        }
    )
    # The API has accepted them, and says what it understood.
    found = cluster.networking.list_namespaced_network_policy(namespace).items
    policies = {each.metadata.name: each.spec for each in found}
    assert policies.keys() == {"pingpong-server", "pingpong-client", "pingpong-renewal"}
    server, client = policies["pingpong-server"], policies["pingpong-client"]
    renewal = policies["pingpong-renewal"]
    assert set(server.policy_types) == set(client.policy_types) == {"Ingress", "Egress"}
    assert ports(server.ingress) == {("UDP", 4433), ("TCP", 8080)}
    assert ports(client.ingress) == {("TCP", 8080)}
    assert not server.egress, "it only answers"
    names, api = {("UDP", 53), ("TCP", 53)}, {("TCP", 443), ("TCP", 6443)}
    assert ports(client.egress) == {("UDP", 4433)} | names | api
    assert not renewal.ingress
    assert ports(renewal.egress) == names | api
    [data] = [rule for rule in server.ingress if rule.ports[0].protocol == "UDP"]
    assert friend in [
        {"podSelector": {"matchLabels": peer.pod_selector.match_labels}} for peer in data._from
    ]

    # With them, what is to go through goes through: the API, pings, names, and scrapes.
    release.wait_up(1)
    assert can_connect(release)
    assert release.metrics(release.pod("server")).value("pingpong_server_sessions_active") > 0
    tested = release.test()
    assert tested.ok, tested.output

    strangers = visitor(install, "stranger", {})
    friends = visitor(install, "friend", {"podLabels": friend["podSelector"]["matchLabels"]})
    friends.wait_up(1)
    if enforces:
        samples = strangers.metrics(strangers.pod("client"))
        assert samples.value("pingpong_client_connects_total", result="ok") == 0
        eventually(
            lambda: (
                strangers.metrics(strangers.pod("client")).value(
                    "pingpong_client_connects_total", result="timeout"
                )
                > 0
            ),
            timeout=20,
            what="a stranger's connection times out",
        )
    else:
        strangers.wait_up(1)
