"""The cluster, as tests talk to it: the API's clients, its nodes, and what is in a namespace."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kubernetes import config
from kubernetes.client import (
    ApiClient,
    AppsV1Api,
    CoreV1Api,
    DiscoveryV1Api,
    NetworkingV1Api,
    RbacAuthorizationV1Api,
)

from tests.e2e.commands import Result, attempt, run
from tests.e2e.kind_clusters import KindCluster
from tests.e2e.pods import Pod
from tests.e2e.waiting import eventually

CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
ENFORCE = "pod-security.kubernetes.io/enforce"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a GET through the API server."""

    status: int
    text: str

    @property
    def ok(self) -> bool:
        """Whether its status was 200."""
        return self.status == 200


class Cluster:
    """A kind cluster that answers; `close` it in the end."""

    def __init__(self, kind: KindCluster) -> None:
        self.kind = kind
        self.name = kind.name
        connect: Callable[[str], ApiClient] = config.new_client_from_config
        self.api = connect(str(kind.kubeconfig))
        # Untyped: their types say of every attribute of every object that it may be None.
        self.core: Any = CoreV1Api(self.api)
        self.apps: Any = AppsV1Api(self.api)
        self.discovery: Any = DiscoveryV1Api(self.api)
        self.networking: Any = NetworkingV1Api(self.api)
        self.rbac: Any = RbacAuthorizationV1Api(self.api)
        nodes = self._nodes()
        self.nodes: list[str] = sorted(node.metadata.name for node in nodes)
        """Their names, which are those of docker's containers too."""
        self.workers: list[str] = sorted(
            node.metadata.name for node in nodes if CONTROL_PLANE not in node.metadata.labels
        )
        """The nodes where pods are put."""

    def close(self) -> None:
        """Close the connections to the API."""
        self.api.rest_client.close()

    def wait_ready(self, timeout: float = 120) -> None:
        """Wait until every node is ready, and names are answered."""
        eventually(self._is_ready, timeout=timeout, what="all nodes and CoreDNS are ready")

    def _is_ready(self) -> bool:
        for node in self._nodes():
            conditions = {each.type: each.status for each in node.status.conditions or ()}
            assert conditions.get("Ready") == "True", f"{node.metadata.name}: {conditions}"
        dns = self.apps.read_namespaced_deployment("coredns", "kube-system")
        assert dns.status.ready_replicas, f"coredns: {dns.status.to_dict()}"
        return True

    def _nodes(self) -> list[Any]:
        return list(self.core.list_node().items)

    def pods(self, namespace: str, selector: str = "") -> list[Pod]:
        """All that are there, sorted by name."""
        found = self.core.list_namespaced_pod(namespace, label_selector=selector)
        return sorted(Pod.of(pod) for pod in found.items)

    # Programs.

    def helm(self, *arguments: str, timeout: float = 120) -> Result:
        """Run helm on this cluster, however it ends."""
        return attempt(
            *("helm", "--kubeconfig", str(self.kind.kubeconfig), *arguments),
            environment=self.kind.environment,
            timeout=timeout,
        )

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> str:
        """Run the control plane's kubectl. Raises CommandError unless it ends with 0."""
        return run(
            *("docker", "exec", "--interactive", f"{self.name}-control-plane"),
            *("kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", *arguments),
            environment=self.kind.environment,
            timeout=timeout,
            stdin=stdin,
        )

    def apply(self, *manifests: dict[str, Any]) -> None:
        """`kubectl apply` these objects. Raises CommandError."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        self.kubectl("apply", "--filename", "-", stdin=text)

    def node_exec(self, node: str, *command: str, timeout: float = 60) -> str:
        """Run a program on a node. Raises CommandError unless it ends with 0."""
        return run(
            *("docker", "exec", node, *command),
            environment=self.kind.environment,
            timeout=timeout,
        )

    def docker(self, *arguments: str, timeout: float = 60) -> str:
        """Run docker: nodes are its containers. Raises CommandError unless it ends with 0."""
        return run("docker", *arguments, environment=self.kind.environment, timeout=timeout)

    def node_address(self, node: str) -> str:
        """The address at which the node's NodePorts are reached from this machine."""
        addresses = self.core.read_node(node).status.addresses
        return next(str(each.address) for each in addresses if each.type == "InternalIP")

    # GETs that the API's generated clients have no good form for.

    def get(self, path: str, timeout: float = 10, **query: str) -> Answer:
        """GET a path of the API server; urllib3's HTTPError where there is no answer."""
        response = self.api.rest_client.pool_manager.request(
            "GET",
            f"{self.api.configuration.host}{path}",
            fields=query or None,
            timeout=timeout,
            retries=False,
        )
        return Answer(response.status, response.data.decode(errors="replace"))

    def get_from_pod(
        self, namespace: str, pod: str, path: str, *, port: int = 8080, timeout: float = 10
    ) -> Answer:
        """GET a path, perhaps with a query, of a pod, through the API's proxy."""
        proxy = f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy"
        return self.get(f"{proxy}{path}", timeout)

    def logs(
        self, namespace: str, pod: str, container: str | None = None, *, previous: bool = False
    ) -> str:
        """What a container has logged; `previous`: the one before its last restart.

        Raises AssertionError where there is nothing to be had.
        """
        query = {"container": container} if container else {}
        if previous:
            query["previous"] = "true"
        answer = self.get(f"/api/v1/namespaces/{namespace}/pods/{pod}/log", 30, **query)
        if not answer.ok:
            raise AssertionError(f"no logs of {pod}: {answer.text}")
        return answer.text
