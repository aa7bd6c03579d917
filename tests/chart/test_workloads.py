"""The pods of server and client: how many there are, how they start, are replaced and end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart import cluster, program
from tests.chart.release_rules import hooks_of
from tests.chart.rendering import Object, container, loaded, render

BOTH = pytest.mark.parametrize("component", ["server", "client"])


def workload(component: str, values: dict[str, Any] | None = None) -> Object:
    rendered = render({component: values or {}})
    kind = (values or {}).get("kind", "Deployment")
    return rendered.one(kind, f"pingpong-{component}")


def main_of(component: str, values: dict[str, Any] | None = None) -> Object:
    return container(workload(component, values)["spec"]["template"], component)


def test_the_defaults_are_a_server_and_a_client_that_pings_each_of_its_pods() -> None:
    rendered = render()
    of_the_release = [
        f"{each['kind']} {each['metadata']['name']}"
        for each in rendered.objects
        if not hooks_of(each)
    ]
    assert sorted(of_the_release) == [
        "CronJob pingpong-renewal",
        "Deployment pingpong-client",
        "Deployment pingpong-server",
        "PodDisruptionBudget pingpong-server",
        "Role pingpong-renewal",
        "RoleBinding pingpong-renewal",
        "Service pingpong-server",
        "ServiceAccount pingpong-client",
        "ServiceAccount pingpong-renewal",
        "ServiceAccount pingpong-server",
    ]
    assert sorted({*rendered.names()} - {*of_the_release}) == [
        "Job pingpong-certificate",
        "Pod pingpong-test",
        "Role pingpong-certificate",
        "RoleBinding pingpong-certificate",
        "Secret pingpong-authority",
        "Secret pingpong-certificate",
        "ServiceAccount pingpong-certificate",
    ]


@BOTH
@pytest.mark.parametrize(("replicas", "expected"), [(None, 1), (0, 0), (1, 1), (3, 3)])
def test_there_are_as_many_as_are_asked_for(
    component: str, replicas: int | None, expected: int
) -> None:
    assert workload(component, {"replicas": replicas})["spec"]["replicas"] == expected


@BOTH
def test_a_new_pod_is_ready_before_an_old_one_goes(component: str) -> None:
    assert workload(component)["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
    }
    daemons = workload(component, {"kind": "DaemonSet"})["spec"]
    assert daemons["updateStrategy"] == workload(component)["spec"]["strategy"]
    assert "replicas" not in daemons


def test_a_new_server_must_prove_itself_before_the_next_is_replaced() -> None:
    assert workload("server")["spec"]["minReadySeconds"] == 5
    assert workload("server", {"minReadySeconds": 0})["spec"]["minReadySeconds"] == 0


@BOTH
def test_kubelet_asks_for_health_at_the_admin_port(component: str) -> None:
    main = main_of(component)
    for name, path in (
        ("startupProbe", "/livez"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ):
        assert main[name]["httpGet"] == {"path": path, "port": "admin"}
    # A start that is slow for want of CPU time is no failure: two minutes.
    startup = main["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 60


@BOTH
def test_each_probe_can_be_set(component: str) -> None:
    main = main_of(component, {"probes": {"liveness": {"periodSeconds": 77}}})
    assert main["livenessProbe"]["periodSeconds"] == 77
    assert main["readinessProbe"]["periodSeconds"] != 77


def test_a_server_waits_for_dns_and_sessions_before_it_ends() -> None:
    template = workload("server")["spec"]["template"]
    assert main_of("server")["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
    assert program.settings(main_of("server")).drain_timeout == 25
    assert template["spec"]["terminationGracePeriodSeconds"] == 40


def test_a_server_that_needs_not_wait_does_not() -> None:
    # Kubernetes before 1.33 refuses a sleep of 0.
    drain = {"preStopSeconds": 0, "timeoutSeconds": 0, "gracePeriodSeconds": 1}
    assert "lifecycle" not in main_of("server", {"drain": drain})
    assert program.settings(main_of("server", {"drain": drain})).drain_timeout == 0


@BOTH
def test_ports_are_named_and_have_their_protocol(component: str) -> None:
    ports = {"server": [("webtransport", 4433, "UDP")], "client": []}[component]
    found = [(p["name"], p["containerPort"], p["protocol"]) for p in main_of(component)["ports"]]
    assert found == [*ports, ("admin", 8080, "TCP")]


@BOTH
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "pingpong-{}:{version}"),
        (
            {"image": {"registry": "r.example:5000/team"}},
            "r.example:5000/team/pingpong-{}:{version}",
        ),
        ({"image": {"tag": "v9"}}, "pingpong-{}:v9"),
        ({"own": {"tag": "v8"}, "image": {"tag": "v9"}}, "pingpong-{}:v8"),
        ({"own": {"repository": "a/b"}}, "a/b:{version}"),
        ({"own": {"digest": "sha256:" + "a" * 64}}, "pingpong-{}@sha256:" + "a" * 64),
        (
            {"own": {"digest": "sha256:" + "a" * 64, "tag": "v8"}},
            "pingpong-{}:v8@sha256:" + "a" * 64,
        ),
    ],
)
def test_images_are_put_together(component: str, values: dict[str, Any], expected: str) -> None:
    rendered = render(
        {"image": values.get("image", {}), component: {"image": values.get("own", {})}}
    )
    main = container(rendered.pods()[f"Deployment pingpong-{component}"], component)
    version = loaded().metadata["appVersion"]
    assert main["image"] == expected.format(component, version=version)
    assert main["imagePullPolicy"] == "IfNotPresent"


@BOTH
def test_the_programs_variables_come_from_nowhere_else(component: str) -> None:
    spec = workload(component)["spec"]["template"]["spec"]
    assert spec["enableServiceLinks"] is False
    assert all("valueFrom" not in each for each in main_of(component)["env"])


@BOTH
def test_where_pods_run_can_be_chosen(component: str) -> None:
    chosen: dict[str, Any] = {
        "nodeSelector": {"edge": "true"},
        "tolerations": [{"key": "edge", "operator": "Exists"}],
        "affinity": {"podAffinity": {}},
        "priorityClassName": "high",
    }
    spec = workload(component, chosen)["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux", "edge": "true"}
    assert {name: spec[name] for name in chosen if name != "nodeSelector"} == {
        name: value for name, value in chosen.items() if name != "nodeSelector"
    }


@BOTH
def test_pods_are_spread_over_nodes_each_version_by_itself(component: str) -> None:
    labels = workload(component)["spec"]["selector"]["matchLabels"]
    [constraint] = workload(component)["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert constraint == {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
        "matchLabelKeys": ["pod-template-hash"],
    }


@BOTH
def test_resources_are_bounded_and_can_be_set(component: str) -> None:
    memory = {"server": "256Mi", "client": "128Mi"}[component]
    assert main_of(component)["resources"]["limits"] == {"memory": memory}
    own = {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"cpu": 2, "memory": "2Gi"}}
    assert main_of(component, {"resources": own})["resources"] == own


@BOTH
def test_the_users_own_security_contexts_win(component: str) -> None:
    values = {
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": 2000},
        "containerSecurityContext": {"readOnlyRootFilesystem": False},
    }
    context = workload(component, values)["spec"]["template"]["spec"]["securityContext"]
    assert context == {
        "runAsNonRoot": True,
        "fsGroup": 2000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert main_of(component, values)["securityContext"]["readOnlyRootFilesystem"] is False


@BOTH
def test_more_variables_follow_the_settings(component: str) -> None:
    extra = [
        {"name": "A", "value": "1"},
        {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ]
    assert main_of(component, {"extraEnv": extra})["env"][-2:] == extra


def test_a_disruption_takes_one_server_at_a_time() -> None:
    budget = render().one("PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    some = {"replicas": 3, "podDisruptionBudget": {"minAvailable": "50%"}}
    assert render({"server": some}).one("PodDisruptionBudget")["spec"]["minAvailable"] == "50%"
    for none in ({"kind": "DaemonSet"}, {"podDisruptionBudget": {"enabled": False}}):
        assert not render({"server": none}).has("PodDisruptionBudget")


def test_an_autoscaler_has_the_number_of_pods_for_itself() -> None:
    rendered = render({"server": {"autoscaling": {"enabled": True, "maxReplicas": 9}}})
    spec = rendered.one("HorizontalPodAutoscaler")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 9)
    assert "replicas" not in rendered.one("Deployment", "pingpong-server")["spec"]


def test_the_test_pings_with_what_the_client_has_and_belongs_to_no_service() -> None:
    rendered = render({"test": {"count": 7, "deadlineSeconds": 20}})
    pod = rendered.one("Pod")
    [main] = pod["spec"]["containers"]
    read = program.settings(main)
    assert (read.count, read.deadline, read.insecure) == (7, 20, False)
    assert read.ca == program.settings(main_of("client")).ca
    assert read.targets == ("https://pingpong-server.testing.svc:4433/ping",)
    assert main["image"] == main_of("client")["image"]
    assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == "test"
    assert not render({"test": {"enabled": False}}).has("Pod")


def test_servers_of_a_client_that_is_not_installed_are_not_tested() -> None:
    values: dict[str, Any] = {"client": {"enabled": False, "targets": ["https://a..b:99999"]}}
    assert cluster.problems(render(values)) == []
