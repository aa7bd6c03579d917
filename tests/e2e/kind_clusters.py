"""Making, loading and deleting kind clusters."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.commands import CommandError, attempt, run

CONFIG = Path(__file__).with_name("kind.yaml")
_CREATION = 240.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class KindCluster:
    """A cluster that answers."""

    name: str
    kubeconfig: Path
    environment: Mapping[str, str]
    """With docker, kind and helm on its PATH."""
    is_new: bool
    """Whether it was made just now: whoever made it deletes it."""

    def load(self, *images: str) -> None:
        """Put images of the local docker on every node. Raises CommandError."""
        run(
            *("kind", "load", "docker-image", "--name", self.name, *images),
            environment=self.environment,
            timeout=300,
        )

    def delete(self) -> None:
        """Delete it. Raises CommandError."""
        run(
            *("kind", "delete", "cluster", "--name", self.name),
            *("--kubeconfig", str(self.kubeconfig)),
            environment=self.environment,
            timeout=120,
        )


def make_or_reuse(name: str, kubeconfig: Path, environment: Mapping[str, str]) -> KindCluster:
    """The cluster of this name; its kubeconfig is written to that file. Raises CommandError.

    One that is there but does not answer (its docker was stopped, say) is made anew.
    """
    there = run("kind", "get", "clusters", environment=environment).split()
    if name in there:
        cluster = KindCluster(name, kubeconfig, environment, is_new=False)
        if _answers(cluster):
            return cluster
        print(f"the cluster {name} does not answer: making it anew", file=sys.stderr)
        cluster.delete()
    cluster = KindCluster(name, kubeconfig, environment, is_new=True)
    node_image = environment.get("KIND_NODE_IMAGE")
    command = ["kind", "create", "cluster", "--name", name, "--config", str(CONFIG)]
    command += ["--kubeconfig", str(kubeconfig), "--wait", "120s"]
    if node_image:
        command += ["--image", node_image]
    try:
        run(*command, environment=environment, timeout=_CREATION)
    except BaseException:
        # kind removes what fails, but not what is interrupted.
        attempt(
            *("kind", "delete", "cluster", "--name", name, "--kubeconfig", str(kubeconfig)),
            environment=environment,
        )
        raise
    return cluster


def _answers(cluster: KindCluster) -> bool:
    """Whether its API server does; writes the kubeconfig."""
    command = ["kind", "export", "kubeconfig", "--name", cluster.name]
    command += ["--kubeconfig", str(cluster.kubeconfig)]
    if not attempt(*command, environment=cluster.environment).ok:
        return False
    try:
        return attempt(
            *("docker", "exec", f"{cluster.name}-control-plane", "kubectl"),
            *("--kubeconfig", "/etc/kubernetes/admin.conf"),
            *("get", "--raw=/readyz", "--request-timeout=5s"),
            environment=cluster.environment,
            timeout=20,
        ).ok
    except CommandError:
        return False
