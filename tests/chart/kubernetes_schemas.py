"""Kubernetes' own schemas, of several of its versions, strict: what an API server takes.

Objects of operators, which Kubernetes has no schema for, are held to those in ``operators/``: the
fields that the chart uses, and which of them have to be there.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate.utils as schemas  # type: ignore[import-untyped]
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from jsonschema.exceptions import ValidationError  # type: ignore[import-untyped]
from referencing import Registry, Resource

NEWEST = schemas.latest_version().removesuffix(".0")
VERSIONS = ("1.30", "1.34", NEWEST)
"""The oldest Kubernetes that the chart installs on, one of today's, the newest there is."""

OPERATORS = Path(__file__).parent / "operators"


def problems(thing: dict[str, Any], version: str = NEWEST) -> list[str]:
    """What a version of Kubernetes would refuse about an object: place and reason."""
    name = f"{thing['kind']} {thing['metadata']['name']}"
    validator = _validator(thing["apiVersion"], thing["kind"], version)
    found = [f"{name} ({version}) {_said(error)}" for error in validator.iter_errors(thing)]
    return [*found, *(f"{name}: {path} is null" for path in _nulls(thing, ""))]


@functools.cache
def _validator(api_version: str, kind: str, version: str) -> Draft202012Validator:
    # kubernetes_validate.validate() reads a megabyte of schemas anew for each object.
    if (operator := OPERATORS / f"{kind.lower()}.json").exists():
        schema = json.loads(operator.read_text())
        assert schema["properties"]["apiVersion"]["const"] == api_version
        return Draft202012Validator(schema)
    name = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = _schema(version, f"{kind.lower()}-{name}")
    return Draft202012Validator(schema, registry=_definitions(version))


@functools.cache
def _definitions(version: str) -> Registry[Any]:
    return Resource.from_contents(_schema(version, "_definitions")) @ Registry()


def _schema(version: str, name: str) -> dict[str, Any]:
    path = f"kubernetes-json-schema/v{version}.0-local-strict/{name}.json"
    schema: dict[str, Any] = schemas.schema_contents(path, version)
    return schema


def _said(error: ValidationError) -> str:
    return f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"


def _nulls(value: object, path: str) -> list[str]:
    """Where nothing stands behind a key: most schemas let it pass, servers forget such a field."""
    if isinstance(value, dict):
        return [each for key, inner in value.items() for each in _nulls(inner, f"{path}.{key}")]
    if isinstance(value, list):
        return [each for n, inner in enumerate(value) for each in _nulls(inner, f"{path}.{n}")]
    return [path] if value is None else []
