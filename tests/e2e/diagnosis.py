"""What a namespace looks like when a test has failed in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from tests.e2e.cluster import Cluster
from tests.e2e.commands import CommandError

LINES = 60
"""Of a container's log: the last ones."""


def diagnose(cluster: Cluster, namespace: str) -> Iterator[tuple[str, str]]:
    """Titles and texts: helm's status, events, the state and logs of pods; never raises."""
    for title, text in (
        ("helm", _helm),
        ("events", _events),
        ("pods", _pods),
        ("logs", _logs),
    ):
        try:
            found = text(cluster, namespace)
        except (ApiException, HTTPError, CommandError, AssertionError) as error:
            found = f"not to be had: {error}"
        yield f"{title} of {namespace}", found or "none"


def _helm(cluster: Cluster, namespace: str) -> str:
    names = cluster.helm("--namespace", namespace, "list", "--all", "--short").output.split()
    shown = [cluster.helm("--namespace", namespace, "status", name).output for name in names]
    return "\n".join(shown)


def _events(cluster: Cluster, namespace: str) -> str:
    words = ("get", "events", "--namespace", namespace, "--sort-by=.lastTimestamp")
    return cluster.kubectl(*words)


def _pods(cluster: Cluster, namespace: str) -> str:
    shown = [cluster.kubectl("get", "pods", "--namespace", namespace, "--output=wide")]
    for pod in cluster.pods(namespace):
        statuses = pod.found.status.container_statuses or ()
        shown += [f"{pod.name}: {_state(status)}" for status in statuses]
    return "\n".join(shown)


def _state(status: Any) -> str:
    parts = [f"{status.name}, restarts {status.restart_count}"]
    for what, state in (("state", status.state), ("last state", status.last_state)):
        if state is not None:
            known = {k: v for k, v in state.to_dict().items() if v is not None}
            parts.append(f"{what} {known}")
    return ", ".join(parts)


def _logs(cluster: Cluster, namespace: str) -> str:
    shown = []
    for pod in cluster.pods(namespace):
        for status in pod.found.status.container_statuses or ():
            of = (cluster, namespace, pod.name, status.name)
            if status.restart_count:
                shown.append(_log(*of, previous=True))
            shown.append(_log(*of, previous=False))
    return "\n".join(shown)


def _log(cluster: Cluster, namespace: str, pod: str, container: str, *, previous: bool) -> str:
    try:
        lines = cluster.logs(namespace, pod, container, previous=previous).splitlines()
    except AssertionError as error:
        lines = [str(error)]
    title = f"--- {pod} {container}{', before its last restart' if previous else ''}"
    return "\n".join([title, *lines[-LINES:]])
