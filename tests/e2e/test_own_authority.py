"""The release's own authority, as it comes: made once, verified by, kept, renewed, and gone in the end."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pingpong.webtransport.certificates import Certificate, make_certificate, parse_certificate
from tests.e2e import inside
from tests.e2e.cluster import Cluster
from tests.e2e.commands import CommandError
from tests.e2e.conftest import Install, Report
from tests.e2e.images import Images
from tests.e2e.mounted_secrets import eventually_mounted, put_secret
from tests.e2e.pods import Pod
from tests.e2e.release import CHART, Release
from tests.e2e.waiting import Stopwatch, eventually
from tests.support.certificates import DAY, Authority

pytestmark = pytest.mark.e2e

AUTHORITY, CERTIFICATE = "pingpong-authority", "pingpong-certificate"
NOT_AFTER = "pingpong_server_certificate_not_after_timestamp_seconds"
PEER_NOT_AFTER = "pingpong_client_peer_certificate_not_after_timestamp_seconds"
CONNECTS = "pingpong_client_connects_total"


def secret(cluster: Cluster, namespace: str, name: str) -> dict[str, bytes]:
    found = cluster.core.read_namespaced_secret(name, namespace)
    return {key: base64.b64decode(value) for key, value in found.data.items()}


def held(cluster: Cluster, namespace: str) -> dict[str, dict[str, bytes]]:
    """What both Secrets hold."""
    return {name: secret(cluster, namespace, name) for name in (AUTHORITY, CERTIFICATE)}


def certificate_of(data: dict[str, bytes]) -> Certificate:
    return parse_certificate(data["tls.crt"], data["tls.key"], "tls.crt", "tls.key")


def server_shows(cluster: Cluster, release: Release, server: Pod, made: Certificate) -> None:
    """Wait until kubelet has brought a certificate to the server, and it has taken it."""
    eventually_mounted(
        cluster,
        release.namespace,
        server,
        lambda: release.metrics(server).value(NOT_AFTER) == made.not_after.timestamp(),
        what="the server shows the certificate in the Secret",
    )


def renew(cluster: Cluster, namespace: str, name: str) -> list[dict[str, Any]]:
    """Have the CronJob run now; what its pod has logged."""
    words = ("--namespace", namespace)
    cluster.kubectl("create", "job", name, "--from=cronjob/pingpong-renewal", *words)
    cluster.kubectl(
        "wait", "--for=condition=Complete", f"job/{name}", "--timeout=60s", *words, timeout=70
    )
    [pod] = cluster.pods(namespace, f"batch.kubernetes.io/job-name={name}")
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in cluster.logs(namespace, pod.name).splitlines()
    ]
    return lines


def can_i(cluster: Cluster, *words: str) -> bool:
    """What `kubectl auth can-i` says; where that is no, it ends with 1."""
    try:
        answer = cluster.kubectl("auth", "can-i", *words)
    except CommandError as error:
        answer = str(error)
    assert {"yes", "no"} & {*answer.split()}, answer
    return "yes" in answer.split()


def test_a_client_verifies_by_the_authority_which_upgrades_and_rollbacks_keep(
    cluster: Cluster, namespace: str, install: Install, report: Report
) -> None:
    watch = Stopwatch()
    release = install({"client": {"settings": {"interval": 0.05}}})
    report("installed, both pods ready after", watch.seconds)
    release.wait_up(1)
    server, client = release.pod("server"), release.pod("client")

    # The client says whom it trusts, and it is the authority's file.
    config = json.loads(release.get(client, "/config").text)
    assert (config["ca"], config["insecure"]) == ("/etc/pingpong/ca/ca.crt", False)
    [started] = release.events(client, "started")
    assert started["trust"] == "the authorities in /etc/pingpong/ca/ca.crt"
    first = held(cluster, namespace)
    assert first[CERTIFICATE]["ca.crt"] == first[AUTHORITY]["ca.crt"]
    made = certificate_of(first[CERTIFICATE])
    assert release.metrics(client).value(PEER_NOT_AFTER) == made.not_after.timestamp()
    passed = release.test()
    assert passed.ok, passed.output

    # Of what made it, nothing is left but who renews it, and may create nothing.
    words = ("--namespace", namespace, "--output=name")
    left = cluster.kubectl("get", "serviceaccount,role,rolebinding,job,cronjob", *words).split()
    assert {name.partition("/")[2] for name in left if "server" not in name} == {
        *("default", "pingpong-client", "pingpong-renewal"),
    }
    account = f"--as=system:serviceaccount:{namespace}:pingpong-renewal"
    for verb, what, may in (
        ("update", f"secret/{AUTHORITY}", True),
        ("get", f"secret/{CERTIFICATE}", True),
        ("get", "secret/other", False),
        ("create", "secrets", False),
        ("list", "secrets", False),
        ("delete", f"secret/{AUTHORITY}", False),
    ):
        assert can_i(cluster, verb, what, account, "--namespace", namespace) is may, (verb, what)

    # Another revision, and back: both stay to the letter.
    counted = release.settled(client)
    watch = Stopwatch()
    release.upgrade({"server": {"service": {"annotations": {"example.org/revision": "2"}}}})
    report("upgraded after", watch.seconds)
    assert held(cluster, namespace) == first
    release.rollback()
    assert held(cluster, namespace) == first

    # Other names: another certificate of the same authority, which is in use without a restart.
    release.upgrade({"server": {"tls": {"extraDnsNames": ["pingpong.example"]}}})
    second = held(cluster, namespace)
    assert second[AUTHORITY] == first[AUTHORITY]
    assert second[CERTIFICATE]["ca.crt"] == first[CERTIFICATE]["ca.crt"]
    server_shows(cluster, release, server, certificate_of(second[CERTIFICATE]))
    assert inside.refusal(release, client) is None
    release.rollback()
    third = held(cluster, namespace)
    assert third[AUTHORITY] == first[AUTHORITY]
    account_of = release.settled(client) - counted
    assert (account_of.lost, account_of.late, account_of.send_error) == (0, 0, 0), str(account_of)
    report("pings meanwhile", str(account_of))
    assert (release.pod("server"), release.pod("client")) == (server, client)
    assert release.restarts == 0


def test_a_server_with_another_certificate_is_refused_until_it_is_put_right(
    cluster: Cluster, namespace: str, install: Install
) -> None:
    release = install()
    release.wait_up(1)
    client = release.pod("client")
    first = held(cluster, namespace)

    # Somebody else's certificate for the same name, and the server shows it.
    name = f"pingpong-server.{namespace}.svc"
    other = Authority().issue(name, ends=30 * DAY)
    data = {**first[CERTIFICATE], "tls.crt": other.pem(), "tls.key": other.key_pem()}
    put_secret(cluster, namespace, CERTIFICATE, data)
    cluster.core.delete_namespaced_pod(release.pod("server").name, namespace)

    def refused() -> bool:
        samples = release.metrics(client)
        assert samples.sum(CONNECTS, result="tls") > 0
        assert not samples.targets_up
        return True

    eventually(refused, timeout=60, what="the client refuses the server with another certificate")
    [event, *_] = [
        event for event in release.events(client, "connect_failed") if event["result"] == "tls"
    ]
    assert "certificate" in event["error"], event
    said = inside.refusal(release, client)
    assert said is not None
    assert "certificate" in said
    failed = release.test()
    assert not failed.ok, failed.output

    # Whoever keeps the certificate finds it, and the authority stays.
    [*_, issued] = renew(cluster, namespace, "now")
    assert (issued["event"], issued["reason"]) == (
        "certificate_issued",
        "another authority had signed it",
    )
    assert secret(cluster, namespace, AUTHORITY) == first[AUTHORITY]
    server_shows(
        cluster,
        release,
        release.pod("server"),
        certificate_of(secret(cluster, namespace, CERTIFICATE)),
    )
    release.wait_up(1, client)


def test_a_certificate_is_renewed_in_time_without_a_ping_lost(
    cluster: Cluster, namespace: str, install: Install, report: Report
) -> None:
    release = install({"client": {"settings": {"interval": 0.05}}})
    release.wait_up(1)
    server, client = release.pod("server"), release.pod("client")
    [kept] = renew(cluster, namespace, "first")
    assert kept["event"] == "certificate_kept"

    # As it is when a third is left.
    first = held(cluster, namespace)
    authority = parse_certificate(
        first[AUTHORITY]["ca.crt"], first[AUTHORITY]["ca.key"], "ca.crt", "ca.key"
    )
    names = [f"pingpong-server.{namespace}.svc"]
    old = make_certificate(names, datetime.now(UTC), timedelta(minutes=20), authority)
    data = {**first[CERTIFICATE], "tls.crt": old.pem(), "tls.key": old.key_pem()}
    put_secret(cluster, namespace, CERTIFICATE, data)
    server_shows(cluster, release, server, old)
    counted = release.settled(client)

    watch = Stopwatch()
    [issued] = renew(cluster, namespace, "second")
    assert issued["event"] == "certificate_issued"
    renewed = certificate_of(secret(cluster, namespace, CERTIFICATE))
    assert renewed.not_after > datetime.now(UTC) + timedelta(days=300)
    server_shows(cluster, release, server, renewed)
    report("renewed until the server has it (kubelet hurried)", watch.seconds)
    assert inside.refusal(release, client) is None
    account = release.settled(client) - counted
    assert (account.lost, account.late, account.send_error) == (0, 0, 0), str(account)
    assert release.restarts == 0


def test_applied_as_ordinary_objects_the_pods_wait_for_the_job(
    cluster: Cluster, images: Images, namespace: str
) -> None:
    words = ("--set", f"image.tag={images.values['image']['tag']},image.pullPolicy=Never")  # type: ignore[index]
    rendered = cluster.helm(
        *("template", "pingpong", str(CHART), "--namespace", namespace, "--skip-tests", *words)
    )
    assert rendered.ok, rendered.output

    def apply() -> None:
        cluster.kubectl("apply", "--namespace", namespace, "--filename", "-", stdin=rendered.output)

    apply()
    for name in ("pingpong-server", "pingpong-client"):
        cluster.kubectl(
            *("rollout", "status", f"deployment/{name}", "--namespace", namespace),
            "--timeout=90s",
            timeout=100,
        )
    first = held(cluster, namespace)
    url = inside.server_url(namespace)
    pings = ("exec", "deployment/pingpong-client", "--namespace", namespace, "--", "pingpong")
    assert "1 received" in cluster.kubectl(*pings, "ping", url, "-c", "1", "-w", "20")

    apply()
    assert held(cluster, namespace) == first
    cluster.kubectl(
        *("delete", "--namespace", namespace, "--filename", "-", "--wait=true"),
        stdin=rendered.output,
        timeout=120,
    )
    assert not cluster.kubectl("get", "secret", "--namespace", namespace, "--output=name").strip()
