"""The release's own authority: what makes it and its certificate, and what that may do."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart import cluster, program
from tests.chart.release_rules import hooks_of
from tests.chart.rendering import Object, Rendered, merged, render

SECRETS = ["pingpong-certificate", "pingpong-authority"]
OTHER_MODES: list[dict[str, Any]] = [
    {"tls": {"mode": "selfSigned"}},
    {"tls": {"mode": "secret", "secretName": "mine"}},
    {"tls": {"mode": "certManager", "certManager": {"issuerRef": {"name": "ca"}}}},
]
RUNS = pytest.mark.parametrize("run", ["Job pingpong-certificate", "CronJob pingpong-renewal"])


def checked(*values: dict[str, Any], **options: Any) -> Rendered:
    rendered = render(merged(*values), **options)
    assert cluster.problems(rendered) == []
    return rendered


def main_of(rendered: Rendered, run: str) -> Object:
    [main] = rendered.pods()[run]["spec"]["containers"]
    assert isinstance(main, dict)
    return main


def rules_of(rendered: Rendered, name: str) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """What a Role allows: verbs, and the Secrets' names; without names, of any."""
    found = []
    for rule in rendered.one("Role", name)["rules"]:
        assert (rule["apiGroups"], rule["resources"]) == ([""], ["secrets"])
        found.append((tuple(rule["verbs"]), tuple(rule.get("resourceNames") or ())))
    return found


@RUNS
def test_the_certificate_is_for_every_name_that_clients_use(run: str) -> None:
    more = {"extraDnsNames": ["p.example"], "extraIpAddresses": ["192.0.2.1", "2001:db8::1"]}
    rendered = checked({"server": {"tls": more, "externalService": {"enabled": True}}})
    read = program.settings(main_of(rendered, run))
    suffixes = ("", ".testing", ".testing.svc", ".testing.svc.cluster.local")
    names = ("pingpong-server", "pingpong-server-external")
    assert set(read.hosts) == {
        *(f"{name}{suffix}" for name in names for suffix in suffixes),
        *(f"*.pingpong-server{suffix}" for suffix in suffixes[2:]),
        *("p.example", "192.0.2.1", "2001:db8::1"),
    }
    assert (read.namespace, read.certificate_secret, read.authority_secret) == (
        "testing",
        *SECRETS,
    )


def test_the_job_and_what_renews_do_the_same() -> None:
    rendered = checked()
    job, renewal = (
        main_of(rendered, run) for run in ("Job pingpong-certificate", "CronJob pingpong-renewal")
    )
    assert job == renewal
    [server] = rendered.pods()["Deployment pingpong-server"]["spec"]["containers"]
    assert job["image"] == server["image"]


def test_the_job_runs_before_all_else_and_takes_what_it_needs_along() -> None:
    hooks = {
        f"{each['kind']} {each['metadata']['name']}": each["metadata"]["annotations"]
        for each in checked({"networkPolicy": {"enabled": True}}).objects
        if "pre-install" in hooks_of(each)
    }
    assert set(hooks) == {
        f"{kind} pingpong-certificate"
        for kind in ("ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "Job")
    }
    for said in hooks.values():
        assert said["helm.sh/hook"] == "pre-install,pre-upgrade,pre-rollback"
        assert said["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"


def test_only_the_job_may_create_secrets_and_both_change_these_two_alone() -> None:
    rendered = checked()
    these = (("get", "update"), tuple(SECRETS))
    assert rules_of(rendered, "pingpong-certificate") == [these, (("create",), ())]
    assert rules_of(rendered, "pingpong-renewal") == [these]
    for name in ("pingpong-certificate", "pingpong-renewal"):
        assert rendered.one("RoleBinding", name)["subjects"] == [
            {"kind": "ServiceAccount", "name": name, "namespace": "testing"}
        ]
    assert not rendered.kinds() & {"ClusterRole", "ClusterRoleBinding"}


def test_a_token_of_the_api_has_only_who_keeps_the_certificate() -> None:
    rendered = checked()
    mounted = {
        place
        for place, template in rendered.pods().items()
        if template["spec"]["automountServiceAccountToken"]
    }
    assert mounted == {"Job pingpong-certificate", "CronJob pingpong-renewal"}
    for account in rendered.of("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_no_pod_mounts_the_authoritys_key() -> None:
    for place, template in checked().pods().items():
        for volume in template["spec"].get("volumes") or []:
            assert volume["secret"]["secretName"] == "pingpong-certificate", place
            keys = {item["key"] for item in volume["secret"]["items"]}
            assert keys == ({"tls.crt", "tls.key"} if place.endswith("server") else {"ca.crt"})


def test_uninstalling_takes_both_secrets_away_and_nothing_else_touches_them() -> None:
    rendered = checked()
    assert sorted(each["metadata"]["name"] for each in rendered.of("Secret")) == sorted(SECRETS)
    for secret in rendered.of("Secret"):
        assert hooks_of(secret) == {"post-delete"}
        policy = secret["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
        assert policy == "before-hook-creation,hook-succeeded"
        # Applied as they are, they must not take away what the Job has put there.
        assert not {"data", "stringData", "immutable"} & set(secret)
        assert secret["type"] == "Opaque"


@RUNS
def test_it_runs_where_and_as_whom_the_server_does(run: str) -> None:
    server = {
        "nodeSelector": {"edge": "true"},
        "tolerations": [{"key": "edge", "operator": "Exists"}],
        "priorityClassName": "high",
        "podSecurityContext": {"runAsUser": None, "fsGroup": 2000},
        "resources": {"limits": {"memory": "256Mi"}},
    }
    rendered = checked({"server": server, "image": {"registry": "r.example"}})
    spec = rendered.pods()[run]["spec"]
    like = rendered.pods()["Deployment pingpong-server"]["spec"]
    for name in ("nodeSelector", "tolerations", "priorityClassName", "securityContext"):
        assert spec[name] == like[name]
    assert "topologySpreadConstraints" not in spec
    for name in ("image", "securityContext", "resources"):
        assert spec["containers"][0][name] == like["containers"][0][name]


def test_it_is_no_server_for_a_service_and_no_client_for_a_policy() -> None:
    rendered = checked({"networkPolicy": {"enabled": True}})
    labels = rendered.pods()["Job pingpong-certificate"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "certificate"


@pytest.mark.parametrize("name", ["pingpong-certificate", "pingpong-renewal"])
def test_with_policies_it_reaches_the_api_and_nothing_else(name: str) -> None:
    policy = {"enabled": True, "apiPorts": [6443], "dnsPorts": [53]}
    spec = checked({"networkPolicy": policy}).one("NetworkPolicy", name)["spec"]
    assert spec["ingress"] == []
    assert [sorted(port["port"] for port in rule["ports"]) for rule in spec["egress"]] == [
        [53, 53],
        [6443],
    ]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}


def test_it_is_renewed_once_a_week() -> None:
    spec = checked().one("CronJob")["spec"]
    minute, hour, *days, weekday = spec["schedule"].split()
    assert minute.isdigit()
    assert hour.isdigit()
    assert (days, weekday) == (["*", "*"], "1")
    # One that hangs, for want of its image for example, must not be the last.
    assert spec["concurrencyPolicy"] == "Replace"


def test_rights_can_be_left_to_somebody_else() -> None:
    rendered = checked({"rbac": {"create": False}})
    assert not rendered.has("Role")
    assert not rendered.has("RoleBinding")
    assert rendered.has("ServiceAccount", "pingpong-certificate")
    said = rendered.notes.partition("(rbac.create is false)")[2]
    assert "pingpong-certificate" in said
    assert "pingpong-renewal" in said


@pytest.mark.parametrize("server", [*OTHER_MODES, {"enabled": False}], ids=str)
def test_who_has_another_certificate_has_none_of_it(server: dict[str, Any]) -> None:
    rendered = render({"server": server, "client": {"targets": ["https://a.example"]}})
    assert not rendered.kinds() & {"Job", "CronJob", "Role", "RoleBinding", "Secret"}


def test_each_mode_has_a_secret_of_its_own() -> None:
    # Where the mode changes, one that was made for the other is not taken for one's own.
    [volume] = checked().pods()["Deployment pingpong-server"]["spec"]["volumes"]
    other = render({"server": OTHER_MODES[2]})
    [of_cert_manager] = other.pods()["Deployment pingpong-server"]["spec"]["volumes"]
    assert volume["secret"]["secretName"] != of_cert_manager["secret"]["secretName"]


@pytest.mark.parametrize("release", ["a" * 53, "a" * 43 + "-" + "b" * 9])
def test_names_of_long_releases_fit(release: str) -> None:
    rendered = checked({"networkPolicy": {"enabled": True}}, release=release)
    assert len(rendered.one("CronJob")["metadata"]["name"]) <= 52
