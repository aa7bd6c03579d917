"""What each image is to have of other distributions, as pyproject.toml says."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.metadata import requires
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.images.dockerfiles import ROOT

ASKING = {
    "server": ("server.auth.token_review", "server.tls.certificate_secrets"),
    "client": ("client.discovery.watch",),
}
"""The modules of a service that ask the Kubernetes API."""


def named(service: str) -> list[str]:
    """The requirements that an image installs, as they are written."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"][service]]


@cache
def installed(service: str) -> frozenset[str]:
    """The distributions that an image has: what is named, and what that requires."""
    found: set[str] = set()
    waiting = [(Requirement(text), "") for text in named(service)]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        extras = ["", *requirement.extras]
        if name not in found:
            found.add(name)
            waiting += [(Requirement(text), one) for text in requires(name) or () for one in extras]
    return frozenset(found)
