"""When which endpoints of a Service were ready, as the API tells it."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from tests.e2e.cluster import Cluster

_WATCH = 60
"""Seconds after which the API ends a watch."""
_FIRST = 10.0
"""Seconds in which it is told how it is now."""


class ReadyEndpoints:
    """Watches the EndpointSlices of a Service in a thread, from its making to `stop`.

    The Service has one already.

    Ready are those that new connections may go to: that serve, and don't end.
    """

    def __init__(self, cluster: Cluster, namespace: str, service: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._selector = f"kubernetes.io/service-name={service}"
        self._since: list[tuple[float, frozenset[str]]] = []
        self._is_stopped = False
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        # What is ready now must be known, or it would seem to become so.
        assert self._has_begun.wait(_FIRST), f"the API tells nothing of {service}"

    def stop(self) -> None:
        """Look no more; the thread ends with the next news, or its watch."""
        self._is_stopped = True

    def ready_at(self, address: str, since: float) -> float:
        """When an address was first seen to be ready after it was not, in seconds since 1970.

        Times before `since` don't count. Raises AssertionError as long as it isn't.
        """
        was_ready = False
        for at, addresses in list(self._since):
            is_ready = address in addresses
            if is_ready and not was_ready and at >= since:
                return at
            was_ready = is_ready
        raise AssertionError(f"{address} is not ready (again) yet: {self._since[-3:]}")

    def _run(self) -> None:
        while not self._is_stopped:
            try:
                self._watch()
            except (ApiException, HTTPError):
                time.sleep(0.2)

    def _watch(self) -> None:
        slices: dict[str, frozenset[str]] = {}
        response = self._cluster.discovery.list_namespaced_endpoint_slice(
            self._namespace,
            label_selector=self._selector,
            watch=True,
            timeout_seconds=_WATCH,
            _preload_content=False,
        )
        with response:
            for line in response:
                if self._is_stopped:
                    return
                event = json.loads(line)
                name = event["object"]["metadata"]["name"]
                gone = event["type"] == "DELETED"
                slices[name] = frozenset() if gone else _ready(event["object"])
                self._since.append((time.time(), frozenset().union(*slices.values())))
                self._has_begun.set()


def _ready(each: dict[str, Any]) -> frozenset[str]:
    return frozenset(
        endpoint["addresses"][0]
        for endpoint in each.get("endpoints") or ()
        if endpoint["conditions"].get("ready") and not endpoint["conditions"].get("terminating")
    )
