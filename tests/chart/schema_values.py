"""Values that a JSON Schema allows, for hypothesis: what users of the chart could write.

For the part of draft-07 that values.schema.json uses. Only some of all settings are drawn at a
time, so that one contradiction does not hide the rest. What a schema says by conditions is not
built in but filtered: `valid` says whether values, over the defaults, hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from jsonschema import Draft7Validator  # type: ignore[import-untyped]

Schema = Mapping[str, Any]
Path = tuple[str, ...]


class Generator:
    """Draws values for a schema.

    ``examples`` are strategies for places that the schema leaves open because they are Kubernetes'
    own types; they go by the last name of the place's path.
    """

    def __init__(self, schema: Schema, examples: Mapping[str, st.SearchStrategy[Any]]) -> None:
        self._root = schema
        self._examples = examples
        self._validator = Draft7Validator(schema)
        self.leaves = dict(self._leaves(schema, ()))

    def valid(self, values: object) -> bool:
        """Whether values hold against the whole schema."""
        return bool(self._validator.is_valid(values))

    def values(self, most: int) -> st.SearchStrategy[dict[str, Any]]:
        """Some of all settings, ``most`` at once, as the nested mapping that a user would write."""
        return st.lists(st.sampled_from(sorted(self.leaves)), max_size=most, unique=True).flatmap(
            lambda paths: st.tuples(*map(self._setting, paths)).map(nested)
        )

    def _setting(self, path: Path) -> st.SearchStrategy[tuple[Path, Any]]:
        return st.tuples(st.just(path), self._at(path))

    def _at(self, path: Path) -> st.SearchStrategy[Any]:
        if (example := self._examples.get(path[-1])) is not None:
            return example
        return self._draw(self.leaves[path])

    def resolved(self, schema: Schema) -> Schema:
        """A schema, or that which it refers to."""
        while "$ref" in schema:
            found: Any = self._root
            for name in schema["$ref"].removeprefix("#/").split("/"):
                found = found[name]
            schema = found
        return schema

    def _leaves(self, schema: Schema, path: Path) -> list[tuple[Path, Schema]]:
        """Every setting: what is no mapping with names that the schema gives."""
        schema = self.resolved(schema)
        inner = schema.get("properties") or {}
        if not inner or (path and path[-1] in self._examples):
            return [(path, schema)]
        return [leaf for name in inner for leaf in self._leaves(inner[name], (*path, name))]

    def _draw(self, schema: Schema) -> st.SearchStrategy[Any]:
        schema = self.resolved(schema)
        for several in ("oneOf", "anyOf"):
            if several in schema:
                rest = {key: value for key, value in schema.items() if key != several}
                return st.one_of(
                    [
                        self._draw(self._both(rest, each, several == "oneOf" and schema[several]))
                        for each in schema[several]
                    ]
                )
        if "const" in schema:
            return st.just(schema["const"])
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        kinds = schema.get("type", "string")  # a renamed setting has none: any value is refused
        return st.one_of(
            [self._of_kind(kind, schema) for kind in ([kinds], kinds)[isinstance(kinds, list)]]
        )

    def _both(self, schema: Schema, other: Schema, instead: list[Schema] | bool) -> Schema:
        """One schema within the other; what others ``instead`` require is left out."""
        other = self.resolved(other)
        both = {**schema, **other}
        if required := [*schema.get("required", ()), *other.get("required", ())]:
            both["required"] = required
        if isinstance(instead, list) and "properties" in both:
            others = {name for each in instead for name in each.get("required", ())} - {*required}
            both["properties"] = {
                name: value for name, value in both["properties"].items() if name not in others
            }
        return both

    def _of_kind(self, kind: str, schema: Schema) -> st.SearchStrategy[Any]:
        match kind:
            case "null":
                return st.none()
            case "boolean":
                return st.booleans()
            case "integer":
                return st.integers(*_bounds(schema))
            case "number":
                return _numbers(schema)
            case "string":
                return _texts(schema)
            case "array":
                items = self._draw(schema["items"])
                least, most = schema.get("minItems", 0), min(schema.get("maxItems", 3), 3)
                # As mappings are not hashable: by what they look like.
                unique = repr if schema.get("uniqueItems") else None
                return st.lists(items, min_size=least, max_size=max(least, most), unique_by=unique)
            case "object":
                return self._mappings(schema)
        raise NotImplementedError(kind)

    def _mappings(self, schema: Schema) -> st.SearchStrategy[dict[str, Any]]:
        inner = {
            name: self._examples[name] if name in self._examples else self._draw(value)
            for name, value in (schema.get("properties") or {}).items()
        }
        required = {key: inner.pop(key) for key in schema.get("required", ()) if key in inner}
        fixed = st.fixed_dictionaries(required, optional=inner)
        more = schema.get("additionalProperties", True)
        patterns = dict(schema.get("patternProperties") or {})
        if isinstance(more, dict):
            patterns[r"^[a-z]{1,8}$"] = more
        if not patterns:
            return fixed
        [(names, value), *_] = patterns.items()
        name = _texts({"pattern": names, **self.resolved(schema.get("propertyNames", {}))})
        free = st.dictionaries(name, self._draw(value), max_size=2)
        return st.tuples(free, fixed).map(lambda both: {**both[0], **both[1]})


def nested(settings: tuple[tuple[Path, Any], ...]) -> dict[str, Any]:
    """Settings by their paths as a nested mapping."""
    values: dict[str, Any] = {}
    for path, value in settings:
        inner = values
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = value
    return values


def _bounds(schema: Schema) -> tuple[int | None, int | None]:
    least, most = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema:
        least = math.floor(schema["exclusiveMinimum"]) + 1
    if "exclusiveMaximum" in schema:
        most = math.ceil(schema["exclusiveMaximum"]) - 1
    return least, most


def _numbers(schema: Schema) -> st.SearchStrategy[Any]:
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    most = schema.get("maximum", schema.get("exclusiveMaximum"))
    floats = st.floats(
        least,
        most,
        exclude_min="exclusiveMinimum" in schema,
        exclude_max="exclusiveMaximum" in schema,
        allow_nan=False,
        allow_infinity=False,
    )
    return st.one_of(st.integers(*_bounds(schema)), floats)


def _texts(schema: Schema) -> st.SearchStrategy[str]:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 300)
    if "pattern" not in schema:
        return st.text(
            st.characters(codec="utf-8", exclude_categories=["C"]),
            min_size=least,
            max_size=min(most, 20),
        )
    # JSON Schema's patterns are searched for; ECMA's $ ends the text, Python's may stand before \n.
    texts = st.from_regex(schema["pattern"].replace("$", r"\Z"))
    return texts.filter(lambda text: least <= len(text) <= most)
