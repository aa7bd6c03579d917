"""skaffold.yaml is what skaffold takes, with each profile and with several at once."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from tests.skaffold import schema
from tests.skaffold.config import (
    ROOT,
    Config,
    PatchError,
    active_profiles,
    empty_values,
    read_config,
    release,
    with_profiles,
)

SKAFFOLDS_OWN = ROOT.parent / "shared" / "spec" / "skaffold-v4beta13.json"
CONFIG = read_config()
PROFILES = ("dev", "kind", "mesh")
COMBINATIONS = [names for count in range(4) for names in itertools.combinations(PROFILES, count)]
ORDERS = [names for count in range(4) for names in itertools.permutations(PROFILES, count)]
"""A profile that is named comes after those that activate themselves."""
ORDERS.append(("dev", "dev"))  # activated, and named as well


@pytest.fixture(scope="module")
def skaffolds_own() -> dict[str, Any]:
    """Skaffold's own schema."""
    if not SKAFFOLDS_OWN.exists():
        pytest.skip(f"skaffold's own schema is not beside the checkout: {SKAFFOLDS_OWN.name}")
    found: dict[str, Any] = json.loads(SKAFFOLDS_OWN.read_text())
    return found


def combination(names: tuple[str, ...]) -> str:
    return "+".join(names) or "none"


every_combination = pytest.mark.parametrize("names", COMBINATIONS, ids=combination)
every_order = pytest.mark.parametrize("names", ORDERS, ids=combination)


def test_it_is_valid() -> None:
    jsonschema.validate(CONFIG, schema.CONFIG)


def test_skaffolds_own_schema_finds_it_valid(skaffolds_own: dict[str, Any]) -> None:
    jsonschema.validate(CONFIG, skaffolds_own)


@every_order
def test_it_is_valid_with_profiles(names: tuple[str, ...]) -> None:
    jsonschema.validate(with_profiles(CONFIG, names), schema.CONFIG)


@every_order
def test_skaffolds_own_schema_finds_it_valid_with_profiles(
    names: tuple[str, ...], skaffolds_own: dict[str, Any]
) -> None:
    jsonschema.validate(with_profiles(CONFIG, names), skaffolds_own)


@pytest.mark.parametrize("key", ["artifact", "buildArgs", "targets"])
def test_a_key_that_skaffold_does_not_know_is_refused(
    key: str, skaffolds_own: dict[str, Any]
) -> None:
    wrong = with_profiles(CONFIG, ())
    wrong["build"]["artifacts"][0][key] = "x"
    for each in (schema.CONFIG, skaffolds_own):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, each)


@pytest.mark.parametrize("name", schema.DEFINITIONS)
def test_skaffold_knows_every_key_that_may_be_used(
    name: str, skaffolds_own: dict[str, Any]
) -> None:
    definition = skaffolds_own["definitions"][name]
    forms = [definition, *definition.get("anyOf", ())]
    known = {key for form in forms for key in form.get("properties", ())}
    assert schema.DEFINITIONS[name]["properties"].keys() <= known


def test_the_profiles_are_these() -> None:
    assert tuple(profile["name"] for profile in CONFIG["profiles"]) == PROFILES


def test_nothing_is_empty_that_a_patch_would_miss() -> None:
    assert list(empty_values(CONFIG)) == []


@pytest.mark.parametrize(
    ("command", "context", "named", "active"),
    [
        ("dev", "production", [], ["dev"]),
        ("dev", "kind-pingpong", [], ["dev", "kind"]),
        ("dev", "kind-pingpong", ["mesh"], ["dev", "kind", "mesh"]),
        ("dev", "production", ["mesh"], ["dev", "mesh"]),
        ("run", "kind-pingpong", [], ["kind"]),
        ("run", "production", [], []),
        ("run", "mankind-production", [], []),
        ("build", "production", [], []),
        ("render", "production", ["mesh"], ["mesh"]),
        ("debug", "production", [], []),
    ],
)
def test_which_profiles_are_active(
    command: str, context: str, named: list[str], active: list[str]
) -> None:
    assert active_profiles(CONFIG, command, context, named) == active


@every_order
def test_only_dev_builds_the_target_dev_and_syncs(names: tuple[str, ...]) -> None:
    for artifact in with_profiles(CONFIG, names)["build"]["artifacts"]:
        assert artifact["docker"].get("target") == ("dev" if "dev" in names else None)
        assert ("sync" in artifact) == ("dev" in names)


@every_order
def test_only_kind_never_pushes(names: tuple[str, ...]) -> None:
    local = with_profiles(CONFIG, names)["build"]["local"]
    assert local.get("push") is (False if "kind" in names else None)


@every_order
def test_each_profile_adds_its_values_and_loses_none(names: tuple[str, ...]) -> None:
    added = {
        "dev": "charts/pingpong/examples/dev.yaml",
        "kind": "charts/pingpong/examples/kind.yaml",
        "mesh": "charts/pingpong/examples/mesh.yaml",
    }
    files = release(with_profiles(CONFIG, names))["valuesFiles"]
    assert files == ["charts/pingpong/values.yaml", *(added[name] for name in names)]


@every_order
def test_log_lines_name_the_pod_where_there_are_many(names: tuple[str, ...]) -> None:
    prefix = with_profiles(CONFIG, names)["deploy"]["logs"]["prefix"]
    assert prefix == ("podAndContainer" if "mesh" in names else "container")


def test_profiles_leave_the_configuration_alone() -> None:
    before = json.dumps(CONFIG)
    with_profiles(CONFIG, PROFILES)
    assert json.dumps(CONFIG) == before


@pytest.mark.parametrize(
    ("operation", "path"),
    [
        ("replace", "/build/local/push"),
        ("replace", "/build/artifacts/2"),
        ("add", "/deploy/kubectl/manifests"),
        ("add", "/build/artifacts/2/sync"),
    ],
)
def test_a_patch_for_a_place_that_is_not_there_is_found(operation: str, path: str) -> None:
    wrong = dict(CONFIG)
    wrong["profiles"] = [{"name": "x", "patches": [{"op": operation, "path": path, "value": 1}]}]
    with pytest.raises(PatchError, match=path):
        with_profiles(wrong, ["x"])


def paths(config: Config) -> Iterator[Path]:
    for artifact in config["build"]["artifacts"]:
        yield ROOT / artifact["docker"]["dockerfile"]
        for rule in artifact.get("sync", {}).get("manual", ()):
            yield ROOT / rule["strip"]
    yield ROOT / release(config)["chartPath"] / "Chart.yaml"
    yield from (ROOT / path for path in release(config)["valuesFiles"])


@every_combination
def test_every_path_exists(names: tuple[str, ...]) -> None:
    found = list(paths(with_profiles(CONFIG, names)))
    assert len(found) >= 4
    assert [path for path in found if not path.exists()] == []
