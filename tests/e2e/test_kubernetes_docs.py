"""docs/kubernetes.md, typed as it stands there, one command after the other; and the runbook's first."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path

import pytest

from tests.conftest import REQUIRE_ALL
from tests.e2e.cluster import Cluster
from tests.e2e.commands import attempt
from tests.e2e.images import Images
from tests.e2e.machine import ROOT
from tests.support.certificates import Authority
from tests.support.docs import blocks

pytestmark = pytest.mark.e2e

NOT_IN_A_CLONE = shutil.ignore_patterns(".*", "__pycache__", "build", "dist")


def typed(namespace: str) -> list[str]:
    """The lines of the page's commands, and after those that look at the pods the runbook's."""
    install, look, *others = blocks("docs/kubernetes.md", "sh")
    [runbook] = blocks("charts/pingpong/RUNBOOK.md", "sh")
    text = "".join([install, look, runbook.replace("NAMESPACE", namespace), *others])
    return [line.strip() for line in text.splitlines() if line.strip()]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def as_typed(line: str) -> str:
    """A command at a person's pace."""
    if line.startswith("pingpong ping"):
        # kube-proxy hears of a new port a moment after helm has returned; kubelet, which looks after
        # a Secret every minute or so, is hurried by the pods' new annotations.
        hurry = "kubectl annotate pods --all pingpong.test/looked-at=$try --overwrite"
        return f"for try in $(seq 30); do {hurry}; {line} && break; sleep 1; done"
    if "port-forward" not in line:
        return line
    # Somebody looks at the page, and presses Ctrl-C.
    command, _, port = line.rpartition(" ")
    mine = free_port()
    return (
        f"{command} {mine}:{port} & FORWARD=$!\n"
        f"until curl -fsS localhost:{mine}/readyz; do kill -0 $FORWARD; sleep 0.2; done\n"
        f"curl -fsS localhost:{mine}/metrics | grep pingpong_client_session_up\n"
        "kill $FORWARD"
    )


def shims(folder: Path, cluster: Cluster) -> None:
    """What a machine's own set-up would say: which cluster, which network, where pingpong is."""
    path = cluster.kind.environment["PATH"]
    docker, kind = shutil.which("docker", path=path), shutil.which("kind", path=path)
    scripts = {
        "docker": f'[ "$1" != build ] || {{ shift; set -- build --network=host "$@"; }}\n'
        f'exec {docker} "$@"',
        "kind": f'verb=$1 what=$2; shift 2\nexec {kind} $verb $what --name {cluster.name} "$@"',
        "pingpong": f'exec {sys.executable} -m pingpong "$@"',
    }
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)


def test_the_page_on_kubernetes(
    cluster: Cluster, images: Images, namespace: str, tmp_path: Path
) -> None:
    environment = {
        name: value
        for name, value in cluster.kind.environment.items()
        if not name.startswith("PINGPONG_")
    }
    if shutil.which("kubectl", path=environment["PATH"]) is None:
        lacks = "there is no kubectl on the PATH, which the page's reader has"
        if os.environ.get(REQUIRE_ALL) == "1":
            pytest.fail(lacks)
        pytest.skip(lacks)
    clone = tmp_path / "pingpong"
    shutil.copytree(ROOT, clone, ignore=NOT_IN_A_CLONE)
    shutil.copy(ROOT / ".dockerignore", clone)
    shims(tmp_path / "bin", cluster)
    kubeconfig = tmp_path / "kubeconfig"
    shutil.copy(cluster.kind.kubeconfig, kubeconfig)
    issued = Authority().issue(
        f"pingpong-server.{namespace}.svc", *(cluster.node_address(name) for name in cluster.nodes)
    )
    for name, content in issued.secret(issued.authority_pem).items():
        (clone / name).write_bytes(content)
    environment |= {
        "PATH": f"{tmp_path / 'bin'}:{environment['PATH']}",
        "KUBECONFIG": str(kubeconfig),
        "PYTHONPATH": str(clone / "services"),
        "DOCKER_BUILDKIT": "1",
    }
    script = "\n".join(
        [
            "set -euo pipefail",
            "trap 'kill $(jobs -p) 2>/dev/null || :' EXIT",
            f"kubectl config set-context --current --namespace={namespace}",
            "set -x",
            *map(as_typed, typed(namespace)),
        ]
    )
    ended = attempt("bash", "-c", script, environment=environment, cwd=str(clone), timeout=280)
    assert ended.ok, ended.output[-12_000:]
    # Two from a pod, one from this machine, one with a token; and `helm test`'s own.
    assert ended.output.count("5 sent, 5 received, 0% loss") == 5, ended.output
    assert "Phase:          Succeeded" in ended.output
    assert '"event": "target_up"' in ended.output
    assert "pingpong_client_session_up{" in ended.output
    assert 'release "pingpong" uninstalled' in ended.output
    assert all(pod.is_leaving for pod in cluster.pods(namespace))
