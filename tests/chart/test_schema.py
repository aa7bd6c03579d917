"""values.schema.json: it knows exactly the values there are, and refuses all else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft7Validator  # type: ignore[import-untyped]

from tests.chart.rendering import Refused, loaded, render
from tests.chart.schema_values import Generator, nested
from tools.chart_tables import schema_of, type_of, values

SCHEMA: dict[str, Any] = loaded().schema or {}
GENERATOR = Generator(SCHEMA, {})
UNNAMED = {"server.settings", "client.settings"}
"""What has names in the schema that are not in values.yaml: the program's defaults hold there."""


def objects(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every mapping whose names the schema gives, by its dotted path."""
    schema = dict(GENERATOR.resolved(schema))
    if "properties" in schema:
        yield ".".join(path), schema
    for name, inner in schema.get("properties", {}).items():
        yield from objects(inner, (*path, name))


OBJECTS = dict(objects(SCHEMA))


def at(path: str) -> Any:
    found: Any = loaded().values
    for name in path.split(".") if path else ():
        found = found[name]
    return found


def test_it_is_a_schema_of_draft_7() -> None:
    Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"


def test_the_defaults_hold() -> None:
    assert list(Draft7Validator(SCHEMA).iter_errors(loaded().values)) == []


@pytest.mark.parametrize("path", OBJECTS)
def test_a_name_that_it_does_not_know_is_refused(path: str) -> None:
    place = tuple(path.split(".")) if path else ()
    with pytest.raises(Refused, match="nonsense") as refused:
        render(nested((((*place, "nonsense"), 1),)))
    assert refused.value.by_schema


@pytest.mark.parametrize("path", OBJECTS)
def test_what_is_taken_out_is_refused_where_templates_need_it(path: str) -> None:
    # Helm takes a key that a user sets to null out of the values before it asks the schema.
    required = set(OBJECTS[path].get("required", ()))
    for name in at(path):
        place = (*(path.split(".") if path else ()), name)
        values = nested(((place, None),))
        if name in required:
            with pytest.raises(Refused, match=name) as refused:
                render(values)
            assert refused.value.by_schema
        else:
            render(values)


@pytest.mark.parametrize("path", OBJECTS)
def test_a_wrong_type_is_refused(path: str) -> None:
    for name, schema in OBJECTS[path]["properties"].items():
        place = (*(path.split(".") if path else ()), name)
        wrong: Any = [[]] if dict(GENERATOR.resolved(schema)).get("type") != "array" else "text"
        with pytest.raises(Refused, match=name):
            render(nested(((place, wrong),)))


@pytest.mark.parametrize("path", [path for path in OBJECTS if path not in UNNAMED])
def test_what_it_knows_is_in_the_values_and_the_other_way_round(path: str) -> None:
    whole = tuple(value.key for value in values())
    if f"{path}.".startswith(tuple(f"{key}." for key in whole)):
        assert set(at(path)) <= set(OBJECTS[path]["properties"])
    else:
        # `enabled` of the whole is for a chart that has this one as a dependency; `servers` is an
        # old name, refused with the new one.
        unused = {"": {"enabled"}, "client": {"servers"}}.get(path, set())
        assert set(at(path)) == set(OBJECTS[path]["properties"]) - unused


@pytest.mark.parametrize("path", sorted(UNNAMED))
def test_settings_that_the_values_have_are_known(path: str) -> None:
    assert set(at(path)) <= set(OBJECTS[path]["properties"])


def test_every_value_is_described_by_a_comment_above_it_that_begins_with_two_dashes() -> None:
    assert [value.key for value in values() if not value.meaning.endswith((".", ".)"))] == []


def test_every_value_is_in_the_schema_with_a_type() -> None:
    assert [value.key for value in values() if not type_of(schema_of(value.path))] == []
    with pytest.raises(KeyError):
        schema_of(("server", "nonsense"))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("server.replicas", -1),
        ("server.replicas", "2"),
        ("server.replicas", 1.5),
        ("server.kind", "StatefulSet"),
        ("server.settings.rateLimit", -1),
        ("server.settings.workers", 65),
        ("server.settings.drainTimeout", 5),
        ("server.settings.bindPort", 443),
        ("server.drain.preStopSeconds", -1),
        ("server.drain.timeoutSeconds", 2.5),
        ("server.externalService.nodePort", 70_000),
        ("server.externalService.loadBalancerSourceRanges", ["10.0.0.0/33"]),
        ("server.externalService.loadBalancerSourceRanges", ["10.0.0.256/8"]),
        ("server.tls.mode", "self-signed"),
        ("server.tls.secretName", "Upper"),
        ("server.tls.certManager.duration", "90d"),
        ("server.image.digest", "sha256:123"),
        ("server.podLabels", {"a": "b c"}),
        ("server.podLabels", {"a": True}),
        ("server.podAnnotations", {"a": 1}),
        ("server.resources.limits.memory", "128MiB"),
        ("server.service.ipFamilies", ["IPv4", "IPv4"]),
        ("server.topologySpreadConstraints", [{"maxSkew": 1, "topologyKey": "a"}]),
        ("client.targets", ["http://a"]),
        ("client.targets", ["https://a,b"]),
        ("client.targets", ["https://a:0"]),
        ("client.mode", ["datagram"]),
        ("client.settings.mode", []),
        ("client.settings.mode", ["carrier-pigeon"]),
        ("client.settings.interval", 0),
        ("client.settings.targets", "https://a"),
        ("client.tls.certHash", "123"),
        ("client.auth.expirationSeconds", 599),
        ("image.tag", "a b"),
        ("image.registry", "https://registry.example"),
        ("fullnameOverride", "a" * 48),
        ("fullnameOverride", "1st"),
        ("fullnameOverride", "a-"),
        ("nameOverride", "Upper"),
        ("networkPolicy.dnsPorts", []),
        ("monitoring.podMonitor.interval", "15"),
        ("test.count", 0),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_and_named(path: str, value: object) -> None:
    place = tuple(path.split("."))
    with pytest.raises(Refused) as refused:
        render(nested(((place, value),)))
    assert place[-1] in str(refused.value)


def test_labels_that_cannot_be_are_refused_and_named() -> None:
    with pytest.raises(Refused, match="'-a'"):
        render({"commonLabels": {"-a": "b"}})
