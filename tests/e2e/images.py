"""The two images, built from this source and put on the cluster's nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.e2e.commands import run
from tests.e2e.machine import ROOT

TAG = "e2e"


@dataclass(frozen=True, slots=True)
class Images:
    """Their names, as docker has them."""

    server: str = f"pingpong-server:{TAG}"
    client: str = f"pingpong-client:{TAG}"

    @property
    def values(self) -> dict[str, object]:
        """What the chart is told, so that it takes these."""
        return {"image": {"tag": TAG, "pullPolicy": "Never"}}


def build(environment: Mapping[str, str]) -> Images:
    """Build both. Raises CommandError."""
    images = Images()
    for service, image in (("server", images.server), ("client", images.client)):
        run(
            *("docker", "build", "--network=host", "--tag", image),
            *("--file", f"Dockerfile.{service}", "."),
            environment={**environment, "DOCKER_BUILDKIT": "1"},
            timeout=900,
            cwd=str(ROOT),
        )
    return images
