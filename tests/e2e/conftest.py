from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest
from kubernetes.client import ApiException, V1Namespace, V1ObjectMeta

from tests.e2e import images as image_builds
from tests.e2e import kind_clusters, machine
from tests.e2e.cluster import ENFORCE, Cluster
from tests.e2e.diagnosis import diagnose
from tests.e2e.images import Images
from tests.e2e.measures import Measures
from tests.e2e.release import Release, Values, merged
from tests.e2e.waiting import eventually

CLUSTER = "PINGPONG_E2E_CLUSTER"
"""The name of the cluster to make, or to reuse."""
KEEP = "PINGPONG_E2E_KEEP"
"""1: a cluster that was made here stays."""
MEASURES = pytest.StashKey[Measures]()


class Install(Protocol):
    """Installs the chart in the test's namespace, with the images that were built."""

    def __call__(
        self, values: Values | None = None, *, name: str = "pingpong", wait: bool = True
    ) -> Release: ...


Report = Callable[[str, object], None]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[MEASURES] = Measures()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A kind cluster; one that is made here is deleted in the end, others stay as they were."""
    try:
        environment = machine.prepare(os.environ)
    except machine.MachineError as error:
        pytest.fail(str(error), pytrace=False)
    kubeconfig = tmp_path_factory.mktemp("cluster") / "kubeconfig"
    name = os.environ.get(CLUSTER) or "pingpong-e2e"
    kind = kind_clusters.make_or_reuse(name, kubeconfig, environment)
    try:
        cluster = Cluster(kind)
        try:
            cluster.wait_ready()
            yield cluster
        finally:
            cluster.close()
    finally:
        if kind.is_new and os.environ.get(KEEP) != "1":
            kind.delete()


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> Images:
    """Both images, built from this source and on every node."""
    images = image_builds.build(cluster.kind.environment)
    cluster.kind.load(images.server, images.client)
    return images


@pytest.fixture(scope="session")
def made_namespaces(cluster: Cluster) -> Iterator[list[str]]:
    """Names; in the end it is waited until they are gone, unless the whole cluster goes."""
    names: list[str] = []
    yield names
    if not cluster.kind.is_new or os.environ.get(KEEP) == "1":
        for name in names:
            what = f"the namespace {name} is gone"
            eventually(partial(_is_gone, cluster, name), timeout=90, what=what)


@pytest.fixture
def namespace(
    cluster: Cluster, made_namespaces: list[str], request: pytest.FixtureRequest
) -> Iterator[str]:
    """A new namespace that enforces Pod Security "restricted"."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_"))
    name = f"{words[:40].strip('-')}-{uuid.uuid4().hex[:5]}"
    labels = {ENFORCE: "restricted", f"{ENFORCE}-version": "latest"}
    cluster.core.create_namespace(V1Namespace(metadata=V1ObjectMeta(name=name, labels=labels)))
    made_namespaces.append(name)
    yield name
    # Deleting pods at once, since nothing is to be seen of their end any more; what the chart
    # makes outside the namespace goes only with its release.
    try:
        releases = cluster.helm("--namespace", name, "list", "--all", "--short").output.split()
        if releases:
            gone = cluster.helm("--namespace", name, "uninstall", "--no-hooks", *releases)
            assert gone.ok, gone.output
    finally:
        cluster.core.delete_namespace(name)
        cluster.core.delete_collection_namespaced_pod(name, grace_period_seconds=0)


@pytest.fixture
def install(cluster: Cluster, images: Images, namespace: str, tmp_path: Path) -> Install:
    def install(
        values: Values | None = None, *, name: str = "pingpong", wait: bool = True
    ) -> Release:
        release = Release(cluster, namespace, name, merged(images.values, values or {}), tmp_path)
        release.install(wait=wait)
        return release

    return install


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Notes a number that was measured; all of them are printed at the end."""
    measures, test = request.config.stash[MEASURES], request.node.nodeid.rpartition("/")[2]
    return lambda name, value: measures.add(test, name, value)


def _is_gone(cluster: Cluster, namespace: str) -> bool:
    try:
        cluster.core.read_namespace(namespace)
    except ApiException as error:
        if error.status == 404:
            return True
        raise
    return False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    found = getattr(item, "funcargs", {})
    if report.failed and report.when != "teardown" and {"cluster", "namespace"} <= found.keys():
        report.sections.extend(diagnose(found["cluster"], found["namespace"]))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = list(terminalreporter.config.stash[MEASURES].lines())
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.line(line)
