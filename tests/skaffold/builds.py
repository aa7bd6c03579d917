"""What skaffold tells helm of the images that it built."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import helm_python as helm
import yaml

from tests.skaffold.config import ROOT, Config

DIGITS = "1234567"
"""What the abbreviation of a commit can be, and helm --set takes for a number."""


@dataclass(frozen=True, slots=True)
class Build:
    """One image that was built."""

    artifact: str
    """Its name in skaffold.yaml."""
    reference: str
    """What skaffold has the pod run, and finds the pod by again."""

    def variables(self) -> dict[str, str]:
        """What a template of setValueTemplates can name."""
        rest, _, digest = self.reference.partition("@")
        repository, _, tag = rest.rpartition(":")
        suffix = re.sub(r"[-./]", "_", self.artifact)
        return {
            f"IMAGE_REPO_{suffix}": repository,
            f"IMAGE_TAG_{suffix}": tag,
            f"IMAGE_DIGEST_{suffix}": digest,
            f"IMAGE_FULLY_QUALIFIED_{suffix}": self.reference,
        }


def kept_local(artifact: str) -> Build:
    """Built for a cluster on this machine: tagged with its own id, and without a digest."""
    return Build(artifact, f"{artifact}:{'0c6e' * 16}")


def pushed(artifact: str, prefix: str) -> Build:
    """Built with --default-repo and pushed: `prefix` is the tag policy's."""
    return Build(
        artifact, f"registry.example.org/team/{artifact}:{prefix}{DIGITS}@sha256:{'9f3b' * 16}"
    )


def set_arguments(release: Config, builds: Sequence[Build]) -> list[str]:
    """What comes after each --set. Raises KeyError where a template names what isn't there."""
    known = {name: value for build in builds for name, value in build.variables().items()}
    arguments = [f"{key}={value}" for key, value in sorted(release.get("setValues", {}).items())]
    for key, template in sorted(release["setValueTemplates"].items()):
        value = re.sub(r"\{\{\.(\w+)\}\}", lambda name: known[name[1]], template)
        assert "{{" not in value, f"only {{{{.NAME}}}} is understood here, not {template}"
        arguments.append(f"{key}={value.removesuffix('@')}")
    return arguments


def values(release: Config, builds: Sequence[Build]) -> dict[str, Any]:
    """What helm makes of values files and --set, the chart's defaults apart."""
    merged: dict[str, Any] = {}
    for path in release["valuesFiles"]:
        merged = merge(merged, yaml.safe_load((ROOT / path).read_text()) or {})
    for argument in set_arguments(release, builds):
        merged = merge(merged, helm.parse_set_string(argument))
    return merged


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Mappings into each other, all else in the place of the other."""
    merged = dict(below)
    for key, value in above.items():
        beneath = merged.get(key)
        if isinstance(value, dict) and isinstance(beneath, dict):
            merged[key] = merge(beneath, value)
        else:
            merged[key] = value
    return merged
