"""The chart as it comes: two pods that find each other, and nothing left when it goes."""

from __future__ import annotations

import pytest

from tests.e2e.cluster import ENFORCE, Cluster
from tests.e2e.conftest import Install, Report
from tests.e2e.release import Release
from tests.e2e.scraping import COMPLETED, SENT
from tests.e2e.waiting import Stopwatch, eventually

pytestmark = pytest.mark.e2e

MODES = ("datagram", "stream", "streams", "uni")
READY_WITHIN = 60.0
"""Seconds from `helm install` until both pods are ready."""
RISING = {
    "client": [
        SENT,
        COMPLETED,
        "pingpong_client_rtt_seconds_count",
        "pingpong_client_server_time_seconds_count",
    ],
    "server": [
        "pingpong_server_messages_received_total",
        "pingpong_server_messages_answered_total",
        "pingpong_server_received_bytes_total",
        "pingpong_server_sent_bytes_total",
        "pingpong_server_answer_duration_seconds_count",
        "pingpong_server_self_pings_total",
    ],
}
"""Samples that a later scrape has higher, of a release that works."""
OF_THE_NAMESPACE = {"serviceaccount/default", "configmap/kube-root-ca.crt"}
"""What Kubernetes itself puts into each."""


def test_default_values_make_a_server_and_a_client_that_ping(
    cluster: Cluster, namespace: str, install: Install, report: Report
) -> None:
    enforced = cluster.core.read_namespace(namespace).metadata.labels[ENFORCE]
    assert enforced == "restricted"
    watch = Stopwatch()
    release = install()
    ready_after = watch.seconds
    report("both pods ready after", ready_after)
    assert ready_after < READY_WITHIN

    # The client has found the server by the headless Service's name, and each address is a target.
    [target] = release.wait_up(1).targets
    report("pings answered after", watch.seconds)
    server, client = release.pod("server"), release.pod("client")
    assert f"pingpong-server.{namespace}.svc" in target
    assert server.address in target
    for pod in (server, client):
        assert release.get(pod, "/readyz?verbose").ok
        assert release.get(pod, "/livez").ok

    for component, names in RISING.items():
        _assert_rising(release, component, names)
    account = release.settled()
    report("pings", account)
    assert account.ok > 0
    assert (account.late, account.lost, account.malformed) == (0, 0, 0)

    assert "kubectl" in release.output, "the notes say what to type next"
    for pod in (server, client):
        _assert_quiet_json(release, pod.name)
    assert release.restarts == 0


def test_pings_in_all_modes(install: Install) -> None:
    release = install({"client": {"settings": {"mode": list(MODES), "interval": 0.1}}})
    release.wait_up(1)

    def ten_answers_in_each_mode() -> bool:
        samples = release.metrics(release.pod("client"))
        assert samples.labels(SENT, "mode") == set(MODES)
        answered = {mode: samples.account(mode=mode).ok for mode in MODES}
        assert min(answered.values()) >= 10, answered
        return True

    eventually(ten_answers_in_each_mode, timeout=20, what="each mode has ten answers")
    account = release.settled()
    assert (account.late, account.lost, account.malformed) == (0, 0, 0)


def test_helm_test_passes_and_fails_with_the_server(install: Install) -> None:
    release = install({"client": {"enabled": False}, "test": {"count": 7, "deadlineSeconds": 10}})
    answered = "pingpong_server_messages_answered_total"
    before = release.metrics(release.pod("server")).sum(answered)
    passed = release.test()
    assert passed.ok, passed.output
    after = release.metrics(release.pod("server")).sum(answered)
    assert after - before >= 7, "it really pings"

    release.cluster.apps.patch_namespaced_deployment_scale(
        "pingpong-server", release.namespace, {"spec": {"replicas": 0}}
    )
    eventually(lambda: not release.all_pods("server"), timeout=60, what="the server is gone")
    failed = release.test()
    assert not failed.ok, failed.output


def test_helm_test_fails_with_a_wrong_token(
    cluster: Cluster, namespace: str, install: Install
) -> None:
    for name, token in (
        ("good", "a-good-token-of-the-test"),
        ("wrong", "a-wrong-token-of-the-test"),
    ):
        secret = {"apiVersion": "v1", "kind": "Secret", "stringData": {"token": token}}
        cluster.apply({**secret, "metadata": {"name": name, "namespace": namespace}})
    server = {"auth": {"mode": "token", "tokenSecret": {"name": "good"}}}
    client = {"auth": {"mode": "secret", "tokenSecret": {"name": "wrong"}}}
    release = install({"server": server, "client": client, "test": {"deadlineSeconds": 10}})
    failed = release.test()
    assert not failed.ok, failed.output
    assert "401" in failed.output

    def refused() -> bool:
        samples = release.metrics(release.pod("client"))
        assert samples.sum("pingpong_client_connects_total", result="unauthorized") > 0
        assert samples.sum("pingpong_client_connects_total", result="ok") == 0
        return True

    eventually(refused, timeout=20, what="the client is refused")
    for pod in (release.pod("server"), release.pod("client")):
        assert "of-the-test" not in release.logs(pod)

    release.upgrade({"client": {"auth": {"tokenSecret": {"name": "good"}}}})
    release.wait_up(1)
    passed = release.test()
    assert passed.ok, passed.output


def test_uninstall_leaves_nothing_in_the_namespace(
    cluster: Cluster, namespace: str, install: Install
) -> None:
    before = _things_in(cluster, namespace)
    release = install(
        {"client": {"discovery": "endpointslice"}, "networkPolicy": {"enabled": True}}
    )
    assert len(_things_in(cluster, namespace) - before) > 5
    passed = release.test()
    assert passed.ok, passed.output
    release.uninstall()

    def nothing_is_left() -> bool:
        left = _things_in(cluster, namespace) - before
        assert left == set()
        return True

    eventually(nothing_is_left, timeout=60, what="the namespace is as it was")


def _assert_rising(release: Release, component: str, names: list[str]) -> None:
    pod = release.pod(component)
    first = release.metrics(pod)

    def all_rose() -> bool:
        later = release.metrics(pod)
        assert [name for name in names if later.sum(name) <= first.sum(name)] == []
        return True

    eventually(all_rose, timeout=30, what=f"the {component}'s counters rise", interval=0.5)


def _assert_quiet_json(release: Release, pod: str) -> None:
    """Lines of JSON; and no warning, except while the other one wasn't there yet."""
    lines = release.events(pod)
    assert lines
    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines), lines
    is_up = [line["event"] for line in lines].index("target_up") if "client" in pod else 0
    assert [line for line in lines if line["level"] == "error"] == []
    assert [line for line in lines[is_up:] if line["level"] != "info"] == []


def _things_in(cluster: Cluster, namespace: str) -> set[str]:
    """What a namespace has, as kind/name, whatever kinds there are; without its events."""
    kinds = cluster.kubectl(
        "api-resources", "--namespaced", "--verbs=list", "--output=name"
    ).split()
    wanted = ",".join(kind for kind in kinds if not kind.startswith("events"))
    words = ("get", wanted, "--namespace", namespace, "--output=name", "--ignore-not-found")
    return set(cluster.kubectl(*words).split())
