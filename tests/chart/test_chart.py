"""The chart as a whole: what it says of itself, what is in its package, what Helm says of it."""

from __future__ import annotations

import re
import shlex
import tarfile
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml

import pingpong
from pingpong.settings import PingSettings
from tests.chart import program
from tests.chart.rendering import CHART, container, loaded, render
from tools.chart_tables import BEGIN, END, table


def test_its_versions_are_the_programs() -> None:
    metadata = loaded().metadata
    assert metadata["version"] == metadata["appVersion"] == pingpong.__version__


def test_it_is_an_application_without_other_charts() -> None:
    metadata = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (metadata["apiVersion"], metadata["name"]) == ("v2", "pingpong")
    assert metadata["type"] == "application"
    assert "dependencies" not in metadata
    # Helm without a version of its own takes every cluster for 1.20 where it asks none: the chart's
    # templates check it instead.
    assert "kubeVersion" not in metadata


@pytest.mark.parametrize("kube_version", ["v1.30.0", "v1.37.0", None])
def test_helm_lint_has_nothing_to_say(kube_version: str | None) -> None:
    report = helm.lint(CHART, {}, strict=True, kube_version=kube_version)
    assert report["total_charts_linted"] == 1
    assert [each for each in report["messages"] if each["severity"] > 1] == []
    assert report["errors"] == []


def test_its_package_has_what_is_needed_and_nothing_else(tmp_path: Path) -> None:
    with tarfile.open(helm.package(CHART, destination=tmp_path)) as archive:
        names = [name.removeprefix("pingpong/") for name in archive.getnames()]
    allowed = (
        r"Chart\.yaml|values\.yaml|values\.schema\.json|README\.md|RUNBOOK\.md|\.helmignore"
        r"|templates/(\w+/)?[\w-]+\.(yaml|tpl|txt)|files/[\w-]+\.(yaml|json)|examples/[\w-]+\.yaml"
    )
    assert [name for name in names if not re.fullmatch(allowed, name)] == []
    there = {str(path.relative_to(CHART)) for path in CHART.rglob("*") if path.is_file()}
    assert set(names) == there
    assert {"Chart.yaml", "values.yaml", "values.schema.json", "README.md"} <= set(names)


def test_what_editors_leave_behind_is_not_packaged(tmp_path: Path) -> None:
    ignored = (CHART / ".helmignore").read_text().split()
    assert {"*.orig", "*.swp", "*.tmp", "*~", ".git/"} <= set(ignored)


def test_the_package_renders_as_the_folder_does(tmp_path: Path) -> None:
    with helm.Chart.load(helm.package(CHART, destination=tmp_path)) as packaged:
        assert packaged.render(name="a") == loaded().render(name="a")


def test_the_readme_has_the_table_of_values() -> None:
    readme = (CHART / "README.md").read_text()
    found = re.search(rf"{BEGIN}\n(.*?){END}", readme, re.DOTALL)
    assert found is not None
    assert found[1].strip() == table().strip(), "run `make format`"


def test_the_readme_speaks_of_every_example() -> None:
    readme = (CHART / "README.md").read_text()
    for path in (CHART / "examples").glob("*.yaml"):
        assert path.name in readme


def test_files_are_told_of_their_end_of_line() -> None:
    texts = [path for path in CHART.rglob("*") if path.is_file()]
    assert [path.name for path in texts if not path.read_bytes().endswith(b"\n")] == []


NOTES: list[dict[str, Any]] = [
    {},
    {"client": {"enabled": False}},
    {"server": {"enabled": False}, "client": {"targets": ["https://a.example/ping"]}},
    {"server": {"kind": "DaemonSet"}, "client": {"kind": "DaemonSet"}},
    {"server": {"externalService": {"enabled": True}}},
    {"server": {"externalService": {"enabled": True, "type": "LoadBalancer"}}},
    {"server": {"tls": {"mode": "secret", "secretName": "mine"}}},
    {
        "server": {"auth": {"mode": "kubernetes"}},
        "client": {"auth": {"mode": "serviceAccount"}, "discovery": "endpointslice"},
        "rbac": {"create": False},
    },
]


@pytest.mark.parametrize("values", NOTES, ids=str)
def test_the_notes_give_commands_that_name_what_is_there(values: dict[str, Any]) -> None:
    rendered = render(values, release="net", namespace="probes")
    commands = [line.strip() for line in rendered.notes.splitlines() if line.startswith("  ")]
    assert any(line.startswith("kubectl -n probes logs ") for line in commands)
    kinds = {"deploy": "Deployment", "ds": "DaemonSet", "service": "Service", "secret": "Secret"}
    for command in commands:
        assert "<no value>" not in command
        assert "%!" not in command
        if command.startswith(("kubectl -n", "helm -n")):
            assert command.split()[2] == "probes"
        for kind, name in re.findall(r"\b(deploy|ds|service|secret)[/ ]([a-z][a-z0-9-]+)", command):
            assert rendered.has(kinds[kind], name) or name == "mine", command


def test_the_notes_commands_are_read_by_the_program_in_the_clients_pod() -> None:
    rendered = render()
    [command] = [line for line in rendered.notes.splitlines() if " exec deploy/" in line]
    words = shlex.split(command.partition(" -- ")[2])
    assert words[:2] == ["pingpong", "ping"]
    environ = program.variables(container(rendered.pods()["Deployment pingpong-client"], "client"))
    read = PingSettings.parse(words[2:], environ)
    assert (read.insecure, str(read.ca)) == (False, "/etc/pingpong/ca/ca.crt")
    assert read.count == 5


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"server": {"tls": {"mode": "selfSigned"}}},
            "WARNING: each server pod has a self-signed certificate, which no client can verify, so that",
        ),
        (
            {"client": {"tls": {"insecure": True}}},
            "WARNING: the client trusts any certificate",
        ),
        ({}, "`helm uninstall` deletes them"),
        ({}, "`kubectl port-forward` carries no UDP"),
        (
            {
                "server": {"tls": {"mode": "secret", "secretName": "mine"}},
                "client": {"tls": {"insecure": True}},
            },
            "WARNING: the client trusts any certificate",
        ),
        (
            {"server": {"externalService": {"enabled": True}}},
            "With server.drain.stayReady=true they can leave in order",
        ),
    ],
)
def test_the_notes_tell_of_what_may_surprise(values: dict[str, Any], said: str) -> None:
    assert said in render(values).notes


@pytest.mark.parametrize("tls", [{}, {"mode": "secret", "secretName": "mine"}], ids=str)
def test_the_notes_do_not_warn_without_need(tls: dict[str, Any]) -> None:
    assert "WARNING" not in render({"server": {"tls": tls}}).notes


@pytest.mark.parametrize("upgrade", [False, True])
def test_installs_and_upgrades_render_alike(upgrade: bool) -> None:
    assert render(upgrade=upgrade).objects == render().objects


def test_it_renders_the_same_each_time_to_the_letter() -> None:
    # What asks the cluster, or draws random numbers, would make GitOps apply it all the time.
    assert loaded().render(name="a") == loaded().render(name="a")
    for path in (CHART / "templates").rglob("*"):
        text = path.read_text() if path.is_file() else ""
        for expression in re.findall(r"\{\{.*?\}\}", text, re.DOTALL):
            found = re.search(r"\b(lookup|gen[A-Z]\w*|rand[A-Z]\w*|uuidv4|now)\b", expression)
            assert found is None or "is now called" in expression, (path, expression)
