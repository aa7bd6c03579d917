"""The harness of these tests: that it renders as Helm does, and that its checks find mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate  # type: ignore[import-untyped]
import pytest

from tests.chart import cluster, kubernetes_schemas, object_rules, release_rules
from tests.chart.rendering import Object, Refused, Rendered, documents, merged, render

BROUGHT = frozenset({"Secret mine", "Secret pull"})
API_VERSIONS = [f"monitoring.coreos.com/v1/{kind}Monitor" for kind in ("Pod", "Service")]
FULL: dict[str, Any] = {
    "image": {"pullSecrets": ["pull"]},
    "server": {
        "autoscaling": {"enabled": True},
        "externalService": {"enabled": True, "type": "LoadBalancer"},
        "tls": {"mode": "certManager", "certManager": {"issuerRef": {"name": "ca"}}},
        "auth": {"mode": "kubernetes"},
    },
    "client": {"auth": {"mode": "serviceAccount"}, "discovery": "endpointslice"},
    "networkPolicy": {"enabled": True},
    "monitoring": {"podMonitor": {"enabled": True}},
}


def full() -> Rendered:
    """A release with most of what the chart can make."""
    return render(FULL, api_versions=API_VERSIONS)


# ------------------------------------------------------------------ rendering


@pytest.fixture
def chart(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a chart of one template."""

    def make(template: str) -> Path:
        (tmp_path / "templates").mkdir()
        (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: tiny\nversion: 0.1.0\n")
        (tmp_path / "values.yaml").write_text("a: {}\n")
        (tmp_path / "values.schema.json").write_text(json.dumps({"required": ["a"]}))
        (tmp_path / "templates" / "a.yaml").write_text(template)
        return tmp_path

    return make


def test_a_sentence_of_the_chart_is_a_refusal(chart: Callable[[str], Path]) -> None:
    with pytest.raises(Refused) as refused:
        render(chart=chart('{{ fail "\\nset a: or b\\nset c\\n" }}'))
    assert refused.value.sentences == ["set a: or b", "set c"]
    assert not refused.value.by_schema


def test_a_sentence_of_the_schema_is_a_refusal(chart: Callable[[str], Path]) -> None:
    with pytest.raises(Refused, match="missing property 'a'") as refused:
        render({"a": None}, chart=chart(""))
    assert refused.value.by_schema


@pytest.mark.parametrize(
    "template",
    ["{{ .Values.none.b }}", '{{ include "none" . }}', '{{ .Values.a | int64 | trunc "a" }}', "{{"],
)
def test_a_mistake_of_a_template_is_no_refusal(chart: Callable[[str], Path], template: str) -> None:
    with pytest.raises((helm.HelmRenderError, helm.HelmChartLoadError)):
        render(chart=chart(template))


def test_a_key_that_is_there_twice_is_found(chart: Callable[[str], Path]) -> None:
    twice = "kind: A\nmetadata:\n  labels: {a: b}\n  labels: {c: d}\n"
    with pytest.raises(ValueError, match=r"a\.yaml: \['labels'\] twice in one mapping"):
        render(chart=chart(twice))


def test_what_is_asked_of_the_cluster_is_answered(chart: Callable[[str], Path]) -> None:
    template = """kind: A
version: {{ .Capabilities.KubeVersion.Version }}
has: {{ .Capabilities.APIVersions.Has "a.b/v1/C" }}
upgrade: {{ .Release.IsUpgrade }}
of: {{ .Release.Namespace }}/{{ .Release.Name }}
metadata: {name: a}"""
    options: dict[str, Any] = {"release": "r", "namespace": "n", "kube_version": "1.31.2"}
    [thing] = render(
        chart=chart(template), api_versions=["a.b/v1/C"], upgrade=True, **options
    ).objects
    assert thing == {
        "kind": "A",
        "version": "v1.31.2",
        "has": True,
        "upgrade": True,
        "of": "n/r",
        "metadata": {"name": "a"},
    }


def test_yaml_is_read_as_kubernetes_reads_it() -> None:
    text = "# a\n---\na: 0o10\nb: 1e3\nc: 1:30\n---\n\n---\nd: |\n  x\n  --- y\n"
    assert list(documents(text)) == [{"a": 8, "b": 1000, "c": "1:30"}, {"d": "x\n--- y\n"}]


def test_later_values_win_as_with_helm() -> None:
    assert merged({"a": {"b": 1, "c": [1]}}, {"a": {"c": [2]}, "d": None}) == {
        "a": {"b": 1, "c": [2]},
        "d": None,
    }


# ------------------------------------------------------------------ schemas


@pytest.mark.parametrize("version", kubernetes_schemas.VERSIONS)
def test_what_the_schemas_take_kubernetes_validate_takes_as_well(version: str) -> None:
    for thing in full().objects:
        if thing["kind"] not in ("Certificate", "PodMonitor"):
            assert kubernetes_schemas.problems(thing, version) == []
            kubernetes_validate.validate(thing, version, strict=True)


@pytest.mark.parametrize("thing", full().objects, ids=lambda thing: thing["kind"])
def test_every_kind_has_a_schema_that_knows_what_is_in_it(thing: Object) -> None:
    for wrong in (
        merged(thing, {"nonsense": 1}),
        merged(thing, {"metadata": {"nonsense": 1}}),
        merged(thing, {"metadata": {"labels": {"a": 1}}}),
        merged(thing, {"metadata": {"annotations": None}}),
    ):
        assert kubernetes_schemas.problems(wrong)
    if "spec" in thing:
        assert kubernetes_schemas.problems(merged(thing, {"spec": {"nonsense": 1}}))


# ------------------------------------------------------------------ rules

SERVER = ("Deployment", "pingpong-server")
POD = ("spec", "template", "spec")
MAIN = (*POD, "containers", 0)
WRONG: list[tuple[tuple[str, str], tuple[Any, ...], Any, str]] = [
    # which object, what of it is changed, to what, and what is to be found
    (SERVER, ("metadata", "name"), "a_b", "is no name"),
    (SERVER, ("metadata", "name"), "a" * 254, "is no name"),
    (SERVER, ("metadata", "labels", "a"), "b c", "cannot be 'b c'"),
    (SERVER, ("metadata", "labels", "a/b/c"), "d", "is no name for a label"),
    (SERVER, ("metadata", "labels", "a"), "b" * 64, "cannot be"),
    (SERVER, ("spec", "selector", "matchLabels", "a"), "b", "its pods have"),
    (SERVER, ("spec", "strategy", "rollingUpdate", "maxSurge"), 0, "can never be updated"),
    (SERVER, ("spec", "strategy", "type"), "Recreate", "rollingUpdate, but"),
    (SERVER, ("spec", "replicas"), 1, "which the autoscaler sets as well"),
    (SERVER, (*POD, "restartPolicy"), "Never", "must always be restarted"),
    (SERVER, (*POD, "volumes", 0, "name"), "other", "mounted but not there"),
    (SERVER, (*POD, "serviceAccountName"), "other", "ServiceAccount other, which is not there"),
    (SERVER, (*POD, "imagePullSecrets"), [{"name": "other"}], "needs Secret other"),
    (SERVER, (*POD, "terminationGracePeriodSeconds"), 30, "is killed after 30 s, but needs 30"),
    (SERVER, (*POD, "terminationGracePeriodSeconds"), 4, "preStop sleeps 5 s, of 4 s"),
    (SERVER, (*POD, "hostNetwork"), True, "hostNetwork is set"),
    (SERVER, (*POD, "volumes", 0, "secret", "secretName"), "other", "needs Secret other"),
    (SERVER, (*POD, "volumes", 0, "secret", "items", 0, "path"), "a", "tls.crt is on no volume"),
    (SERVER, (*MAIN, "name"), "a.b", "is no name for a volume or a container"),
    (SERVER, (*MAIN, "image"), "registry/:1 2", "is no image"),
    (SERVER, (*MAIN, "env", 0, "name"), "PINGPONG_BIND_PROT", "is not a setting"),
    (SERVER, (*MAIN, "env", 0, "name"), "A=B", "is no name for a variable"),
    (SERVER, (*MAIN, "env", 0, "value"), "high", "whole number"),
    (SERVER, (*MAIN, "env", 0), {"name": "PINGPONG_AUTH", "value": "none"}, "is there 2 times"),
    (SERVER, (*MAIN, "ports", 1, "containerPort"), 8081, "its ports are"),
    (SERVER, (*MAIN, "ports", 1, "containerPort"), 0, "0 is no port"),
    (SERVER, (*MAIN, "ports", 1, "name"), "a-name-of-16-signs", "is no name for a port"),
    (SERVER, (*MAIN, "readinessProbe", "httpGet", "port"), "other", "asks at port other"),
    (SERVER, (*MAIN, "livenessProbe", "successThreshold"), 2, "successThreshold of 1"),
    (SERVER, (*MAIN, "livenessProbe", "periodSeconds"), 0, "has periodSeconds 0"),
    (SERVER, (*MAIN, "lifecycle", "preStop", "sleep", "seconds"), 0, "preStop sleeps 0 s"),
    (SERVER, (*MAIN, "resources", "requests", "memory"), "1Gi", "more than its limit"),
    (SERVER, (*MAIN, "resources", "limits", "memory"), "64MB", "cannot be '64MB'"),
    (SERVER, (*MAIN, "volumeMounts", 0, "mountPath"), "/tls", "is on no volume"),
    (
        ("Deployment", "pingpong-client"),
        (*POD, "volumes", 1, "projected", "sources", 0, "serviceAccountToken", "expirationSeconds"),
        599,
        "cannot be valid for 599 s",
    ),
    (("Service", "pingpong-server"), ("metadata", "name"), "1st", "is no name for a Service"),
    (("Service", "pingpong-server"), ("metadata", "name"), "pingpong-server-external", "2 times"),
    (
        ("Service", "pingpong-server"),
        ("spec", "selector"),
        {"app.kubernetes.io/name": "pingpong"},
        "selects ['Deployment pingpong-client', 'Deployment pingpong-server', 'Pod",
    ),
    (("Service", "pingpong-server"), ("spec", "ports", 0, "targetPort"), "x", "leads to port"),
    (("Service", "pingpong-server"), ("spec", "ports", 0, "protocol"), "TCP", "leads to port"),
    (("Service", "pingpong-server"), ("spec", "ports", 0, "nodePort"), 30000, "a nodePort, but"),
    (("Service", "pingpong-server"), ("spec", "externalTrafficPolicy"), "Local", "but it is a"),
    (("Service", "pingpong-server"), ("spec", "loadBalancerClass"), "a", "but it is a"),
    (("Service", "pingpong-server"), ("spec", "ipFamilies"), ["IPv4", "IPv6"], "SingleStack"),
    (
        ("Service", "pingpong-server-external"),
        ("spec", "ports", 0, "nodePort"),
        70_000,
        "nodePort cannot be 70000",
    ),
    (
        ("Service", "pingpong-server-external"),
        ("spec", "loadBalancerSourceRanges"),
        ["10.0.0.0/33"],
        "is no network",
    ),
    (("PodDisruptionBudget", "pingpong-server"), ("spec", "minAvailable"), 1, "not exactly one"),
    (
        ("PodDisruptionBudget", "pingpong-server"),
        ("spec", "selector", "matchLabels", "app.kubernetes.io/component"),
        "test",
        "selects ['Pod pingpong-test']",
    ),
    (("HorizontalPodAutoscaler", "pingpong-server"), ("spec", "minReplicas"), 99, "is above"),
    (
        ("HorizontalPodAutoscaler", "pingpong-server"),
        ("spec", "scaleTargetRef", "name"),
        "other",
        "which is not there",
    ),
    (
        ("NetworkPolicy", "pingpong-client"),
        ("spec", "podSelector", "matchLabels", "a"),
        "b",
        "selects []",
    ),
    (("PodMonitor", "pingpong"), ("spec", "selector", "matchLabels", "a"), "b", "selects []"),
    (("Pod", "pingpong-test"), ("metadata", "annotations", "helm.sh/hook"), "x", "is no hook"),
    (("Pod", "pingpong-test"), ("spec", "restartPolicy"), "OnFailure", "would be restarted"),
    (("Pod", "pingpong-test"), ("spec", "containers", 0, "args", 1), "--count=0", "--count 0"),
    (
        ("RoleBinding", "pingpong-client:endpointslices"),
        ("roleRef", "name"),
        "other",
        "gives Role other, which is not there",
    ),
    (
        ("RoleBinding", "pingpong-client:endpointslices"),
        ("subjects", 0, "name"),
        "other",
        "which no pod runs as",
    ),
    (
        ("RoleBinding", "pingpong-client:endpointslices"),
        ("subjects", 0, "namespace"),
        "",
        "of no namespace",
    ),
    (
        ("Role", "pingpong-client:endpointslices"),
        ("metadata", "namespace"),
        "other",
        "is given to nobody",
    ),
]


def test_a_release_without_mistakes_has_none_found() -> None:
    assert cluster.problems(full(), brought=BROUGHT) == []


@pytest.mark.parametrize(("which", "path", "value", "said"), WRONG, ids=str)
def test_finds_what_is_wrong(
    which: tuple[str, str], path: tuple[Any, ...], value: Any, said: str
) -> None:
    rendered = full()
    place: Any = rendered.one(*which)
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    found = [
        *(each for thing in rendered.objects for each in object_rules.problems(thing)),
        *release_rules.problems(rendered, BROUGHT),
        *cluster.problems(rendered, "1.34", brought=BROUGHT),
    ]
    assert any(said in each for each in found), found


JOB = ("Job", "pingpong-certificate")
CRON_JOB = ("CronJob", "pingpong-renewal")
HOOK = ("metadata", "annotations")
WRONG_JOBS: list[tuple[tuple[str, str], tuple[Any, ...], Any, str]] = [
    (JOB, ("metadata", "name"), "a.b", "is no name for a Job"),
    (JOB, (*POD, "restartPolicy"), "Always", "must not always be restarted"),
    (JOB, (*POD, "serviceAccountName"), "other", "ServiceAccount other, which is not there"),
    (JOB, (*MAIN, "args", 0), "serve", "no such option"),
    (JOB, (*MAIN, "args", 2), "--certificate-secret=other", "needs Secret pingpong-certificate"),
    (JOB, (*MAIN, "command"), ["sh", "-c"], "entry point"),
    (JOB, (*HOOK, "helm.sh/hook"), "pre-instal", "hooks that Helm does not know"),
    (JOB, (*HOOK, "helm.sh/hook-delete-policy"), "hook-succeeded", "there already the second time"),
    (JOB, (*HOOK, "helm.sh/hook-weight"), "-1", "ServiceAccount pingpong-certificate is not there"),
    (CRON_JOB, ("metadata", "name"), "a" * 53, "52 characters at most"),
    (CRON_JOB, ("spec", "jobTemplate", *POD, "restartPolicy"), "Always", "must not always be"),
    (
        ("RoleBinding", "pingpong-certificate"),
        (*HOOK, "helm.sh/hook"),
        "pre-install",
        "RoleBinding pingpong-certificate is not there when Job",
    ),
    (("Role", "pingpong-certificate"), (*HOOK, "helm.sh/hook"), "", "Role pingpong-certificate is"),
]


@pytest.mark.parametrize(("which", "path", "value", "said"), WRONG_JOBS, ids=str)
def test_finds_what_is_wrong_with_what_keeps_the_certificate(
    which: tuple[str, str], path: tuple[Any, ...], value: Any, said: str
) -> None:
    rendered = render()
    place: Any = rendered.one(*which)
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    found = [
        *(each for thing in rendered.objects for each in object_rules.problems(thing)),
        *cluster.problems(rendered, "1.34"),
    ]
    assert any(said in each for each in found), found


def test_a_service_monitor_that_finds_no_service_is_found() -> None:
    values = {"monitoring": {"serviceMonitor": {"enabled": True}}}
    rendered = render(values, api_versions=API_VERSIONS)
    assert release_rules.problems(rendered) == []
    rendered.one("ServiceMonitor")["spec"]["endpoints"][0]["port"] = "other"
    assert release_rules.problems(rendered)
