"""Secrets, and what becomes of them in the pods that have them mounted."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from kubernetes.client import ApiException, V1ObjectMeta, V1Secret

from tests.e2e.cluster import Cluster
from tests.e2e.pods import Pod
from tests.e2e.waiting import eventually

TLS = "kubernetes.io/tls"

_HURRY = 2.0
"""Seconds after which kubelet is hurried again: it may have been before it knew the new Secret."""

T = TypeVar("T")


def put_secret(
    cluster: Cluster,
    namespace: str,
    name: str,
    data: Mapping[str, bytes],
    *,
    kind: str = "Opaque",
    annotations: Mapping[str, str] | None = None,
) -> None:
    """Make a Secret of that type, or replace the one of that name."""
    encoded: dict[str, bytes | str] = {
        key: base64.b64encode(value).decode("ascii") for key, value in data.items()
    }
    metadata = V1ObjectMeta(name=name, annotations=dict(annotations or {}))
    secret = V1Secret(metadata=metadata, type=kind, data=encoded)
    try:
        cluster.core.create_namespaced_secret(namespace, secret)
    except ApiException as error:
        if error.status != 409:
            raise
        cluster.core.replace_namespaced_secret(name, namespace, secret)


def mounted(cluster: Cluster, pod: Pod, volume: str, file: str) -> str:
    """What a pod's volume, of a Secret, has in a file now; read on the pod's node."""
    path = f"/var/lib/kubelet/pods/{pod.uid}/volumes/kubernetes.io~secret/{volume}/{file}"
    return cluster.node_exec(pod.node, "cat", path)


def eventually_mounted(
    cluster: Cluster,
    namespace: str,
    pod: Pod,
    condition: Callable[[], T],
    *,
    what: str,
    timeout: float = 30,
) -> T:
    """Wait for what follows from a Secret's change, as `eventually` does.

    kubelet looks after a pod's volumes every minute or so, and when the pod itself changes. So that
    nobody waits for a minute, the pod gets another annotation every now and then.
    """
    hurried_at = float("-inf")

    def hurry_and_look() -> T:
        nonlocal hurried_at
        now = time.monotonic()
        if now - hurried_at > _HURRY:
            hurried_at = now
            annotations = {"pingpong.test/looked-at": str(now)}
            cluster.core.patch_namespaced_pod(
                pod.name, namespace, {"metadata": {"annotations": annotations}}
            )
        return condition()

    return eventually(hurry_and_look, timeout=timeout, what=what)
