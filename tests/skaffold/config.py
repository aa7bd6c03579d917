"""skaffold.yaml, and what skaffold makes of it: which profiles are active, and what they change."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SKAFFOLD = ROOT / "skaffold.yaml"

Config = dict[str, Any]


class PatchError(Exception):
    """A patch that skaffold would call an invalid path."""


def read_config() -> Config:
    """The file as it stands."""
    config: Config = yaml.safe_load(SKAFFOLD.read_text())
    return config


def active_profiles(
    config: Config, command: str, context: str, named: Iterable[str] = ()
) -> list[str]:
    """Their names, as `skaffold COMMAND -p NAMED` finds them with this Kubernetes context.

    Those that activate themselves come first, in the order of the file; what they are to match are
    regular expressions, found anywhere.
    """
    found = []
    for profile in config["profiles"]:
        for activation in profile.get("activation", ()):
            facts = {"command": command, "kubeContext": context}
            if all(re.search(pattern, facts[fact]) for fact, pattern in activation.items()):
                found.append(profile["name"])
    return [*found, *named]


def with_profiles(config: Config, names: Iterable[str]) -> Config:
    """The configuration with these profiles applied, one after the other.

    Raises PatchError where a patch does not fit, and NotImplementedError for what no profile has
    needed yet.
    """
    profiles = {profile["name"]: profile for profile in config["profiles"]}
    applied = copy.deepcopy(config)
    del applied["profiles"]
    for name in names:
        if others := profiles[name].keys() - {"name", "activation", "patches"}:
            raise NotImplementedError(f"profile {name} lays {others} over the configuration")
        for patch in profiles[name]["patches"]:
            _apply(applied, patch)
    return applied


def release(config: Config) -> Config:
    """The one release that helm installs."""
    [found] = config["deploy"]["helm"]["releases"]
    assert isinstance(found, dict)
    return found


def empty_values(value: Any, path: str = "") -> Iterator[str]:
    """Where there is an empty list, mapping or text.

    Skaffold drops these before it applies patches: a patch that looks right has no place to go.
    """
    if value in ({}, [], "", None):
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from empty_values(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from empty_values(inner, f"{path}/{index}")


def _apply(config: Config, patch: Config) -> None:
    """One JSON patch; `replace` asks for something to replace."""
    path, operation = patch["path"], patch.get("op", "replace")
    *parents, key = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]
    place: Any = config
    try:
        for parent in parents:
            place = place[int(parent) if isinstance(place, list) else parent]
        if operation == "replace":
            index = int(key) if isinstance(place, list) else key
            if place[index] is None:  # Raises where there is none.
                raise KeyError(key)
            place[index] = copy.deepcopy(patch["value"])
        elif operation == "add" and isinstance(place, dict):
            place[key] = copy.deepcopy(patch["value"])
        elif operation == "add" and key == "-":
            place.append(copy.deepcopy(patch["value"]))
        else:
            raise NotImplementedError(f"{operation} {path}")
    except (KeyError, IndexError, ValueError, TypeError, AttributeError):
        raise PatchError(f"invalid path: {path}") from None
