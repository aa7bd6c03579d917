"""What is made for Prometheus, its operator and Grafana, and that it agrees with one another."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.chart.release_rules import pods_of
from tests.chart.rendering import CHART, Object, Refused, Rendered, container, merged, render

MONITORS = ("PodMonitor", "ServiceMonitor")
KINDS = (*MONITORS, "PrometheusRule")
APIS = [f"monitoring.coreos.com/v1/{kind}" for kind in KINDS]


def monitoring(**wanted: dict[str, Any]) -> dict[str, Any]:
    """Values that enable these."""
    return {"monitoring": {name: {"enabled": True, **more} for name, more in wanted.items()}}


def values_name(kind: str) -> str:
    """What a kind is called among the values."""
    return f"{kind[0].lower()}{kind[1:]}"


def rules(rendered: Rendered) -> dict[str, Object]:
    """The alerts by name."""
    groups = rendered.one("PrometheusRule")["spec"]["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def jobs(endpoint: Object) -> dict[str, str]:
    """What the relabelings of an endpoint make the job of each component's pods."""
    [job] = [each for each in endpoint["relabelings"] if each["targetLabel"] == "job"]
    assert job["sourceLabels"] == ["__meta_kubernetes_pod_label_app_kubernetes_io_component"]
    return {
        component: job["replacement"].replace("$1", match[1])
        for component in ("server", "client")
        if (match := re.fullmatch(job["regex"], component))
    }


def test_nothing_of_it_is_made_unless_wanted() -> None:
    rendered = render(api_versions=APIS)
    assert rendered.kinds().isdisjoint({*KINDS, "ConfigMap"})
    assert "left out" not in rendered.notes


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_the_cluster_does_not_know_is_left_out_and_the_notes_say_so(
    kind: str,
) -> None:
    values = monitoring(**{values_name(kind): {}})
    others = [api for api in APIS if not api.endswith(kind)]
    without, with_it = render(values, api_versions=others), render(values, api_versions=APIS)
    assert not without.has(kind)
    assert f"monitoring.{values_name(kind)} is left out" in without.notes
    assert f"monitoring.coreos.com/v1/{kind}" in without.notes
    assert with_it.has(kind, "pingpong")
    assert "left out" not in with_it.notes


def test_a_dashboard_needs_no_operator() -> None:
    rendered = render(monitoring(dashboard={"annotations": {"folder": "net"}}))
    config = rendered.one("ConfigMap")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config["metadata"]["annotations"] == {"folder": "net"}
    assert list(config["data"]) == ["pingpong.json"]
    assert json.loads(config["data"]["pingpong.json"]) == json.loads(
        (CHART / "files" / "dashboard.json").read_text()
    )
    # What `kubectl apply` keeps of an object in an annotation must fit there.
    assert len(json.dumps(config)) < 262_144


def test_a_pod_monitor_finds_server_and_client_and_no_other_pod() -> None:
    rendered = render(monitoring(podMonitor={}), api_versions=APIS)
    spec = rendered.one("PodMonitor")["spec"]
    [expression] = spec["selector"]["matchExpressions"]
    assert (expression["key"], expression["operator"]) == ("app.kubernetes.io/component", "In")
    found = [
        place
        for place in pods_of(rendered, {"matchLabels": spec["selector"]["matchLabels"]})
        if rendered.pods()[place]["metadata"]["labels"].get(expression["key"])
        in expression["values"]
    ]
    assert sorted(found) == ["Deployment pingpong-client", "Deployment pingpong-server"]
    assert len(rendered.pods()) == 5  # with the test's, and those that keep the certificate
    [endpoint] = spec["podMetricsEndpoints"]
    assert endpoint["path"] == "/metrics"
    for component in ("server", "client"):
        template = rendered.pods()[f"Deployment pingpong-{component}"]
        ports = {port["name"] for port in container(template, component)["ports"]}
        assert endpoint["port"] in ports


def test_a_service_monitor_finds_services_of_its_own_and_no_other() -> None:
    rendered = render(
        merged(
            monitoring(serviceMonitor={}),
            {"server": {"externalService": {"enabled": True, "adminPort": {"enabled": True}}}},
        ),
        api_versions=APIS,
    )
    spec = rendered.one("ServiceMonitor")["spec"]
    wanted = spec["selector"]["matchLabels"].items()
    found = [
        each for each in rendered.of("Service") if wanted <= each["metadata"]["labels"].items()
    ]
    names = ["pingpong-client-metrics", "pingpong-server-metrics"]
    assert sorted(each["metadata"]["name"] for each in found) == names
    assert len(rendered.of("Service")) == 4
    for service in found:
        component = service["metadata"]["name"].split("-")[1]
        assert pods_of(rendered, service["spec"]["selector"]) == [
            f"Deployment pingpong-{component}"
        ]
        # One that drains, or cannot answer itself, is measured as well.
        assert service["spec"]["publishNotReadyAddresses"] is True
        assert service["spec"]["clusterIP"] == "None"
        [port] = service["spec"]["ports"]
        assert port["name"] == spec["endpoints"][0]["port"]


@pytest.mark.parametrize("component", ["server", "client"])
def test_a_component_that_is_not_installed_has_neither_service_nor_alerts(component: str) -> None:
    values = merged(
        monitoring(serviceMonitor={}, prometheusRule={}), {component: {"enabled": False}}
    )
    if component == "server":
        values["client"] = {"targets": ["ping.example.org"]}
    rendered = render(values, api_versions=APIS)
    assert not rendered.has("Service", f"pingpong-{component}-metrics")
    [group] = rendered.one("PrometheusRule")["spec"]["groups"]
    other = "server" if component == "client" else "client"
    assert group["name"] == f"pingpong-{other}"


def test_both_monitors_at_once_are_refused() -> None:
    with pytest.raises(Refused, match="enable one of them"):
        render(monitoring(podMonitor={}, serviceMonitor={}), api_versions=APIS)


@pytest.mark.parametrize("kind", MONITORS)
@pytest.mark.parametrize("release", ["pingpong", "west"])
def test_alerts_go_by_the_jobs_that_the_monitor_makes(kind: str, release: str) -> None:
    values = monitoring(**{values_name(kind): {}}, prometheusRule={})
    rendered = render(values, release=release, namespace="net", api_versions=APIS)
    spec = rendered.one(kind)["spec"]
    [endpoint] = spec.get("podMetricsEndpoints") or spec["endpoints"]
    made = jobs(endpoint)
    assert len(set(made.values())) == 2
    for name, rule in rules(rendered).items():
        component = "server" if name.startswith("PingpongServer") else "client"
        matchers = set(re.findall(r'{(namespace="[^"]*",job="[^"]*")', rule["expr"]))
        assert matchers == {f'namespace="net",job="{made[component]}"'}


@pytest.mark.parametrize("kind", MONITORS)
def test_series_say_on_which_node_they_were_measured(kind: str) -> None:
    rendered = render(monitoring(**{values_name(kind): {}}), api_versions=APIS)
    spec = rendered.one(kind)["spec"]
    [endpoint] = spec.get("podMetricsEndpoints") or spec["endpoints"]
    node = {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}
    assert node in endpoint["relabelings"]


@pytest.mark.parametrize("kind", MONITORS)
def test_a_monitor_is_as_its_values_say(kind: str) -> None:
    drop = {"action": "labeldrop", "regex": "container"}
    values = {
        "interval": "15s",
        "scrapeTimeout": "5s",
        "labels": {"release": "prometheus"},
        "annotations": {"a": "b"},
        "relabelings": [drop],
        "metricRelabelings": [drop],
    }
    monitor = render(monitoring(**{values_name(kind): values}), api_versions=APIS).one(kind)
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["metadata"]["labels"]["app.kubernetes.io/instance"] == "pingpong"
    assert monitor["metadata"]["annotations"] == {"a": "b"}
    [endpoint] = monitor["spec"].get("podMetricsEndpoints") or monitor["spec"]["endpoints"]
    assert (endpoint["interval"], endpoint["scrapeTimeout"]) == ("15s", "5s")
    assert [each.get("targetLabel") for each in endpoint["relabelings"]] == ["job", "node", None]
    assert endpoint["relabelings"][-1] == drop
    assert endpoint["metricRelabelings"] == [drop]
    plain = render(monitoring(**{values_name(kind): {}}), api_versions=APIS).one(kind)["spec"]
    [endpoint] = plain.get("podMetricsEndpoints") or plain["endpoints"]
    assert endpoint.keys() == {"port", "path", "relabelings"}


def test_without_a_monitor_of_ours_alerts_go_by_the_namespace_alone() -> None:
    rendered = render(monitoring(prometheusRule={}), api_versions=APIS)
    for rule in rules(rendered).values():
        assert 'namespace="testing"' in rule["expr"]
        assert "job=" not in rule["expr"]


def test_alerts_go_by_the_matchers_that_are_given() -> None:
    matchers = 'cluster="a$1",team!="b"'
    values = monitoring(podMonitor={}, prometheusRule={"selector": matchers})
    for rule in rules(render(values, api_versions=APIS)).values():
        assert f"{{{matchers}" in rule["expr"]
        assert "testing" not in rule["expr"]


def test_alerts_are_left_out_labelled_and_linked_as_wanted() -> None:
    values = monitoring(
        prometheusRule={
            "labels": {"release": "prometheus"},
            "alertLabels": {"team": "net"},
            "disabled": ["PingpongRttHigh", "PingpongServerDrops"],
            "runbookUrl": "https://example.org/RUNBOOK.md",
        }
    )
    rendered = render(values, api_versions=APIS)
    everything = rules(render(monitoring(prometheusRule={}), api_versions=APIS))
    made = rules(rendered)
    assert rendered.one("PrometheusRule")["metadata"]["labels"]["release"] == "prometheus"
    assert everything.keys() - made.keys() == {"PingpongRttHigh", "PingpongServerDrops"}
    for name, rule in made.items():
        assert rule["labels"] == {**everything[name]["labels"], "team": "net"}
        url = f"https://example.org/RUNBOOK.md#{name.lower()}"
        assert rule["annotations"] == {**everything[name]["annotations"], "runbook_url": url}


def test_with_every_alert_left_out_there_is_no_group() -> None:
    names = list(rules(render(monitoring(prometheusRule={}), api_versions=APIS)))
    rendered = render(monitoring(prometheusRule={"disabled": names}), api_versions=APIS)
    assert rendered.one("PrometheusRule")["spec"] == {"groups": []}


@pytest.mark.parametrize(
    ("values", "server", "peer"),
    [
        ({}, "7", "7"),
        ({"server": {"tls": {"mode": "secret", "secretName": "certificate"}}}, "7", "7"),
        ({"server": {"tls": {"mode": "selfSigned"}}}, "3", "3"),
        # Whose they are is not known: not this chart's to replace.
        (
            {
                "server": {"tls": {"mode": "selfSigned"}},
                "client": {"targets": ["ping.example.org"]},
            },
            "3",
            "7",
        ),
        (
            {"monitoring": {"prometheusRule": {"thresholds": {"certificateDays": 1.5}}}},
            "1.5",
            "1.5",
        ),
        ({"monitoring": {"prometheusRule": {"thresholds": {"certificateDays": 0}}}}, "0", "0"),
    ],
    ids=["authority", "secret", "self-signed", "of others", "as said", "zero"],
)
def test_a_certificate_that_is_replaced_in_time_is_let_be(
    values: dict[str, Any], server: str, peer: str
) -> None:
    made = rules(render(merged(monitoring(prometheusRule={}), values), api_versions=APIS))
    for name, days in (("Server", server), ("Peer", peer)):
        expression = made[f"Pingpong{name}CertificateExpires"]["expr"]
        assert f" < {days} # certificateDays" in expression


@pytest.mark.parametrize(("interval", "stale"), [(10, "300"), (100, "300"), (600, "1800")])
def test_discovery_is_not_stale_before_three_lookups(interval: int, stale: str) -> None:
    values = {"client": {"settings": {"discoveryInterval": interval}}}
    made = rules(render(merged(monitoring(prometheusRule={}), values), api_versions=APIS))
    assert f" > {stale} # discoveryStale" in made["PingpongDiscoveryStale"]["expr"]


def test_a_threshold_of_any_size_is_a_number_of_promql() -> None:
    values = monitoring(
        prometheusRule={"thresholds": {"refusedPerSecond": 1000000, "droppedPerSecond": 1e-7}}
    )
    made = rules(render(values, api_versions=APIS))
    assert " > 1000000 # refusedPerSecond" in made["PingpongServerRefuses"]["expr"]
    assert " > 1e-07 # droppedPerSecond" in made["PingpongServerDrops"]["expr"]
