"""Faults, made and always mended."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from kubernetes.client import ApiException, V1Eviction, V1ObjectMeta

from tests.e2e.cluster import Cluster
from tests.e2e.commands import CommandError
from tests.e2e.pods import Pod
from tests.e2e.waiting import eventually

_TOO_MANY_REQUESTS = 429
_CUT = ("FORWARD", "-m", "comment", "--comment", "pingpong-e2e", "-j", "DROP")
_COREDNS = ("coredns", "kube-system")


def kill_container(cluster: Cluster, pod: Pod) -> None:
    """Kill the pod's only container as the kernel does when memory runs out."""
    [status] = pod.found.status.container_statuses
    identifier = status.container_id.removeprefix("containerd://")
    command = ("ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", identifier)
    try:
        cluster.node_exec(pod.node, *command)
    except CommandError as error:
        # It may have ended by itself in this moment.
        if "not found" not in str(error) and "already finished" not in str(error):
            raise


@contextlib.contextmanager
def network_cut(cluster: Cluster, node: str) -> Iterator[None]:
    """Nothing gets to the node's pods or from them, but for what is on the node itself."""
    try:
        cluster.node_exec(node, "iptables", "--wait", "-I", *_CUT)
        yield
    finally:
        cluster.node_exec(node, "iptables", "--wait", "-D", *_CUT)


@contextlib.contextmanager
def uncordoned(cluster: Cluster, node: str) -> Iterator[None]:
    """Pods may come to the node again in the end, whatever was done to it."""
    try:
        yield
    finally:
        cluster.kubectl("uncordon", node)


def evict(cluster: Cluster, pod: Pod) -> bool:
    """Ask for a pod's eviction; whether it was granted: a disruption budget may be against it."""
    namespace = pod.found.metadata.namespace
    body = V1Eviction(metadata=V1ObjectMeta(name=pod.name, namespace=namespace))
    try:
        cluster.core.create_namespaced_pod_eviction(pod.name, namespace, body)
    except ApiException as error:
        if error.status != _TOO_MANY_REQUESTS:
            raise
        return False
    return True


@contextlib.contextmanager
def without_dns(cluster: Cluster) -> Iterator[None]:
    """CoreDNS is scaled to zero, and back; at either end it is waited until it is so."""
    deployment = cluster.apps.read_namespaced_deployment(*_COREDNS)
    selector = "k8s-app=kube-dns"
    try:
        _scale_dns(cluster, 0)
        eventually(
            lambda: not cluster.pods("kube-system", selector),
            timeout=60,
            what="CoreDNS is gone",
        )
        yield
    finally:
        _scale_dns(cluster, deployment.spec.replicas)
        eventually(
            lambda: any(pod.is_ready for pod in cluster.pods("kube-system", selector)),
            timeout=90,
            what="CoreDNS is ready",
        )


def _scale_dns(cluster: Cluster, replicas: int) -> None:
    cluster.apps.patch_namespaced_deployment_scale(*_COREDNS, {"spec": {"replicas": replicas}})


def hold(seconds: float) -> None:
    """Let a fault last: it is its length that is to be survived, nothing comes of waiting less."""
    time.sleep(max(seconds, 0))
