"""What skaffold has helm install: the images that it built, with values that the chart knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import helm_python as helm
import pytest
import yaml

from tests.skaffold.builds import DIGITS, Build, kept_local, merge, pushed, set_arguments, values
from tests.skaffold.config import ROOT, read_config, release, with_profiles
from tests.skaffold.test_config import every_combination

Manifest = dict[str, Any]

CONFIG = read_config()
ARTIFACTS = [artifact["image"] for artifact in CONFIG["build"]["artifacts"]]
PREFIX = CONFIG["build"]["tagPolicy"]["gitCommit"]["prefix"]
LOCAL = [kept_local(artifact) for artifact in ARTIFACTS]
PUSHED = [pushed(artifact, PREFIX) for artifact in ARTIFACTS]

built = pytest.mark.parametrize("builds", [LOCAL, PUSHED], ids=["local", "pushed"])


@pytest.fixture(scope="module")
def chart() -> Iterator[helm.Chart]:
    with helm.Chart.load(ROOT / release(CONFIG)["chartPath"]) as loaded:
        yield loaded


def render(chart: helm.Chart, set_values: dict[str, Any]) -> list[Manifest]:
    chart.validate_schema(set_values)
    name = release(CONFIG)["name"]
    rendered = chart.render(set_values, name=name, namespace="default")
    texts = (text for path, text in sorted(rendered.items()) if path.endswith(".yaml"))
    return [manifest for text in texts for manifest in yaml.safe_load_all(text) if manifest]


def installed(
    chart: helm.Chart, names: tuple[str, ...] = (), builds: list[Build] = LOCAL
) -> list[Manifest]:
    return render(chart, values(release(with_profiles(CONFIG, names)), builds))


def the(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    [found] = [
        each for each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, name)
    ]
    return found


def workloads(manifests: list[Manifest]) -> list[Manifest]:
    return [each for each in manifests if each["kind"] in ("Deployment", "DaemonSet")]


def pod(workload: Manifest) -> Manifest:
    found: Manifest = workload["spec"]["template"]["spec"]
    return found


def container(workload: Manifest) -> Manifest:
    [found] = pod(workload)["containers"]
    assert isinstance(found, dict)
    return found


def unknown(given: Any, default: Any, path: str = "") -> Iterator[str]:
    """The values that the chart has no default for; below an empty mapping any may be given."""
    if not isinstance(given, dict) or default == {}:
        return
    for key, inner in given.items():
        if not isinstance(default, dict) or key not in default:
            yield f"{path}{key}"
        else:
            yield from unknown(inner, default[key], f"{path}{key}.")


@built
@every_combination
def test_the_pods_run_what_was_built(
    names: tuple[str, ...], builds: list[Build], chart: helm.Chart
) -> None:
    images = [container(each)["image"] for each in workloads(installed(chart, names, builds))]
    assert sorted(images) == sorted(build.reference for build in builds)


@every_combination
def test_the_chart_knows_every_value(names: tuple[str, ...], chart: helm.Chart) -> None:
    config = release(with_profiles(CONFIG, names))
    given: dict[str, Any] = {}
    for path in config["valuesFiles"][1:]:
        given = merge(given, yaml.safe_load((ROOT / path).read_text()))
    for argument in set_arguments(config, LOCAL):
        given = merge(given, helm.parse_set_string(argument))
    assert given
    # Settings are not in the defaults; the schema knows them.
    for component in ("server", "client"):
        given[component].pop("settings", None)
    assert list(unknown(given, chart.values)) == []


def test_a_value_that_the_chart_does_not_know_is_found(chart: helm.Chart) -> None:
    wrong = {"server": {"image": {"tags": ""}, "replica": 1}, "client": {"podLabels": {"a": "b"}}}
    assert list(unknown(wrong, chart.values)) == ["server.image.tags", "server.replica"]


@built
def test_without_a_profile_nothing_but_the_images_is_other_than_the_defaults(
    builds: list[Build], chart: helm.Chart
) -> None:
    images: dict[str, Any] = {}
    for argument in set_arguments(release(CONFIG), builds):
        images = merge(images, helm.parse_set_string(argument))
    assert {key for value in images.values() for key in value} == {"image"}
    assert installed(chart, builds=builds) == render(chart, merge(chart.values, images))


def test_a_tag_of_digits_alone_is_none_that_skaffold_makes() -> None:
    # What the prefix of the tag policy is for.
    assert helm.parse_set_string(f"tag={DIGITS}") == {"tag": int(DIGITS)}
    [argument] = [
        each
        for each in set_arguments(release(CONFIG), PUSHED)
        if each.startswith("server.image.tag=")
    ]
    assert helm.parse_set_string(argument) == {"server": {"image": {"tag": PREFIX + DIGITS}}}


def test_the_chart_has_no_dependencies_to_build(chart: helm.Chart) -> None:
    assert release(CONFIG)["skipBuildDependencies"] is True
    assert chart.dependencies == []


@every_combination
def test_what_is_forwarded_is_a_tcp_port_of_a_pod(
    names: tuple[str, ...], chart: helm.Chart
) -> None:
    manifests = installed(chart, names)
    forwards = with_profiles(CONFIG, names)["portForward"]
    assert len({forward["localPort"] for forward in forwards}) == len(workloads(manifests)) == 2
    for forward in forwards:
        [workload] = [
            each
            for each in workloads(manifests)
            if each["metadata"]["name"] == forward["resourceName"]
        ]
        assert forward["resourceType"] == workload["kind"].lower()
        [port] = [
            each
            for each in container(workload)["ports"]
            if each["containerPort"] == forward["port"]
        ]
        assert (port["name"], port.get("protocol", "TCP")) == ("admin", "TCP")


@every_combination
def test_only_dev_lets_a_container_write_its_files(
    names: tuple[str, ...], chart: helm.Chart
) -> None:
    for workload in workloads(installed(chart, names)):
        security = container(workload)["securityContext"]
        assert security.pop("readOnlyRootFilesystem") is ("dev" not in names)
        assert security == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert pod(workload)["securityContext"]["runAsNonRoot"] is True


def test_dev_waits_for_hours_for_a_program_to_be_mended(chart: helm.Chart) -> None:
    for workload in workloads(installed(chart, ("dev",))):
        waits = {
            name: container(workload)[name]["periodSeconds"]
            * container(workload)[name]["failureThreshold"]
            for name in ("startupProbe", "livenessProbe")
        }
        assert waits["startupProbe"] >= 2 * 3600
        assert waits["livenessProbe"] >= 24 * 3600


def test_dev_replaces_pods_at_once(chart: helm.Chart) -> None:
    for workload in workloads(installed(chart, ("dev",))):
        assert "lifecycle" not in container(workload)
        assert workload["spec"]["minReadySeconds"] == 0
        assert pod(workload)["terminationGracePeriodSeconds"] <= 5


def test_dev_logs_for_people(chart: helm.Chart) -> None:
    for workload in workloads(installed(chart, ("dev",))):
        assert {"name": "PINGPONG_LOG_FORMAT", "value": "console"} in container(workload)["env"]


def test_on_kind_the_server_is_at_a_port_of_each_node(chart: helm.Chart) -> None:
    service = the(installed(chart, ("kind",)), "Service", "pingpong-server-external")
    assert service["spec"]["type"] == "NodePort"
    [port] = service["spec"]["ports"]
    assert (port["protocol"], port["nodePort"]) == ("UDP", 30443)
    # The comment says so as well.
    assert "UDP port 30443" in (ROOT / "charts/pingpong/examples/kind.yaml").read_text()


def test_in_a_mesh_every_node_has_a_server_and_a_client(chart: helm.Chart) -> None:
    meshed = workloads(installed(chart, ("mesh",)))
    assert sorted((each["kind"], each["metadata"]["name"]) for each in meshed) == [
        ("DaemonSet", "pingpong-client"),
        ("DaemonSet", "pingpong-server"),
    ]
    for workload in meshed:
        assert {"operator": "Exists"} in pod(workload)["tolerations"]
