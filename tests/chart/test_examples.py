"""The documented modes: each renders to what a cluster takes, and to what it says it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml

from tests.chart import cluster
from tests.chart.kubernetes_schemas import VERSIONS
from tests.chart.rendering import CHART, Rendered, render

EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
OPERATORS = [
    "cert-manager.io/v1/Certificate",
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
    "monitoring.coreos.com/v1/ServiceMonitor",
]
BROUGHT = frozenset({"Secret pingpong-tls", "Secret pingpong-tokens", "Secret pingpong-token"})
"""What the examples say that a user makes before."""


def example(name: str) -> Rendered:
    return render(values_of(CHART / "examples" / f"{name}.yaml"), api_versions=OPERATORS)


def values_of(path: Path) -> dict[str, Any]:
    values = yaml.safe_load(path.read_text())
    assert isinstance(values, dict)
    return values


def test_there_are_examples() -> None:
    assert {path.stem for path in EXAMPLES} >= {
        *("autoscaling", "cert-manager", "external-targets", "load-balancer", "mesh"),
        *("monitoring", "network-policy", "node-port", "secret", "service-account", "token"),
    }


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_cluster_takes_it_and_the_program_its_settings(path: Path, version: str) -> None:
    values = values_of(path)
    rendered = render(values, kube_version=f"{version}.0", api_versions=OPERATORS)
    assert cluster.problems(rendered, version, brought=BROUGHT) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_helm_lint_has_nothing_to_say(path: Path) -> None:
    report = helm.lint(CHART, values_of(path), strict=True, kube_version="v1.34.0")
    assert [each for each in report["messages"] if each["severity"] > 1] == []
    assert report["errors"] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_begins_with_what_it_is_for(path: Path) -> None:
    assert path.read_text().startswith("# ")


def test_autoscaling_leaves_the_number_of_pods_to_the_autoscaler() -> None:
    rendered = example("autoscaling")
    spec = rendered.one("HorizontalPodAutoscaler")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 10)
    assert spec["metrics"][0]["resource"]["target"]["averageUtilization"] == 70
    assert "replicas" not in rendered.one("Deployment", "pingpong-server")["spec"]


def test_cert_manager_is_asked_for_a_certificate_that_the_pods_then_have() -> None:
    rendered = example("cert-manager")
    certificate = rendered.one("Certificate")["spec"]
    [volume] = rendered.pods()["Deployment pingpong-server"]["spec"]["volumes"]
    assert volume["secret"]["secretName"] == certificate["secretName"] == "pingpong-server-tls"


def test_the_mesh_has_a_server_and_a_client_on_every_node() -> None:
    rendered = example("mesh")
    assert rendered.kinds() >= {"DaemonSet"}
    assert not rendered.has("Deployment")
    for template in (each["spec"]["template"] for each in rendered.of("DaemonSet")):
        assert template["spec"]["tolerations"] == [{"operator": "Exists"}]
        assert "topologySpreadConstraints" not in template["spec"]


def test_external_targets_have_no_server() -> None:
    rendered = example("external-targets")
    assert {each["metadata"]["name"] for each in rendered.objects} == {
        "pingpong-client",
        "pingpong-test",
        "testing:pingpong-client:endpointslices",
    }
    assert rendered.one("Role")["metadata"]["namespace"] == "other"


def test_load_balancer_and_node_port_stay_ready_while_they_drain() -> None:
    for name, kind in (("load-balancer", "LoadBalancer"), ("node-port", "NodePort")):
        rendered = example(name)
        assert rendered.one("Service", "pingpong-server-external")["spec"]["type"] == kind
        [server] = rendered.pods()["Deployment pingpong-server"]["spec"]["containers"]
        assert {"name": "PINGPONG_DRAIN_STAY_READY", "value": "true"} in server["env"]
