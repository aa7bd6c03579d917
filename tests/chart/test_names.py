"""Names and labels: they fit, whatever the release is called, and nothing takes them for numbers."""

from __future__ import annotations

from typing import Any

import helm_python as helm
import pytest

from tests.chart import cluster
from tests.chart.rendering import Refused, render

WORDS = ["123", "1e3", "0x10", "true", "null", "yes", "on", "1-2", "0o7", "2026-11-22"]
"""What YAML takes for something else than a text."""


def prefixes(**options: Any) -> set[str]:
    """What the names of the objects begin with, before their own ends."""
    names = {each["metadata"]["name"] for each in render(**options).objects}
    for end in ("-server", "-client", "-test", "-certificate", "-authority", "-renewal"):
        names = {name.removesuffix(end) for name in names}
    return names


@pytest.mark.parametrize(
    ("release", "values", "expected"),
    [
        ("pingpong", {}, "pingpong"),
        ("my-pingpong-2", {}, "my-pingpong-2"),
        ("net", {}, "net-pingpong"),
        ("net.v2", {}, "net-v2-pingpong"),
        ("net", {"nameOverride": "pp"}, "net-pp"),
        ("net", {"nameOverride": "net"}, "net"),
        ("net", {"fullnameOverride": "pp"}, "pp"),
        ("1st", {"fullnameOverride": "pp"}, "pp"),
    ],
)
def test_are_made_of_the_release_and_the_chart(
    release: str, values: dict[str, Any], expected: str
) -> None:
    assert prefixes(values=values, release=release) == {expected}


@pytest.mark.parametrize("release", ["a" * 53, "a" * 46 + "-" + "b" * 6, "a" * 37 + "-" * 9 + "b"])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"nameOverride": "a" * 30},
        {"server": {"externalService": {"enabled": True}}},
        {"monitoring": {"serviceMonitor": {"enabled": True}}},
        {"networkPolicy": {"enabled": True}, "monitoring": {"dashboard": {"enabled": True}}},
    ],
    ids=str,
)
def test_of_long_releases_fit(release: str, values: dict[str, Any]) -> None:
    helm.validate_release_name(release)
    rendered = render(
        values, release=release, api_versions=["monitoring.coreos.com/v1/ServiceMonitor"]
    )
    assert cluster.problems(rendered, "1.30") == []
    assert all("--" not in name for name in prefixes(release=release) if "--" not in release)


def test_the_longest_of_the_users_own_fits() -> None:
    values = {"fullnameOverride": "a" * 47, "server": {"externalService": {"enabled": True}}}
    rendered = render(values)
    assert cluster.problems(rendered, "1.30") == []
    assert max(len(each["metadata"]["name"]) for each in rendered.objects) == 63


@pytest.mark.parametrize("release", ["1st", "0", "9.pingpong"])
def test_a_release_that_no_service_could_be_called_by_is_refused(release: str) -> None:
    helm.validate_release_name(release)
    with pytest.raises(Refused, match=r"must begin with a letter.*fullnameOverride"):
        render(release=release)


@pytest.mark.parametrize("word", [word for word in WORDS if word != "null"])
def test_a_namespace_is_a_text(word: str) -> None:
    rendered = render(namespace=word)
    assert cluster.problems(rendered, "1.34") == []
    assert {each["metadata"]["namespace"] for each in rendered.objects} == {word}


@pytest.mark.parametrize("word", WORDS)
def test_every_text_stays_one(word: str) -> None:
    values: dict[str, Any] = {
        "nameOverride": word,
        "commonLabels": {"common": word},
        "image": {"registry": word, "tag": word, "pullSecrets": [word]},
        "server": {
            "tls": {"mode": "secret", "secretName": word},
            "auth": {"mode": "token", "tokenSecret": {"name": word, "key": word}},
            "service": {"annotations": {"a": word}},
            "podAnnotations": {"a": word},
            "podLabels": {"a": word},
            "nodeSelector": {"a": word},
            "priorityClassName": word,
            "extraEnv": [{"name": "A", "value": word}],
            "serviceAccount": {"name": f"{word}-s", "annotations": {"a": word}},
        },
        "client": {
            "tls": {"caSecret": {"name": word, "key": word}},
            "auth": {"mode": "secret", "tokenSecret": {"name": word, "key": word}},
            "serviceAccount": {"create": False, "name": word},
        },
    }
    rendered = render(values)
    brought = frozenset({f"Secret {word}", f"ServiceAccount {word}"})
    assert cluster.problems(rendered, "1.34", brought=brought) == []
    server = rendered.pods()[_server(rendered)]
    assert server["metadata"]["labels"]["a"] == word
    assert server["metadata"]["annotations"]["a"] == word
    assert server["spec"]["priorityClassName"] == word
    assert server["spec"]["containers"][0]["image"] == f"{word}/pingpong-server:{word}"


def _server(rendered: Any) -> str:
    [place] = [place for place in rendered.pods() if place.endswith("-server")]
    return str(place)


@pytest.mark.parametrize(
    ("tag", "expected"), [(2026, "2026"), (1000000, "1000000"), ("1.10", "1.10"), ("1e6", "1e6")]
)
def test_a_tag_of_digits_stays_as_it_is(tag: object, expected: str) -> None:
    template = render({"image": {"tag": tag}}).pods()["Deployment pingpong-server"]
    assert template["spec"]["containers"][0]["image"] == f"pingpong-server:{expected}"


def test_labels_say_what_belongs_together() -> None:
    rendered = render({"commonLabels": {"team": "net"}}, release="net")
    for each in rendered.objects:
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "pingpong"
        assert labels["app.kubernetes.io/instance"] == "net"
        assert labels["app.kubernetes.io/component"] in ("server", "client", "test", "certificate")
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["app.kubernetes.io/part-of"] == "pingpong"
        assert labels["helm.sh/chart"].startswith("pingpong-")
        assert labels["team"] == "net"


@pytest.mark.parametrize("component", ["server", "client"])
def test_selectors_do_not_change_from_one_version_to_the_next(component: str) -> None:
    # Those of a Deployment cannot be changed: neither version nor the user's labels are in them.
    values = {"commonLabels": {"team": "net"}, component: {"podLabels": {"a": "b"}}}
    workload = render(values, release="net").one("Deployment", f"net-pingpong-{component}")
    assert workload["spec"]["selector"]["matchLabels"] == {
        "app.kubernetes.io/name": "pingpong",
        "app.kubernetes.io/instance": "net",
        "app.kubernetes.io/component": component,
    }
