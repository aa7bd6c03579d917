"""Certificates, tokens and rights: three ways each, and never more than a feature needs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart import cluster, program
from tests.chart.rendering import Rendered, container, merged, render

CERT_MANAGER: dict[str, Any] = {
    "tls": {"mode": "certManager", "certManager": {"issuerRef": {"name": "ca"}}}
}
KUBERNETES: dict[str, Any] = {
    "server": {"auth": {"mode": "kubernetes"}},
    "client": {"auth": {"mode": "serviceAccount"}},
}
SECRET: dict[str, Any] = {"server": {"tls": {"mode": "secret", "secretName": "mine"}}}
BROUGHT = frozenset(
    {f"Secret {name}" for name in ("mine", "ca", "tokens", "token")} | {"ConfigMap ca"}
)


def checked(*values: dict[str, Any]) -> Rendered:
    rendered = render(merged(*values))
    assert cluster.problems(rendered, brought=BROUGHT) == []
    return rendered


def settings_of(rendered: Rendered, component: str) -> Any:
    return program.settings(
        container(rendered.pods()[f"Deployment pingpong-{component}"], component)
    )


def files_of(rendered: Rendered, component: str) -> dict[str, str]:
    template = rendered.pods()[f"Deployment pingpong-{component}"]
    return program.files(container(template, component), template["spec"].get("volumes") or [])


# ------------------------------------------------------------------ certificates


def test_an_authority_of_the_release_has_signed_and_the_client_verifies_by_it() -> None:
    rendered = checked()
    assert files_of(rendered, "server") == {
        "/etc/pingpong/tls/tls.crt": "secret pingpong-certificate tls.crt",
        "/etc/pingpong/tls/tls.key": "secret pingpong-certificate tls.key",
    }
    assert files_of(rendered, "client") == {
        "/etc/pingpong/ca/ca.crt": "secret pingpong-certificate ca.crt"
    }
    read = settings_of(rendered, "client")
    assert (read.insecure, read.trust) == (False, "the authorities in /etc/pingpong/ca/ca.crt")


def test_a_server_has_a_self_signed_certificate_and_the_client_trusts_anybody() -> None:
    rendered = checked({"server": {"tls": {"mode": "selfSigned"}}})
    assert settings_of(rendered, "server").tls_cert_file is None
    assert settings_of(rendered, "client").insecure is True
    assert files_of(rendered, "server") == files_of(rendered, "client") == {}


def test_a_certificate_from_a_secret_is_the_servers_and_its_authority_the_clients() -> None:
    rendered = checked(SECRET)
    assert files_of(rendered, "server") == {
        "/etc/pingpong/tls/tls.crt": "secret mine tls.crt",
        "/etc/pingpong/tls/tls.key": "secret mine tls.key",
    }
    assert files_of(rendered, "client") == {"/etc/pingpong/ca/ca.crt": "secret mine ca.crt"}
    assert settings_of(rendered, "client").insecure is False


def test_cert_manager_makes_a_certificate_for_every_name_that_clients_use() -> None:
    more = {
        "tls": {"extraDnsNames": ["p.example"], "extraIpAddresses": ["192.0.2.1", "2001:db8::1"]}
    }
    external = {"externalService": {"enabled": True}}
    rendered = checked({"server": merged(CERT_MANAGER, more, external)})
    spec = rendered.one("Certificate")["spec"]
    assert set(spec["dnsNames"]) >= {
        "pingpong-server",
        "pingpong-server.testing",
        "pingpong-server.testing.svc",
        "pingpong-server.testing.svc.cluster.local",
        "pingpong-server-external.testing.svc",
        "p.example",
    }
    assert spec["ipAddresses"] == ["192.0.2.1", "2001:db8::1"]
    assert spec["issuerRef"] == {"name": "ca", "kind": "Issuer", "group": "cert-manager.io"}
    assert spec["privateKey"]["rotationPolicy"] == "Always"
    assert "duration" not in spec
    [url] = settings_of(rendered, "client").targets
    assert url.removeprefix("https://").partition(":")[0] in spec["dnsNames"]
    assert files_of(rendered, "server")["/etc/pingpong/tls/tls.key"] == (
        f"secret {spec['secretName']} tls.key"
    )


def test_times_and_names_of_cert_managers_certificate_can_be_set() -> None:
    times = {"certManager": {"duration": "24h", "renewBefore": "8h"}, "secretName": "mine"}
    spec = checked({"server": merged(CERT_MANAGER, {"tls": times})}).one("Certificate")["spec"]
    assert (spec["duration"], spec["renewBefore"], spec["secretName"]) == ("24h", "8h", "mine")


@pytest.mark.parametrize(
    ("tls", "files", "field"),
    [
        ({"caSecret": {"name": "ca", "key": "a.pem"}}, "secret ca a.pem", "ca"),
        ({"caConfigMap": {"name": "ca"}}, "configMap ca ca.crt", "ca"),
        ({"certHash": "ab" * 32}, None, "cert_hash"),
        ({"insecure": True}, None, "insecure"),
        ({"systemAuthorities": True}, None, None),
    ],
)
def test_whom_a_client_trusts_can_be_said(
    tls: dict[str, Any], files: str | None, field: str | None
) -> None:
    rendered = checked(SECRET, {"client": {"tls": tls}})
    read = settings_of(rendered, "client")
    assert {name for name in ("ca", "cert_hash", "insecure") if getattr(read, name)} == (
        {field} if field else set()
    )
    assert list(files_of(rendered, "client").values()) == ([files] if files else [])


def test_servers_elsewhere_are_verified_by_the_systems_authorities() -> None:
    rendered = checked({"client": {"targets": ["https://a.example/ping"]}})
    read = settings_of(rendered, "client")
    assert (read.insecure, read.ca, read.cert_hash) == (False, None, None)


# ------------------------------------------------------------------ tokens


def test_tokens_from_secrets_of_each_ones_own() -> None:
    rendered = checked(
        {
            "server": {"auth": {"mode": "token", "tokenSecret": {"name": "tokens", "key": "all"}}},
            "client": {"auth": {"mode": "secret", "tokenSecret": {"name": "token"}}},
        }
    )
    assert settings_of(rendered, "server").auth == "token"
    assert "secret tokens all" in files_of(rendered, "server").values()
    assert "secret token token" in files_of(rendered, "client").values()


@pytest.mark.parametrize("audience", ["pingpong", "https://pings.example"])
def test_a_service_accounts_token_is_for_the_servers_audience(audience: str) -> None:
    rendered = checked(KUBERNETES, {"server": {"auth": {"audience": audience}}})
    server = settings_of(rendered, "server")
    assert (server.auth, server.token_audience) == ("kubernetes", audience)
    assert f"token for {audience}" in files_of(rendered, "client").values()


def test_the_test_has_the_clients_token() -> None:
    rendered = checked(KUBERNETES)
    pod = rendered.one("Pod")
    assert pod["spec"]["serviceAccountName"] == "pingpong-client"
    files = program.files(pod["spec"]["containers"][0], pod["spec"]["volumes"])
    assert sorted(files.values()) == ["secret pingpong-certificate ca.crt", "token for pingpong"]


def test_there_is_no_test_that_the_server_would_refuse() -> None:
    values = {"auth": {"mode": "kubernetes"}}
    assert not render({"server": values, "client": {"enabled": False}}).has("Pod")


def test_secret_files_are_for_the_pods_group_alone() -> None:
    rendered = checked(SECRET, KUBERNETES)
    for place in ("Deployment pingpong-server", "Deployment pingpong-client"):
        for volume in rendered.pods()[place]["spec"]["volumes"]:
            source = volume.get("secret") or volume["projected"]
            keys = [item["key"] for item in source.get("items", [])]
            assert source.get("defaultMode") == 0o440 or keys == ["ca.crt"]


# ------------------------------------------------------------------ rights


def test_nobody_has_rights_or_a_token_of_the_api_without_need() -> None:
    # What keeps an authority's certificates has some: test_certificate.py.
    rendered = checked(SECRET)
    assert not rendered.kinds() & {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}
    for template in rendered.pods().values():
        assert template["spec"]["automountServiceAccountToken"] is False
    for account in rendered.of("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_a_server_that_asks_about_tokens_may_do_that_alone() -> None:
    rendered = checked(SECRET, KUBERNETES)
    binding = rendered.one("ClusterRoleBinding")
    assert binding["roleRef"]["name"] == "system:auth-delegator"
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "pingpong-server", "namespace": "testing"}
    ]
    # Of the whole cluster: the namespace keeps releases apart.
    assert "testing" in binding["metadata"]["name"]
    mounted = {
        place: template["spec"]["automountServiceAccountToken"]
        for place, template in rendered.pods().items()
    }
    assert mounted == {
        "Deployment pingpong-server": True,
        "Deployment pingpong-client": False,
        "Pod pingpong-test": False,
    }
    assert not rendered.has("Role")


def test_a_client_that_follows_endpoint_slices_may_read_those_alone() -> None:
    rendered = checked(SECRET, {"client": {"discovery": "endpointslice"}})
    role = rendered.one("Role")
    assert role["rules"] == [
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["get", "list", "watch"],
        }
    ]
    assert role["metadata"]["namespace"] == "testing"
    assert rendered.one("RoleBinding")["subjects"][0]["name"] == "pingpong-client"
    assert settings_of(rendered, "client").targets == ("endpointslice://testing/pingpong-server",)
    assert not rendered.has("ClusterRoleBinding")


def test_endpoint_slices_of_other_namespaces_are_read_there() -> None:
    servers = ["endpointslice://a/x", "endpointslice://a/y", "endpointslice://b/x:web/ping"]
    rendered = checked(SECRET, {"client": {"targets": servers}})
    assert sorted(role["metadata"]["namespace"] for role in rendered.of("Role")) == ["a", "b"]
    for binding in rendered.of("RoleBinding"):
        assert binding["subjects"][0]["namespace"] == "testing"


@pytest.mark.parametrize("values", [KUBERNETES, {"client": {"discovery": "endpointslice"}}])
def test_rights_can_be_left_to_somebody_else(values: dict[str, Any]) -> None:
    rendered = checked(values, {"rbac": {"create": False}})
    assert not rendered.kinds() & {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}
    assert "rbac.create is false" in rendered.notes


def test_service_accounts_can_be_named_and_brought() -> None:
    values: dict[str, Any] = {
        "server": {"serviceAccount": {"name": "a", "annotations": {"b": "c"}}},
        "client": {"serviceAccount": {"create": False}},
    }
    rendered = render(merged(SECRET, values))
    account = rendered.one("ServiceAccount")
    assert (account["metadata"]["name"], account["metadata"]["annotations"]) == ("a", {"b": "c"})
    names = {
        place: template["spec"]["serviceAccountName"] for place, template in rendered.pods().items()
    }
    assert names == {
        "Deployment pingpong-server": "a",
        "Deployment pingpong-client": "default",
        "Pod pingpong-test": "default",
    }
