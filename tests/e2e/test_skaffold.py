"""What `skaffold dev` does, step by step: what is changed runs in the pods without a new image."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest
import urllib3

from tests.e2e import outside
from tests.e2e.cluster import Cluster
from tests.e2e.commands import run
from tests.e2e.conftest import Report
from tests.e2e.pods import Pod
from tests.e2e.release import Release
from tests.e2e.waiting import Stopwatch, eventually
from tests.skaffold import builds
from tests.skaffold.builds import Build
from tests.skaffold.config import ROOT, Config, active_profiles, read_config, with_profiles
from tests.skaffold.config import release as release_of
from tests.skaffold.files import destinations

pytestmark = pytest.mark.e2e

INIT = "services/pingpong/__init__.py"
WITHIN = 30.0
"""Seconds from a file that is written to the program that runs with it, on a busy machine."""


def config(cluster: Cluster, *named: str) -> Config:
    """What `skaffold dev -p NAMED` makes of skaffold.yaml on this cluster."""
    everything = read_config()
    profiles = active_profiles(everything, "dev", f"kind-{cluster.name}", named)
    assert profiles == ["dev", "kind", *named]
    return with_profiles(everything, profiles)


@pytest.fixture(scope="module")
def built(cluster: Cluster) -> Iterator[list[Build]]:
    """The images, each tagged with its own id, on every node."""
    found = []
    for artifact in config(cluster)["build"]["artifacts"]:
        image, docker = artifact["image"], artifact["docker"]
        run(
            *("docker", "build", "--network=host", "--tag", f"{image}:dev"),
            *("--file", docker["dockerfile"], "--target", docker["target"], "."),
            environment={**cluster.kind.environment, "DOCKER_BUILDKIT": "1"},
            timeout=900,
            cwd=str(ROOT),
        )
        inspected = cluster.docker("image", "inspect", "--format", "{{.Id}}", f"{image}:dev")
        reference = f"{image}:{inspected.strip().removeprefix('sha256:')}"
        cluster.docker("tag", f"{image}:dev", reference)
        found.append(Build(image, reference))
    cluster.kind.load(*(build.reference for build in found))
    yield found
    for build in found:
        cluster.docker("image", "rm", build.reference, f"{build.artifact}:dev")


class Development:
    """A release that skaffold has installed and goes on to sync files to."""

    def __init__(self, release: Release, config: Config, built: Sequence[Build]) -> None:
        self.release = release
        self.config = config
        self._built = built
        self.servers = release.pods("server")
        self.clients = release.pods("client")
        self.pods = [*self.servers, *self.clients]
        """All as they were at first."""

    def sync(self, path: str, text: str) -> None:
        """A file of the repository was added or changed: this is what it says now."""
        content = text.encode()
        for pod, container, target in self._targets(path):
            archive = io.BytesIO()
            with tarfile.open(fileobj=archive, mode="w") as tar:
                entry = tarfile.TarInfo(target)
                entry.size, entry.mode = len(content), 0o644
                tar.addfile(entry, io.BytesIO(content))
            self.release.cluster.kubectl(
                *("exec", pod, "--namespace", self.release.namespace, "-c", container, "-i"),
                *("--", "tar", "xmf", "-", "-C", "/", "--no-same-owner"),
                stdin=archive.getvalue().decode(),
            )

    def sync_deleted(self, path: str) -> None:
        """A file of the repository was deleted."""
        for pod, container, target in self._targets(path):
            self.release.cluster.kubectl(
                *("exec", pod, "--namespace", self.release.namespace, "-c", container),
                *("--", "rm", "-rf", "--", target),
            )

    def wait_for_version(self, version: str, timeout: float = WITHIN) -> None:
        """Wait until the programs in all pods say this of themselves."""

        def all_say_it() -> bool:
            answers = {str(pod): self.release.get(pod, "/version").text for pod in self.pods}
            assert all(f'"{version}"' in text for text in answers.values()), answers
            return True

        eventually(all_say_it, timeout=timeout, what=f"all programs are {version}", interval=0.1)

    def wait_for_pings(self) -> None:
        """Wait until each client has each server answer."""
        for client in self.clients:
            self.release.wait_up(len(self.servers), client)

    def assert_same_containers(self) -> None:
        """No pod was replaced, and no container of one was started anew."""
        now = [*self.release.all_pods("server"), *self.release.all_pods("client")]
        assert [pod.uid for pod in now] == [pod.uid for pod in self.pods]
        assert [pod.restarts for pod in now] == [0] * len(now)
        assert [started(pod) for pod in now] == [started(pod) for pod in self.pods]

    def _targets(self, path: str) -> Iterator[tuple[str, str, str]]:
        """Pod, container, and where in it; it is found by its image."""
        for artifact, build in zip(self.config["build"]["artifacts"], self._built, strict=True):
            [target] = destinations(artifact, path)
            found = [
                (pod.name, container.name, target)
                for pod in self.release.cluster.pods(self.release.namespace)
                for container in pod.found.spec.containers
                if pod.phase == "Running" and container.image == build.reference
            ]
            assert found, f"no container runs {build.reference}"
            yield from found


class Develop(Protocol):
    """Builds, loads and installs as `skaffold dev -p NAMED` does."""

    def __call__(self, *named: str) -> Development: ...


@pytest.fixture
def develop(cluster: Cluster, built: list[Build], namespace: str, tmp_path: Path) -> Develop:
    def develop(*named: str) -> Development:
        skaffold = config(cluster, *named)
        values = builds.values(release_of(skaffold), built)
        release = Release(cluster, namespace, release_of(skaffold)["name"], values, tmp_path)
        release.install()
        return Development(release, skaffold, built)

    return develop


def started(pod: Pod) -> Any:
    [status] = pod.found.status.container_statuses
    return status.state.running.started_at


def source(version: str) -> str:
    """The package's own first file, with another version."""
    lines = (ROOT / INIT).read_text().splitlines(keepends=True)
    [place] = [at for at, line in enumerate(lines) if line.startswith("__version__ = ")]
    lines[place] = f'__version__ = "{version}"\n'
    return "".join(lines)


def test_a_changed_line_runs_within_seconds_in_the_same_container(
    develop: Develop, report: Report
) -> None:
    development = develop()
    for version in ("0.1.1", "0.1.2"):
        watch = Stopwatch()
        development.sync(INIT, source(version))
        development.wait_for_version(version)
        report(f"{version} runs after", watch.seconds)
        development.wait_for_pings()
        report(f"{version} pings and is answered after", watch.seconds)
    development.release.wait()
    development.assert_same_containers()


def test_a_line_that_does_not_compile_is_mended_in_the_same_container(
    develop: Develop, report: Report
) -> None:
    development = develop()
    release = development.release
    development.sync(INIT, source("0.1.1") + "this is no Python\n")

    def is_told() -> bool:
        return all("SyntaxError" in release.logs(pod) for pod in development.pods)

    def is_noticed() -> bool:
        return not release.pods("server") and not release.pods("client")

    eventually(is_told, timeout=WITHIN, what="both programs say what is wrong")
    eventually(is_noticed, timeout=30, what="neither pod is ready")
    watch = Stopwatch()
    development.sync(INIT, source("0.1.2"))
    development.wait_for_version("0.1.2")
    report("mended after", watch.seconds)
    development.wait_for_pings()
    release.wait()
    development.assert_same_containers()


def test_files_come_and_go_in_the_same_container(develop: Develop) -> None:
    development = develop()
    added = "services/pingpong/some/where/new.py"
    development.sync(added, 'VERSION = "0.1.1"\n')
    lines = (
        "import contextlib",
        "with contextlib.suppress(ImportError):",
        "    from .some.where.new import VERSION as __version__",
    )
    development.sync(INIT, source("0.1.2") + "\n".join(lines))
    development.wait_for_version("0.1.1")
    development.sync_deleted(added)
    development.wait_for_version("0.1.2")
    development.assert_same_containers()


def test_in_a_mesh_a_changed_line_comes_to_every_node(
    cluster: Cluster, develop: Develop, report: Report
) -> None:
    development = develop("mesh")
    for pods in (development.servers, development.clients):
        assert sorted(pod.node for pod in pods) == cluster.nodes
    development.wait_for_pings()
    watch = Stopwatch()
    development.sync(INIT, source("0.1.1"))
    development.wait_for_version("0.1.1", timeout=2 * WITHIN)
    report(f"runs in {len(development.pods)} pods after", watch.seconds)
    development.wait_for_pings()
    assert_admin_ports_are_forwarded(cluster, development)
    development.assert_same_containers()


def test_admin_ports_are_forwarded(cluster: Cluster, develop: Develop) -> None:
    assert_admin_ports_are_forwarded(cluster, develop())


def assert_admin_ports_are_forwarded(cluster: Cluster, development: Development) -> None:
    forwards = {each["resourceName"]: each for each in development.config["portForward"]}
    for component in ("server", "client"):
        forward = forwards[f"pingpong-{component}"]
        with forwarded(cluster, development.release.namespace, forward) as url:
            scraped = eventually(partial(scrape, url), timeout=25, what=f"{url} answers")
        assert f"\npingpong_{component}_" in scraped


@contextmanager
def forwarded(cluster: Cluster, namespace: str, forward: Config) -> Iterator[str]:
    """Where a port is forwarded to: `kubectl port-forward` on a node, at the node's address."""
    node = f"{cluster.name}-control-plane"
    command = ["kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "port-forward"]
    command += [f"{forward['resourceType']}/{forward['resourceName']}"]
    command += [f"{forward['localPort']}:{forward['port']}"]
    command += ["--namespace", namespace, "--address", "0.0.0.0"]
    # To end `docker exec` would not end what it has started.
    with subprocess.Popen(
        ["docker", "exec", node, "timeout", "30", *command],
        env=cluster.kind.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as program:
        try:
            yield f"http://{cluster.node_address(node)}:{forward['localPort']}"
        finally:
            program.terminate()


def scrape(url: str) -> str:
    answer = urllib3.request("GET", f"{url}/metrics", retries=False, timeout=5)
    assert answer.status == 200
    return answer.data.decode()


def test_on_kind_the_server_is_reached_from_this_machine(
    cluster: Cluster, develop: Develop
) -> None:
    develop()
    for node in cluster.nodes:
        server = f"{cluster.node_address(node)}:30443"
        said = outside.eventually_ping("--insecure", server, "-c", "3", "-w", "20")
        assert "3 sent, 3 received" in said
