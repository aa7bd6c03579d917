"""docker, and the containers that it runs without a cluster."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.e2e.commands import Result, attempt, run
from tests.e2e.machine import ROOT
from tests.e2e.waiting import Stopwatch, eventually


class Docker:
    """docker of this machine."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)

    def __call__(self, *words: str, timeout: float = 60) -> str:
        """Run it. Raises CommandError unless it ends with 0."""
        return run("docker", *words, environment=self._environment, timeout=timeout)

    def attempt(self, *words: str) -> Result:
        """Run it, however it ends."""
        return attempt("docker", *words, environment=self._environment)

    def build(
        self, service: str, tag: str, *options: str, context: Path = ROOT, buildkit: str = "1"
    ) -> str:
        """Build an image. Returns its name."""
        name = f"pingpong-{service}:{tag}"
        run(
            *("docker", "build", "--network=host", "--tag", name, *options),
            *("--file", str(context / f"Dockerfile.{service}"), str(context)),
            environment={**self._environment, "DOCKER_BUILDKIT": buildkit},
            timeout=900,
        )
        return name

    def inspect(self, name: str) -> dict[str, Any]:
        """What docker knows of an image or a container."""
        [found] = json.loads(self("inspect", name))
        return dict(found)

    def layers(self, image: str) -> list[str]:
        """The digests of an image's layers."""
        return list(self.inspect(image)["RootFS"]["Layers"])


class Container:
    """One that runs, or has run."""

    def __init__(self, docker: Docker, name: str) -> None:
        self._docker = docker
        self.name = name
        self.url = ""

    def wait_ready(self) -> float:
        """Wait until it says so. Returns the seconds since its start."""
        address = self._docker("port", self.name).split()[-1]
        self.url = f"http://{address}"

        def is_ready() -> bool:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=1) as answer:
                    return bool(answer.status == 200)
            except OSError as error:
                raise AssertionError(f"{error}; {self.logs()}") from None

        eventually(is_ready, timeout=30, what=f"{self.name} is ready", interval=0.01)
        now = time.time()
        return now - self.started

    @property
    def started(self) -> float:
        """When its program was started, in seconds since 1970."""
        text = re.sub(r"(\.\d{6})\d*Z", r"\1+00:00", self._state["StartedAt"])
        return datetime.fromisoformat(text).timestamp()

    def logs(self) -> str:
        return self._docker("logs", self.name)

    def execute(self, *command: str) -> Result:
        """Run a program in it."""
        return self._docker.attempt("exec", self.name, *command)

    def stop(self) -> tuple[int, float]:
        """Send SIGTERM. Returns the exit status, and how long it took, in seconds."""
        watch = Stopwatch()
        self._docker("stop", "--time=30", self.name)
        return int(self._state["ExitCode"]), watch.seconds

    @property
    def _state(self) -> dict[str, Any]:
        return dict(self._docker.inspect(self.name)["State"])


@contextmanager
def removing(docker: Docker) -> Iterator[list[str]]:
    """Names of images, which go in the end."""
    names: list[str] = []
    yield names
    if names:
        docker("rmi", "--force", *names)
