"""Where the cluster's API server is found, and what is said when it cannot be asked."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from kubernetes.aio.client import AuthenticationV1Api, V1TokenReview, V1TokenReviewSpec
from kubernetes.aio.config import incluster_config

from pingpong import cluster
from tests.support.certificates import Authority
from tests.support.kubernetes_api import TOKEN, ApiServer, jwt
from tests.support.processes import environment

InPod = Callable[[], AbstractContextManager[ApiServer]]


async def ask() -> None:
    """Ask the API server that is found for something."""
    async with cluster.connect("test") as api_client:
        await review(AuthenticationV1Api(api_client))


async def review(api: AuthenticationV1Api) -> None:
    spec = V1TokenReviewSpec(token=jwt("a").decode())
    await api.create_token_review(V1TokenReview(spec=spec), _request_timeout=5.0)


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No cluster is to be found. Returns the home folder."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    (home / ".kube").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def in_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> InPod:
    """Makes an API server, and makes this process a pod of its cluster."""

    @contextmanager
    def make() -> Iterator[ApiServer]:
        certificate = Authority().issue("127.0.0.1")
        (tmp_path / "server.pem").write_bytes(certificate.private_pem())
        (tmp_path / "ca.crt").write_bytes(certificate.authority_pem)
        (tmp_path / "token").write_text("own-token-1")
        monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
        monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
        with ApiServer(tmp_path / "server.pem") as api:
            monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
            yield api

    return make


async def test_the_variable_is_before_the_pods_account_which_is_before_the_home_folder(
    in_pod: InPod, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ApiServer() as named, in_pod() as pods, ApiServer() as at_home:
        at_home.kubeconfig(outside / ".kube")
        (outside / ".kube/kubeconfig").rename(outside / ".kube/config")
        monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'none'}:{named.kubeconfig(tmp_path)}")
        await ask()
        assert [len(api.requests) for api in (named, pods, at_home)] == [1, 0, 0]
        monkeypatch.delenv("KUBECONFIG")
        await ask()
        assert [len(api.requests) for api in (named, pods, at_home)] == [1, 1, 0]
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
        await ask()
        assert [len(api.requests) for api in (named, pods, at_home)] == [1, 1, 1]


async def test_without_a_cluster_it_is_said_what_to_do(
    outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advice = (
        "; set KUBECONFIG to a kubeconfig file,"
        " or run in a pod with a mounted service account token"
    )
    with pytest.raises(cluster.ClusterError) as failed:
        await ask()
    assert (
        str(failed.value)
        == f"test needs a Kubernetes cluster: there is no {outside}/.kube/config{advice}"
    )
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "none"))
    with pytest.raises(cluster.ClusterError) as failed:
        await ask()
    assert (
        str(failed.value)
        == f"test needs a Kubernetes cluster: Service token file does not exist{advice}"
    )


@pytest.mark.parametrize(
    "text",
    [
        *("", "a: [", f"users: {TOKEN}", f"users: *{TOKEN}", "- 1"),
        json.dumps(
            {
                "current-context": "a",
                "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
                "clusters": [{"name": "a", "cluster": {}}],
                "users": [{"name": "a", "token": TOKEN}],
            }
        ),
    ],
)
async def test_a_kubeconfig_that_is_none_does_not_show_what_is_in_it(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(cluster.ClusterError) as failed:
        await ask()
    assert TOKEN not in str(failed.value)
    assert "\n" not in str(failed.value)


async def test_a_pods_token_is_read_again(
    in_pod: InPod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now()

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return now

    times = SimpleNamespace(datetime=Later, timedelta=timedelta)
    monkeypatch.setattr(incluster_config, "datetime", times)
    with in_pod() as api:
        async with cluster.connect("test") as api_client:
            reviews = AuthenticationV1Api(api_client)
            await review(reviews)
            (tmp_path / "token").write_text("own-token-2")
            now += timedelta(seconds=61)
            await review(reviews)
        credentials = [str(request.credential).lower() for request in api.requests]
        assert credentials == ["bearer own-token-1", "bearer own-token-2"]


async def test_a_kubeconfigs_token_file_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_READ_AGAIN", 0.0)
    token = tmp_path / "token"
    token.write_text("first")
    with ApiServer() as api:
        monkeypatch.setenv("KUBECONFIG", api.kubeconfig(tmp_path, tokenFile=str(token)))
        async with cluster.connect("test") as api_client:
            token.write_text("second")
            await review(AuthenticationV1Api(api_client))
        assert [request.credential for request in api.requests] == ["Bearer second"]


async def test_a_certificate_that_is_not_trusted(in_pod: InPod, tmp_path: Path) -> None:
    with in_pod():
        (tmp_path / "ca.crt").write_bytes(Authority().issue("127.0.0.1").authority_pem)
        with pytest.raises(OSError, match="certificate") as failed:
            await ask()
    said = cluster.explain(failed.value)
    assert said == "the API server's certificate is not trusted: check the CA"


async def test_a_server_without_tls(in_pod: InPod, monkeypatch: pytest.MonkeyPatch) -> None:
    with in_pod(), ApiServer() as api:
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
        with pytest.raises(OSError, match="SSL") as failed:
            await ask()
    said = cluster.explain(failed.value)
    assert said.startswith("cannot connect to the API server: [SSL")


async def test_an_api_server_that_is_gone_without_a_word_is_noticed_within_a_minute(
    in_pod: InPod,
) -> None:
    with in_pod() as api:
        async with cluster.connect("test") as api_client:
            await review(AuthenticationV1Api(api_client))
            [connection] = connected_to(api.port)
            with connection:
                assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                idle, between, tries = (
                    connection.getsockopt(socket.IPPROTO_TCP, name)
                    for name in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
                )
    assert idle + between * tries <= 60


@pytest.mark.process
@pytest.mark.parametrize("service", ["server.service", "client.probe.service"])
def test_the_client_library_is_imported_only_where_a_cluster_is_asked(service: str) -> None:
    code = f"import sys, pingpong.{service}; print('kubernetes' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "False\n"


def connected_to(port: int) -> list[socket.socket]:
    """Duplicates of this process's sockets that are connected to a port of loopback."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            each = socket.fromfd(int(name), socket.AF_INET, socket.SOCK_STREAM)
            try:
                is_it = each.getpeername() == ("127.0.0.1", port)
            except OSError:
                is_it = False
            if is_it:
                found.append(each)
            else:
                each.close()
    return found
