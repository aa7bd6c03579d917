"""How the server is reached: the headless Service, the one for outside, and who is let through."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart import cluster
from tests.chart.release_rules import pods_of
from tests.chart.rendering import Object, Rendered, render

SERVER = {
    "app.kubernetes.io/name": "pingpong",
    "app.kubernetes.io/instance": "pingpong",
    "app.kubernetes.io/component": "server",
}


def external(**values: Any) -> Object:
    rendered = render({"server": {"externalService": {"enabled": True, **values}}})
    assert cluster.problems(rendered, "1.30") == []
    spec: Object = rendered.one("Service", "pingpong-server-external")["spec"]
    return spec


def test_behind_the_servers_name_is_every_pod_that_is_ready_without_nat() -> None:
    spec = render().one("Service", "pingpong-server")["spec"]
    assert spec["clusterIP"] == "None"
    assert spec["publishNotReadyAddresses"] is False
    assert spec["selector"] == SERVER
    assert [(port["name"], port["port"], port["protocol"]) for port in spec["ports"]] == [
        ("webtransport", 4433, "UDP")
    ]
    for name in ("ipFamilyPolicy", "ipFamilies", "sessionAffinity", "trafficDistribution"):
        assert name not in spec


def test_ip_families_can_be_chosen() -> None:
    families = {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]}
    spec = render({"server": {"service": families}}).one("Service")["spec"]
    assert {name: spec[name] for name in families} == families
    assert {name: external(**families)[name] for name in families} == families


def test_there_is_none_for_outside_unless_it_is_asked_for() -> None:
    assert len(render().of("Service")) == 1


def test_a_port_on_the_nodes() -> None:
    spec = external(nodePort=30443)
    assert (spec["type"], spec["selector"]) == ("NodePort", SERVER)
    [port] = spec["ports"]
    assert (port["port"], port["nodePort"], port["protocol"]) == (4433, 30443, "UDP")
    assert "nodePort" not in external()["ports"][0]


def test_a_load_balancer_with_a_port_for_its_health_checks() -> None:
    spec = external(
        type="LoadBalancer",
        port=443,
        externalTrafficPolicy="Local",
        healthCheckNodePort=30555,
        loadBalancerClass="example.com/lb",
        loadBalancerSourceRanges=["198.51.100.0/24", "2001:db8::/32"],
        adminPort={"enabled": True, "port": 8081, "nodePort": 30556},
    )
    assert spec["type"] == "LoadBalancer"
    assert spec["externalTrafficPolicy"] == "Local"
    assert spec["healthCheckNodePort"] == 30555
    assert spec["loadBalancerClass"] == "example.com/lb"
    assert spec["loadBalancerSourceRanges"] == ["198.51.100.0/24", "2001:db8::/32"]
    assert [(port["name"], port["port"], port["targetPort"]) for port in spec["ports"]] == [
        ("webtransport", 443, "webtransport"),
        ("admin", 8081, "admin"),
    ]


def test_an_address_inside_the_cluster() -> None:
    spec = external(type="ClusterIP")
    assert spec["type"] == "ClusterIP"
    assert "clusterIP" not in spec
    assert "externalTrafficPolicy" not in spec


def test_annotations_are_on_the_service_that_they_are_for() -> None:
    values = {
        "service": {"annotations": {"a": "1"}},
        "externalService": {"enabled": True, "annotations": {"b": "2"}},
    }
    rendered = render({"server": values})
    found = {
        each["metadata"]["name"]: each["metadata"]["annotations"] for each in rendered.of("Service")
    }
    assert found == {"pingpong-server": {"a": "1"}, "pingpong-server-external": {"b": "2"}}


def test_only_the_headless_service_has_the_servers_label() -> None:
    # Else a ServiceMonitor for it would have each pod scraped twice.
    rendered = render({"server": {"externalService": {"enabled": True}}})
    labels = [each["metadata"]["labels"] for each in rendered.of("Service")]
    assert sum(each["app.kubernetes.io/component"] == "server" for each in labels) == 1


# ------------------------------------------------------------------ network policies


def policies(**values: Any) -> Rendered:
    policy = {"enabled": True, **values.pop("policy", {})}
    rendered = render({"networkPolicy": policy, **values})
    assert cluster.problems(rendered) == []
    return rendered


def ports(rule: Object) -> set[tuple[int, str]]:
    return {(port["port"], port["protocol"]) for port in rule["ports"]}


DNS = {(53, "UDP"), (53, "TCP")}


def test_there_are_no_network_policies_unless_they_are_asked_for() -> None:
    assert not render().has("NetworkPolicy")


def test_a_server_is_reached_at_its_two_ports_and_reaches_nothing() -> None:
    spec = policies().one("NetworkPolicy", "pingpong-server")["spec"]
    assert spec["podSelector"] == {"matchLabels": SERVER}
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    data, admin = spec["ingress"]
    assert (ports(data), ports(admin)) == ({(4433, "UDP")}, {(8080, "TCP")})
    assert "from" not in data
    assert "from" not in admin
    assert spec["egress"] == []


def test_a_client_reaches_the_server_and_names_and_nothing_else() -> None:
    spec = policies().one("NetworkPolicy", "pingpong-client")["spec"]
    [admin] = spec["ingress"]
    assert ports(admin) == {(8080, "TCP")}
    data, names = spec["egress"]
    assert ports(data) == {(4433, "UDP")}
    assert data["to"] == [{"podSelector": {"matchLabels": SERVER}}]
    assert ports(names) == DNS
    assert "to" not in names


def test_helm_test_may_go_where_the_client_may() -> None:
    rendered = policies()
    selector = rendered.one("NetworkPolicy", "pingpong-client")["spec"]["podSelector"]
    assert set(pods_of(rendered, selector)) == {"Deployment pingpong-client", "Pod pingpong-test"}


def test_pings_from_elsewhere_are_named_and_the_releases_own_are_let_in_as_well() -> None:
    peer = {"namespaceSelector": {"matchLabels": {"a": "b"}}}
    rendered = policies(policy={"dataFrom": [peer]})
    data = rendered.one("NetworkPolicy", "pingpong-server")["spec"]["ingress"][0]
    assert data["from"][0] == peer
    components = {
        each["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for each in data["from"][1:]
    }
    assert components == {"client", "test"}


def test_who_may_see_metrics_is_named_for_both() -> None:
    peer = {"ipBlock": {"cidr": "10.0.0.0/8"}}
    rendered = policies(policy={"adminFrom": [peer]})
    for component in ("server", "client"):
        each = rendered.one("NetworkPolicy", f"pingpong-{component}")
        assert each["spec"]["ingress"][-1] == {
            "ports": [{"port": 8080, "protocol": "TCP"}],
            "from": [peer],
        }


@pytest.mark.parametrize(
    ("values", "component"),
    [
        ({"client": {"discovery": "endpointslice"}}, "client"),
        (
            {
                "server": {"auth": {"mode": "kubernetes"}},
                "client": {"auth": {"mode": "serviceAccount"}},
            },
            "server",
        ),
    ],
)
def test_who_asks_the_api_reaches_it_at_the_ports_it_listens_on(
    values: dict[str, Any], component: str
) -> None:
    rendered = policies(policy={"apiPorts": [6443], "dnsPorts": [5353]}, **values)
    egress = rendered.one("NetworkPolicy", f"pingpong-{component}")["spec"]["egress"]
    assert [ports(rule) for rule in egress[-2:]] == [
        {(5353, "UDP"), (5353, "TCP")},
        {(6443, "TCP")},
    ]
    other = {"client": "server", "server": "client"}[component]
    for rule in rendered.one("NetworkPolicy", f"pingpong-{other}")["spec"]["egress"]:
        assert (6443, "TCP") not in ports(rule)


def test_servers_elsewhere_are_reached_at_any_udp_port() -> None:
    rendered = policies(client={"targets": ["https://a.example:1234/ping"]})
    [data, _] = rendered.one("NetworkPolicy", "pingpong-client")["spec"]["egress"]
    assert data == {"ports": [{"port": 1, "endPort": 65535, "protocol": "UDP"}]}
