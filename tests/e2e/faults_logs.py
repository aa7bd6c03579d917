"""What a pod logs until its end, which nobody can ask for once it is gone."""

from __future__ import annotations

import json
import threading
from datetime import datetime
from typing import Any

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from tests.e2e.cluster import Cluster
from tests.e2e.pods import Pod

Event = dict[str, Any]


def time_of(event: Event) -> float:
    """When it was logged, in seconds since 1970 by the node's clock: for kind, this machine's."""
    return datetime.fromisoformat(event["timestamp"]).timestamp()


class LogTail:
    """Reads a pod's log in a thread, from its beginning to its end."""

    def __init__(self, cluster: Cluster, namespace: str, pod: Pod) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._pod = pod
        self._lines: list[str] = []
        self._failure = ""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def events(self, event: str | None = None) -> list[Event]:
        """Its lines so far, read as JSON; those of one `event` only, where it is named."""
        found: list[Event] = [json.loads(line) for line in list(self._lines)]
        return [each for each in found if event is None or each["event"] == event]

    def wait_end(self, timeout: float) -> list[Event]:
        """Wait until the pod has ended; all that it logged. Raises AssertionError."""
        self._thread.join(timeout)
        if self._thread.is_alive() or self._failure:
            why = self._failure or f"goes on after {timeout:g} s"
            raise AssertionError(f"the log of {self._pod} {why}; so far: {self._lines[-5:]}")
        return self.events()

    def _run(self) -> None:
        try:
            response = self._cluster.core.read_namespaced_pod_log(
                self._pod.name, self._namespace, follow=True, _preload_content=False
            )
            with response:
                rest = b""
                for part in response.stream(None):
                    *lines, rest = (rest + part).split(b"\n")
                    self._lines += [line.decode() for line in lines]
        except (ApiException, HTTPError) as error:
            self._failure = f"cannot be followed: {error}"
