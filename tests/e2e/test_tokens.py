"""Who may ping, as tokens say: service accounts', which the cluster verifies, and those of Secrets."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from kubernetes.client import (
    AuthenticationV1TokenRequest,
    RbacV1Subject,
    V1ClusterRoleBinding,
    V1ObjectMeta,
    V1RoleRef,
    V1TokenRequestSpec,
)

from tests.e2e import inside, outside
from tests.e2e.cluster import Cluster
from tests.e2e.conftest import Install, Report
from tests.e2e.mounted_secrets import eventually_mounted, mounted, put_secret
from tests.e2e.pods import Pod
from tests.e2e.release import Release
from tests.e2e.visitors import visitor
from tests.e2e.waiting import Stopwatch, eventually

pytestmark = pytest.mark.e2e

SESSIONS = "pingpong_server_sessions_total"
CONNECTS = "pingpong_client_connects_total"
REMEMBERED = 60.0
"""Seconds for which the server takes a token for good that it has asked about."""
LEEWAY = 15.0
"""Seconds: the API server remembers for ten of them, and the rest is for looking."""


def may_come(release: Release, client: Pod) -> bool:
    """Whether the server lets a new session in, with the token that is mounted in a pod."""
    refusal = inside.refusal(release, client)
    assert refusal is None or "401" in refusal, refusal
    return refusal is None


def make_token(cluster: Cluster, namespace: str, account: str, audience: str) -> str:
    """A token of a service account, as `kubectl create token` makes it."""
    request = AuthenticationV1TokenRequest(spec=V1TokenRequestSpec(audiences=[audience]))
    made = cluster.core.create_namespaced_service_account_token(account, namespace, request)
    return str(made.status.token)


def assert_refused(release: Release) -> None:
    """The client is told that it is not authorized, and never let in."""
    client = release.pod("client")
    eventually(
        lambda: release.metrics(client).value(CONNECTS, result="unauthorized") > 0,
        timeout=20,
        what=f"{client} is refused",
    )
    samples = release.metrics(client)
    assert samples.sum(CONNECTS) == samples.value(CONNECTS, result="unauthorized")
    assert not samples.targets_up


def test_service_accounts_are_let_in_by_tokens_for_the_audience_until_they_are_revoked(
    cluster: Cluster, namespace: str, install: Install, report: Report, tmp_path: Path
) -> None:
    release = install(
        {
            "server": {
                "auth": {"mode": "kubernetes", "audience": "pings"},
                "externalService": {"enabled": True},
            },
            "client": {"auth": {"mode": "serviceAccount"}, "settings": {"interval": 0.05}},
        }
    )
    release.wait_up(1)
    server, client = release.pod("server"), release.pod("client")
    counted = release.settled(client)
    assert may_come(release, client)
    # Outside, with what `kubectl create token` prints.
    token_file = tmp_path / "token"
    token_file.write_text(make_token(cluster, namespace, "pingpong-client", "pings"))
    url = outside.server_url(cluster, namespace, cluster.workers[0])
    outside.eventually_ping(url, "--insecure", "-c", "1", "--token-file", str(token_file))

    samples = release.metrics(server)
    assert samples.value(SESSIONS, result="accepted") == 3
    refused = samples.value(SESSIONS, result="unauthorized")
    cluster.core.delete_namespaced_service_account("pingpong-client", namespace)
    watch = Stopwatch()

    # The server remembers that one for a while. Others' tokens are refused at once.
    assert_refused(
        visitor(install, "other", {"auth": {"mode": "serviceAccount", "audience": "others"}})
    )
    assert_refused(visitor(install, "nobody", {"auth": {"mode": "none"}}))
    assert release.metrics(server).value(SESSIONS, result="unauthorized") >= refused + 2

    eventually(
        lambda: not may_come(release, client),
        timeout=REMEMBERED + LEEWAY,
        what="the token of the deleted account is refused",
        interval=2,
    )
    report("a service account deleted, until its token opens no session", watch.seconds)
    assert release.metrics(client).value(CONNECTS, result="ok") == 1
    account = release.settled(client) - counted
    assert (account.lost, account.late, account.send_error) == (0, 0, 0), str(account)
    report("pings of its open session meanwhile", str(account))

    for pod in (server, client):
        assert "eyJ" not in release.logs(pod), "no token is logged"
    assert release.restarts == 0


def test_a_server_that_may_not_review_tokens_says_so_and_works_once_it_may(
    cluster: Cluster, namespace: str, install: Install
) -> None:
    release = install(
        {
            # An authority of the release's own would need rights as well.
            "server": {"auth": {"mode": "kubernetes"}, "tls": {"mode": "selfSigned"}},
            "client": {"auth": {"mode": "serviceAccount"}},
            "rbac": {"create": False},
        }
    )
    server, client = release.pod("server"), release.pod("client")
    # At its start, before the first client comes.
    [event, *_] = eventually(
        lambda: release.events(server, "token_review_failed"), timeout=10, what="it is logged"
    )
    assert event["level"] == "error"
    assert "bind it to the ClusterRole system:auth-delegator" in event["error"]
    # Nobody's token is called wrong for that.
    eventually(
        lambda: release.metrics(client).value(CONNECTS, result="http_status") > 0,
        timeout=20,
        what="the client is told to come again",
    )
    samples = release.metrics(client)
    assert samples.value(CONNECTS, result="unauthorized") == 0
    assert not samples.targets_up
    assert release.metrics(server).value(SESSIONS, result="unauthorized") > 0

    name = f"{namespace}:reviews"
    binding = V1ClusterRoleBinding(
        metadata=V1ObjectMeta(name=name),
        role_ref=V1RoleRef(
            api_group="rbac.authorization.k8s.io", kind="ClusterRole", name="system:auth-delegator"
        ),
        subjects=[
            RbacV1Subject(kind="ServiceAccount", name="pingpong-server", namespace=namespace)
        ],
    )
    cluster.rbac.create_cluster_role_binding(binding)
    try:
        release.wait_up(1)
        assert release.events(server, "token_review_recovered")
        assert release.pod("server") == server
        assert release.restarts == 0
    finally:
        cluster.rbac.delete_cluster_role_binding(name)


def test_tokens_of_secrets_are_replaced_one_after_the_other_without_a_lost_ping(
    cluster: Cluster, namespace: str, install: Install, report: Report
) -> None:
    old, new = secrets.token_hex(16), secrets.token_hex(16)

    def put(name: str, *tokens: str) -> Stopwatch:
        put_secret(cluster, namespace, name, {"token": "\n".join(tokens).encode()})
        return Stopwatch()

    put("good-tokens", old)
    put("client-token", old)
    release = install(
        {
            "server": {"auth": {"mode": "token", "tokenSecret": {"name": "good-tokens"}}},
            "client": {
                "auth": {"mode": "secret", "tokenSecret": {"name": "client-token"}},
                "settings": {"interval": 0.05},
            },
        }
    )
    release.wait_up(1)
    server, client = release.pod("server"), release.pod("client")
    counted = release.settled(client)
    connects = release.metrics(client).sum(CONNECTS)
    assert_refused(visitor(install, "nobody", {"auth": {"mode": "none"}}))

    def server_has(*counts: int) -> None:
        eventually_mounted(
            cluster,
            namespace,
            server,
            lambda: (
                [each["count"] for each in release.events(server, "tokens_loaded")] == list(counts)
            ),
            what=f"the server has loaded {counts} tokens",
        )

    watch = put("good-tokens", old, new)
    server_has(1, 2)
    report("a Secret is replaced until the server has its tokens (kubelet hurried)", watch.seconds)
    put("client-token", new)
    eventually_mounted(
        cluster,
        namespace,
        client,
        lambda: mounted(cluster, client, "token", "token") == new,
        what="the client has the new token",
    )
    put("good-tokens", new)
    server_has(1, 2, 1)

    assert may_come(release, client)
    put("client-token", old)
    eventually_mounted(
        cluster,
        namespace,
        client,
        lambda: not may_come(release, client),
        what="the old token is refused",
    )
    assert release.metrics(client).sum(CONNECTS) == connects, "the session is the first one still"
    account = release.settled(client) - counted
    assert (account.lost, account.late, account.send_error) == (0, 0, 0), str(account)
    for pod in (server, client):
        assert old not in release.logs(pod)
        assert new not in release.logs(pod)
    assert release.restarts == 0
