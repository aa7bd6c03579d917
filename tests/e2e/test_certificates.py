"""The server's certificate in a Secret: replaced under open sessions, broken, and cert-manager's."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from kubernetes.client import CustomObjectsApi

from tests.e2e import inside
from tests.e2e.cluster import Cluster
from tests.e2e.conftest import Install, Report
from tests.e2e.mounted_secrets import TLS, eventually_mounted, mounted, put_secret
from tests.e2e.pods import Pod
from tests.e2e.release import Release
from tests.e2e.waiting import Stopwatch, eventually
from tests.support.certificates import DAY, Authority, Leaf

pytestmark = pytest.mark.e2e

SECRET = "server-certificate"
NOT_AFTER = "pingpong_server_certificate_not_after_timestamp_seconds"
PEER_NOT_AFTER = "pingpong_client_peer_certificate_not_after_timestamp_seconds"
RELOAD_FAILED = "pingpong_server_certificate_reload_failed"
CONNECTS = "pingpong_client_connects_total"
FROM_SECRET = {"mode": "secret", "secretName": SECRET}
# One target, whichever pod answers for it: the same prober connects again to the next pod.
ONE_TARGET = {"discovery": "endpointslice", "settings": {"all": False, "interval": 0.05}}


def names_in(namespace: str) -> list[str]:
    return [f"pingpong-server.{namespace}.svc"]


def shows(release: Release, server: Pod, issued: Leaf) -> bool:
    """Whether that is the certificate which a server says that it has."""
    return release.metrics(server).value(NOT_AFTER) == issued.not_after.timestamp()


def test_a_replaced_certificate_is_for_new_handshakes_and_open_sessions_go_on(
    cluster: Cluster, namespace: str, install: Install, report: Report
) -> None:
    before, after = Authority(), Authority()
    names = names_in(namespace)
    old, new = before.issue(*names, ends=30 * DAY), after.issue(*names, ends=60 * DAY)
    both = before.pem + after.pem

    def put(issued: Leaf, authorities: bytes) -> Stopwatch:
        put_secret(cluster, namespace, SECRET, issued.secret(authorities), kind=TLS)
        return Stopwatch()

    put(old, before.pem)
    release = install({"server": {"tls": FROM_SECRET}, "client": ONE_TARGET})
    assert release.wait_up(1).value(PEER_NOT_AFTER) == old.not_after.timestamp()
    server, client = release.pod("server"), release.pod("client")
    assert shows(release, server, old)
    counted = release.settled(client)
    connects = release.metrics(client).sum(CONNECTS)

    def client_has(authorities: bytes) -> None:
        eventually_mounted(
            cluster,
            namespace,
            client,
            lambda: mounted(cluster, client, "ca", "ca.crt").encode() == authorities,
            what="the client has the authorities",
        )

    # Whoever connects meanwhile may be shown the old certificate or the new one, since kubelet
    # comes to each pod at another time: first both authorities are trusted, and in the end one.
    put(old, both)
    client_has(both)
    watch = put(new, both)
    eventually_mounted(
        cluster,
        namespace,
        server,
        lambda: shows(release, server, new),
        what="the server has the new certificate",
    )
    report("a Secret is replaced until the server has it (kubelet hurried)", watch.seconds)
    assert inside.refusal(release, client) is None
    cluster.apps.patch_namespaced_deployment_scale(
        "pingpong-client", namespace, {"spec": {"replicas": 2}}
    )
    release.wait()
    [newcomer] = [pod for pod in release.pods("client") if pod != client]
    assert release.wait_up(1, newcomer).value(PEER_NOT_AFTER) == new.not_after.timestamp()

    watch = put(new, after.pem)
    client_has(after.pem)
    assert inside.refusal(release, client) is None
    report("authorities are replaced until a client's pod has them", watch.seconds)

    samples = release.metrics(client)
    assert samples.sum(CONNECTS) == connects, "the session is the first one still"
    assert samples.value(PEER_NOT_AFTER) == old.not_after.timestamp()
    assert samples.targets_up == samples.targets
    assert release.pod("server") == server
    assert release.restarts == 0

    # The client's process, which began with the old authority, goes to another pod.
    cluster.core.delete_namespaced_pod(server.name, namespace)
    eventually(
        lambda: release.metrics(client).value(PEER_NOT_AFTER) == new.not_after.timestamp(),
        timeout=30,
        what="the client has been shown the new certificate",
    )
    samples = release.metrics(client)
    assert samples.sum(CONNECTS) == connects + 1, "no handshake failed"
    account = release.settled(client) - counted
    assert (account.lost, account.late, account.send_error) == (0, 0, 0), str(account)
    report("pings of the client meanwhile", str(account))


def test_a_secret_whose_key_does_not_fit_is_kept_out_and_the_old_certificate_goes_on(
    cluster: Cluster, namespace: str, install: Install
) -> None:
    authority = Authority()
    names = names_in(namespace)
    good, next_one = (authority.issue(*names, ends=days * DAY) for days in (30, 60))
    put_secret(cluster, namespace, SECRET, good.secret(authority.pem), kind=TLS)
    release = install({"server": {"tls": FROM_SECRET}})
    release.wait_up(1)
    server, client = release.pod("server"), release.pod("client")
    assert release.metrics(server).value(RELOAD_FAILED) == 0

    broken = {**next_one.secret(authority.pem), "tls.key": good.key_pem()}
    put_secret(cluster, namespace, SECRET, broken, kind=TLS)
    eventually_mounted(
        cluster,
        namespace,
        server,
        lambda: release.metrics(server).value(RELOAD_FAILED) == 1,
        what="the server says that the certificate cannot be used",
    )
    [event] = release.events(server, "certificate_unusable")
    assert event["level"] == "error"
    assert "tls.key" in event["error"]
    assert "PRIVATE KEY" not in release.logs(server)
    assert shows(release, server, good)
    assert release.get(server, "/readyz").ok
    assert inside.refusal(release, client) is None

    put_secret(cluster, namespace, SECRET, next_one.secret(authority.pem), kind=TLS)
    eventually_mounted(
        cluster,
        namespace,
        server,
        lambda: shows(release, server, next_one),
        what="the server has the certificate whose key fits",
    )
    assert release.metrics(server).value(RELOAD_FAILED) == 0
    assert release.restarts == 0


GROUP = "cert-manager.io"
CERTIFICATES = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"certificates.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "certificates", "singular": "certificate", "kind": "Certificate"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}
"""As much of cert-manager's as it takes for its objects to be accepted."""


@pytest.fixture(scope="module")
def certificates(cluster: Cluster) -> Iterator[Any]:
    """The API of cert-manager's Certificates: of the whole cluster, and gone in the end."""
    name = f"crd/certificates.{GROUP}"
    if cluster.kubectl("get", name, "--ignore-not-found", "--output=name").strip():
        pytest.skip("this cluster has a cert-manager of its own, whose part is played here")
    cluster.apply(CERTIFICATES)
    cluster.kubectl("wait", "--for=condition=Established", name, "--timeout=30s")
    yield CustomObjectsApi(cluster.api)
    cluster.kubectl("delete", name, "--wait=true")


class CertManager:
    """Does what cert-manager does for a Certificate: issues it, into the Secret that it names."""

    def __init__(self, cluster: Cluster, namespace: str, certificate: dict[str, Any]) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._spec = certificate["spec"]
        self._name = certificate["metadata"]["name"]
        self._root = Authority()
        self._issuer = Authority(issuer=self._root)
        assert self._spec["privateKey"] == {
            "algorithm": "ECDSA",
            "size": 256,
            "rotationPolicy": "Always",
        }
        assert set(self._spec["usages"]) == {"digital signature", "server auth"}

    @property
    def names(self) -> list[str]:
        """What the certificate is for."""
        return list(self._spec["dnsNames"])

    def issue(self, ends: timedelta) -> Leaf:
        """Issue it, or renew it with another key, by an authority below the trusted one."""
        issued = self._issuer.issue(*self.names, *self._spec.get("ipAddresses", ()), ends=ends)
        put_secret(
            self._cluster,
            self._namespace,
            self._spec["secretName"],
            issued.secret(self._root.pem),
            kind=TLS,
            annotations={
                f"{GROUP}/certificate-name": self._name,
                f"{GROUP}/issuer-name": self._spec["issuerRef"]["name"],
            },
        )
        return issued


def test_the_certificate_that_the_chart_asks_cert_manager_for_is_enough_and_is_renewed(
    cluster: Cluster, certificates: Any, namespace: str, install: Install, report: Report
) -> None:
    issuer = {"name": "issuer", "kind": "ClusterIssuer"}
    node = cluster.node_address(cluster.workers[0])
    release = install(
        {
            "server": {
                "tls": {
                    "mode": "certManager",
                    "certManager": {"issuerRef": issuer},
                    "extraDnsNames": ["pingpong.example"],
                    "extraIpAddresses": [node],
                },
                "externalService": {"enabled": True, "type": "ClusterIP"},
            }
        },
        wait=False,
    )
    asked = certificates.get_namespaced_custom_object(
        GROUP, "v1", namespace, "certificates", "pingpong-server"
    )
    assert asked["spec"]["issuerRef"] == {**issuer, "group": GROUP}
    manager = CertManager(cluster, namespace, asked)
    first = manager.issue(30 * DAY)
    release.wait()
    assert release.wait_up(1).value(PEER_NOT_AFTER) == first.not_after.timestamp()
    server, client = release.pod("server"), release.pod("client")
    counted = release.settled(client)

    assert {"pingpong.example"} < set(manager.names)
    services = ("pingpong-server", "pingpong-server-external")
    suffixes = ("", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.cluster.local")
    for service in services:
        for suffix in suffixes:
            assert f"{service}{suffix}" in manager.names
    # What resolves nowhere is a name for outside.
    reached = [name for name in manager.names if name != "pingpong.example"]
    urls = [f"https://{name}:4433/ping" for name in reached]
    inside.ping(release, client, *urls, "-c", "1", "-w", "10")

    watch = Stopwatch()
    second = manager.issue(60 * DAY)
    eventually_mounted(
        cluster,
        namespace,
        server,
        lambda: shows(release, server, second),
        what="the server has the renewed certificate",
    )
    report("renewed until the server has it (kubelet hurried)", watch.seconds)
    assert inside.refusal(release, client) is None
    account = release.settled(client) - counted
    assert (account.lost, account.late, account.send_error) == (0, 0, 0), str(account)
    assert release.restarts == 0
