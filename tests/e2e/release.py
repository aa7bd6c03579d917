"""The chart, installed: what helm does with it, its pods, and what they say."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from tests.e2e.cluster import Answer, Cluster
from tests.e2e.commands import Result
from tests.e2e.following import Following
from tests.e2e.machine import ROOT
from tests.e2e.pods import Pod
from tests.e2e.scraping import Account, Samples
from tests.e2e.waiting import eventually

CHART = ROOT / "charts" / "pingpong"

Values: TypeAlias = Mapping[str, Any]


class Release:
    """A release of the chart in a namespace."""

    def __init__(
        self, cluster: Cluster, namespace: str, name: str, values: Values, folder: Path
    ) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.name = name
        self.values = values
        """What was given of the present revision's, besides the chart's defaults."""
        self.output = ""
        """What helm printed at the last installation or upgrade: the chart's notes too."""
        self._folder = folder
        self._before: list[Values] = []

    # What helm does.

    def install(self, *, wait: bool = True) -> None:
        """Install it. Raises AssertionError where helm refuses, or pods aren't ready in time."""
        self._put("install", self.values, wait)

    def upgrade(self, values: Values, *, wait: bool = True) -> None:
        """Change these values, and leave the others as they are.

        A list is replaced, a value of None goes back to the chart's default. Raises as `install`.
        """
        changed = merged(self.values, values)
        self._put("upgrade", changed, wait)
        self._before.append(self.values)
        self.values = changed

    def rollback(self, *, wait: bool = True) -> None:
        """Back to the revision before. Raises as `install`."""
        self._helm("rollback", self.name)
        self.values = self._before.pop()
        if wait:
            self.wait()

    def test(self, timeout: float = 90) -> Result:
        """`helm test`: whether it passed, and what it wrote, with the log of a pod that failed.

        Not `--logs`: it fails where the pod of a test that passed is deleted.
        """
        result = self._attempt("test", self.name, "--timeout", f"{timeout:g}s")
        pods = self.all_pods("test")
        logs = [self.logs(pod) for pod in pods if pod.phase == "Failed"]
        return Result(result.status, "\n".join([result.output, *logs]))

    def status(self) -> Result:
        """`helm status`."""
        return self._attempt("status", self.name)

    def uninstall(self) -> None:
        """Uninstall it; its pods may take their time. Raises AssertionError where helm fails."""
        self._helm("uninstall", self.name)

    def wait(self, timeout: float = 90) -> None:
        """Wait until each Deployment and DaemonSet is as it was asked for, and its pods are ready."""
        eventually(self._is_rolled_out, timeout=timeout, what=f"{self.name} is rolled out")

    # Its pods. A pod is named, or is what `pods` returned.

    def pods(self, component: str) -> list[Pod]:
        """Of the `server` or the `client`: those that run, are ready and aren't being deleted."""
        return [pod for pod in self.all_pods(component) if pod.is_ready and not pod.is_leaving]

    def all_pods(self, component: str) -> list[Pod]:
        """Of the `server` or the `client`: all that there are, whatever state they are in."""
        selector = f"{self._selector},app.kubernetes.io/component={component}"
        return self.cluster.pods(self.namespace, selector)

    def pod(self, component: str) -> Pod:
        """The one that is ready. Raises AssertionError where there is none, or several are."""
        found = self.pods(component)
        if len(found) != 1:
            raise AssertionError(f"not one pod of the {component} is ready, but these: {found}")
        return found[0]

    @property
    def restarts(self) -> int:
        """Of all containers of the pods that are there."""
        return sum(pod.restarts for part in ("server", "client") for pod in self.all_pods(part))

    def get(self, pod: Pod | str, path: str) -> Answer:
        """GET a path of a pod's admin port, through the API's proxy."""
        return self.cluster.get_from_pod(self.namespace, str(pod), path)

    def metrics(self, pod: Pod | str) -> Samples:
        """Scrape a pod. Raises AssertionError unless it answers with its metrics."""
        answer = self.get(pod, "/metrics")
        if not answer.ok:
            raise AssertionError(f"{pod!s} answers {answer.status}: {answer.text}")
        return Samples(answer.text)

    def logs(self, pod: Pod | str, *, previous: bool = False) -> str:
        """What a pod's only container has logged."""
        return self.cluster.logs(self.namespace, str(pod), previous=previous)

    def events(self, pod: Pod | str, event: str | None = None) -> list[dict[str, Any]]:
        """A pod's log lines, read as JSON; those of one `event` only, where it is named."""
        lines: list[dict[str, Any]] = [json.loads(line) for line in self.logs(pod).splitlines()]
        return [line for line in lines if event is None or line["event"] == event]

    def exec(self, pod: Pod | str, *command: str, timeout: float = 60) -> str:
        """Run a program in a pod. Raises CommandError unless it ends with 0."""
        words = ("exec", "--namespace", self.namespace, str(pod), "--", *command)
        return self.cluster.kubectl(*words, timeout=timeout)

    # A client and its pings. Without a pod, of the one client that is ready.

    def wait_up(
        self, targets: int, pod: Pod | str | None = None, *, timeout: float = 30
    ) -> Samples:
        """Wait until a client has exactly so many targets, and each answers; the scrape says so."""
        client = pod or self.pod("client")

        def all_up() -> Samples:
            samples = self.metrics(client)
            up = samples.targets_up
            seen = f"targets {sorted(samples.targets)}, up {sorted(up)}"
            assert len(samples.targets) == targets, seen
            assert samples.targets == up, seen
            return samples

        return eventually(all_up, timeout=timeout, what=f"the client has {targets} targets up")

    def settled(
        self, pod: Pod | str | None = None, *, timeout: float = 25, **labels: str
    ) -> Account:
        """The account of a client at a moment when it waits for no answer.

        A lost ping is waited for until 15 s after its timeout, so that what this returns, however
        early, leaves no ping unaccounted for: whoever asks has to look at `lost`.
        """
        client = pod or self.pod("client")

        def nothing_waits() -> Account:
            account = self.metrics(client).account(**labels)
            assert account.waiting == 0, str(account)
            return account

        what = f"{client!s} waits for no answer"
        return eventually(nothing_waits, timeout=timeout, what=what, interval=0.05)

    def following(self, pod: Pod | str | None = None, *, interval: float = 0.25) -> Following:
        """Scrapes a client all the time: `with release.following() as following`."""
        client = str(pod or self.pod("client"))
        return Following(lambda: self.metrics(client), interval)

    # The rest.

    @property
    def _selector(self) -> str:
        return f"app.kubernetes.io/instance={self.name}"

    def _put(self, verb: str, values: Values, wait: bool) -> None:
        file = self._folder / f"{self.name}-values.json"
        file.write_text(json.dumps(values))
        self.output = self._helm(verb, self.name, str(CHART), "--values", str(file))
        if wait:
            self.wait()

    def _helm(self, *arguments: str) -> str:
        result = self._attempt(*arguments)
        if not result.ok:
            raise AssertionError(f"helm {' '.join(arguments)}: {result.output}")
        return result.output

    def _attempt(self, *arguments: str) -> Result:
        return self.cluster.helm("--namespace", self.namespace, *arguments)

    def _is_rolled_out(self) -> bool:
        apps, selector = self.cluster.apps, self._selector
        found = apps.list_namespaced_deployment(self.namespace, label_selector=selector)
        for each in found.items:
            status, wanted = each.status, each.spec.replicas
            _assert_complete(
                each, wanted, status.updated_replicas, status.replicas, status.ready_replicas
            )
        found = apps.list_namespaced_daemon_set(self.namespace, label_selector=selector)
        for each in found.items:
            status, wanted = each.status, each.status.desired_number_scheduled
            _assert_complete(each, wanted, status.updated_number_scheduled, status.number_ready)
        return True


def _assert_complete(found: Any, wanted: int, *counts: int | None) -> None:
    """A controller has seen what is asked for, and has so many of each."""
    is_seen = found.status.observed_generation == found.metadata.generation
    if not is_seen or any((count or 0) != wanted for count in counts):
        known = {k: v for k, v in found.status.to_dict().items() if v is not None}
        raise AssertionError(f"{found.metadata.name}, {wanted} wanted: {known}")


def merged(base: Values, changes: Values) -> dict[str, Any]:
    """The values of `base` with those of `changes`, as helm lays one file of values over another."""
    result: dict[str, Any] = copy.deepcopy(dict(base))
    for key, value in changes.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            result[key] = merged(old, value)
        else:
            result[key] = copy.deepcopy(value)
    return result
