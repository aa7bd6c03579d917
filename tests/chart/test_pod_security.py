"""The check of Pod Security "restricted": it finds each violation of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.chart.pod_security import violations
from tests.chart.rendering import merged, render

CONTAINER: dict[str, Any] = {
    "name": "server",
    "image": "pingpong-server",
    "ports": [{"containerPort": 8080}],
    "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
    "livenessProbe": {"httpGet": {"path": "/livez", "port": 8080}},
    "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
    },
}
POD: dict[str, Any] = {
    "metadata": {"annotations": {"a": "b"}},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [CONTAINER],
        "volumes": [{"name": "tls", "secret": {"secretName": "tls"}}],
    },
}
BAD_PODS: list[dict[str, Any]] = [
    {"hostNetwork": True},
    {"hostPID": True},
    {"hostIPC": True},
    {"volumes": [{"name": "tls", "hostPath": {"path": "/"}}]},
    {"volumes": [{"name": "tls", "nfs": {"server": "a", "path": "/"}}]},
    {"securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1"}]}},
    {"securityContext": {"runAsNonRoot": False}},
    {"securityContext": {"runAsNonRoot": None}},
    {"securityContext": {"runAsUser": 0}},
    {"securityContext": {"seccompProfile": None}},
    {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
    {"securityContext": {"seLinuxOptions": {"type": "spc_t"}}},
    {"securityContext": {"seLinuxOptions": {"user": "system_u"}}},
    {"securityContext": {"seLinuxOptions": {"role": "system_r"}}},
    {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}},
    {"securityContext": {"windowsOptions": {"hostProcess": True}}},
]
BAD_CONTAINERS: list[dict[str, Any]] = [
    {"ports": [{"containerPort": 8080, "hostPort": 8080}]},
    {"livenessProbe": {"httpGet": {"host": "10.0.0.1"}}},
    {"readinessProbe": {"tcpSocket": {"host": "10.0.0.1", "port": 1}}},
    {"startupProbe": {"httpGet": {"host": "10.0.0.1", "port": 1}}},
    {"lifecycle": {"postStart": {"httpGet": {"host": "10.0.0.1", "port": 1}}}},
    {"lifecycle": {"preStop": {"tcpSocket": {"host": "10.0.0.1", "port": 1}}}},
    {"securityContext": None},
    {"securityContext": {"privileged": True}},
    {"securityContext": {"allowPrivilegeEscalation": True}},
    {"securityContext": {"allowPrivilegeEscalation": None}},
    {"securityContext": {"capabilities": {"drop": ["NET_RAW"]}}},
    {"securityContext": {"capabilities": None}},
    {"securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE", "NET_ADMIN"]}}},
    {"securityContext": {"procMount": "Unmasked"}},
    {"securityContext": {"runAsNonRoot": False}},
    {"securityContext": {"runAsUser": 0}},
    {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
    {"securityContext": {"seLinuxOptions": {"type": "spc_t"}}},
    {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}},
    {"securityContext": {"windowsOptions": {"hostProcess": True}}},
]


def test_a_pod_that_keeps_to_it_has_no_violation() -> None:
    assert violations(POD) == []


@pytest.mark.parametrize("spec", BAD_PODS, ids=str)
def test_finds_what_a_pod_must_not_have(spec: dict[str, Any]) -> None:
    assert violations(merged(POD, {"spec": spec}))


@pytest.mark.parametrize("change", BAD_CONTAINERS, ids=str)
@pytest.mark.parametrize("kind", ["containers", "initContainers", "ephemeralContainers"])
def test_finds_what_a_container_must_not_have(change: dict[str, Any], kind: str) -> None:
    pod = copy.deepcopy(POD)
    pod["spec"][kind] = [merged(CONTAINER, change)]
    found = violations(pod)
    assert found
    assert all(each.startswith("server: ") for each in found)


def test_finds_an_annotation_that_turns_app_armor_off() -> None:
    name = "container.apparmor.security.beta.kubernetes.io/server"
    pod = merged(POD, {"metadata": {"annotations": {name: "unconfined"}}})
    assert violations(pod) == [f"annotation {name} is 'unconfined'"]


def test_a_container_may_say_for_itself_what_the_pod_does_not() -> None:
    context = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = copy.deepcopy(POD)
    del pod["spec"]["securityContext"]
    pod["spec"]["containers"] = [merged(CONTAINER, {"securityContext": context})]
    assert violations(pod) == []


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet"])
def test_every_pod_of_the_chart_keeps_to_it(kind: str) -> None:
    pods = render({"server": {"kind": kind}, "client": {"kind": kind}}).pods()
    assert sorted(pods) == [
        "CronJob pingpong-renewal",
        *sorted([f"{kind} pingpong-client", f"{kind} pingpong-server", "Job pingpong-certificate"]),
        "Pod pingpong-test",
    ]
    for template in pods.values():
        assert violations(template) == []


def test_pods_write_nowhere_and_run_as_a_user_who_is_not_root_by_number() -> None:
    for template in render().pods().values():
        assert template["spec"]["securityContext"]["runAsUser"] == 65532
        for container in template["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
