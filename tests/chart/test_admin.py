"""TLS and authentication of the admin ports, and that probes, monitors and notes follow."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart import cluster, program
from tests.chart.rendering import Rendered, container, merged, render

TLS: dict[str, Any] = {"admin": {"tls": {"secretName": "admin"}}}
TOKENS: dict[str, Any] = {"admin": {"auth": {"tokenSecret": {"name": "tokens"}}}}
USERS: dict[str, Any] = {"admin": {"auth": {"basicAuthSecret": {"name": "users"}}}}
BROUGHT = frozenset({"Secret admin", "Secret tokens", "Secret users"})
MONITORS = ("PodMonitor", "ServiceMonitor")


def checked(*values: dict[str, Any]) -> Rendered:
    rendered = render(merged(*values))
    assert cluster.problems(rendered, brought=BROUGHT) == []
    return rendered


def endpoint(kind: str, *values: dict[str, Any]) -> Any:
    wanted = {"monitoring": {f"{kind[0].lower()}{kind[1:]}": {"enabled": True}}}
    rendered = render(merged(*values, wanted), api_versions=[f"monitoring.coreos.com/v1/{kind}"])
    spec = rendered.one(kind)["spec"]
    [found] = spec["podMetricsEndpoints" if kind == "PodMonitor" else "endpoints"]
    return found


@pytest.mark.parametrize("component", ["server", "client"])
def test_both_have_the_files_and_kubelet_asks_over_tls(component: str) -> None:
    rendered = checked(TLS, TOKENS, USERS)
    template = rendered.pods()[f"Deployment pingpong-{component}"]
    main = container(template, component)
    files = program.files(main, template["spec"]["volumes"])
    assert {path: file for path, file in files.items() if "/admin-" in path} == {
        "/etc/pingpong/admin-tls/tls.crt": "secret admin tls.crt",
        "/etc/pingpong/admin-tls/tls.key": "secret admin tls.key",
        "/etc/pingpong/admin-tokens/tokens": "secret tokens token",
        "/etc/pingpong/admin-basic-auth/users": "secret users users",
    }
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert main[probe]["httpGet"]["scheme"] == "HTTPS"
        plain = container(checked().pods()[f"Deployment pingpong-{component}"], component)
        assert "scheme" not in plain[probe]["httpGet"]


def test_the_pod_of_helm_test_has_none_of_it() -> None:
    [pod] = checked(TLS, TOKENS, USERS).of("Pod")
    assert not any(volume["name"].startswith("admin") for volume in pod["spec"]["volumes"])


@pytest.mark.parametrize("kind", MONITORS)
def test_monitors_follow(kind: str) -> None:
    assert endpoint(kind).keys().isdisjoint({"scheme", "tlsConfig", "authorization", "basicAuth"})
    found = endpoint(kind, TLS, TOKENS, USERS)
    assert (found["scheme"], found["tlsConfig"]) == ("https", {"insecureSkipVerify": True})
    assert found["authorization"] == {"credentials": {"name": "tokens", "key": "token"}}
    assert "basicAuth" not in found
    named = {"admin": {"tls": {"serverName": "a.example"}}}
    assert endpoint(kind, TLS, named)["tlsConfig"] == {
        "ca": {"secret": {"name": "admin", "key": "ca.crt"}},
        "serverName": "a.example",
    }
    own = {"admin": {"auth": {"tokenSecret": {"scrapeKey": "one"}}}}
    assert endpoint(kind, TOKENS, own)["authorization"]["credentials"]["key"] == "one"
    assert endpoint(kind, USERS)["basicAuth"] == {
        "username": {"name": "users", "key": "username"},
        "password": {"name": "users", "key": "password"},
    }


@pytest.mark.parametrize(
    ("values", "command"),
    [
        ({}, "curl localhost:8080/metrics"),
        (TLS, "curl --insecure https://localhost:8080/metrics"),
        (TOKENS, 'curl -H "Authorization: Bearer $TOKEN" localhost:8080/metrics'),
        (USERS, 'curl --user "$USER:$PASSWORD" localhost:8080/metrics'),
    ],
)
def test_the_notes_say_how_to_ask(values: dict[str, Any], command: str) -> None:
    assert f"  {command}\n" in render(values).notes
    assert f"  {command}\n" in render(merged(values, {"client": {"enabled": False}})).notes
