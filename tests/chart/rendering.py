"""Renders the chart as Helm does, in this process: with Helm's own engine, without a cluster."""

from __future__ import annotations

import functools
import json
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml
from helm_python import _native

CHART = Path(__file__).resolve().parents[2] / "charts" / "pingpong"
RELEASE = "pingpong"
NAMESPACE = "testing"
KUBE_VERSION = "1.34.0"

Object = dict[str, Any]


class Refused(Exception):  # noqa: N818 - a chart that refuses is no error of the chart
    """The chart does not take these values: by its schema, or by what it says of them itself.

    ``sentences`` are for whoever set them: one a line.
    """

    def __init__(self, said: str, *, by_schema: bool) -> None:
        super().__init__(said.strip())
        self.sentences = said.strip().splitlines()
        self.by_schema = by_schema


@dataclass(frozen=True)
class Rendered:
    """What the chart makes of values: Kubernetes objects, hooks among them, and the notes."""

    objects: tuple[Object, ...]
    notes: str

    def of(self, kind: str) -> list[Object]:
        """All objects of a kind."""
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> Object:
        """The object of that kind and name, or the only one of that kind."""
        found = [each for each in self.of(kind) if name in (None, each["metadata"]["name"])]
        assert len(found) == 1, f"{len(found)} × {kind} {name or ''} among {self.names()}"
        return found[0]

    def has(self, kind: str, name: str | None = None) -> bool:
        """Whether there is an object of that kind, and name."""
        return any(name in (None, each["metadata"]["name"]) for each in self.of(kind))

    def names(self) -> list[str]:
        """Kind and name of every object, sorted."""
        return sorted(f"{each['kind']} {each['metadata']['name']}" for each in self.objects)

    def kinds(self) -> set[str]:
        """The kinds there are."""
        return {each["kind"] for each in self.objects}

    def pods(self) -> dict[str, Object]:
        """By kind and name, all that pods are made from: templates, and the test's pod itself."""
        templates = {}
        for each in self.objects:
            place = f"{each['kind']} {each['metadata']['name']}"
            spec = each.get("spec") or {}
            if each["kind"] == "CronJob":
                spec = spec["jobTemplate"]["spec"]
            if each["kind"] == "Pod":
                templates[place] = each
            elif "template" in spec:
                templates[place] = spec["template"]
        return templates


def render(
    values: Mapping[str, Any] | None = None,
    *,
    release: str = RELEASE,
    namespace: str = NAMESPACE,
    kube_version: str = KUBE_VERSION,
    api_versions: Iterable[str] = (),
    upgrade: bool = False,
    chart: Path = CHART,
) -> Rendered:
    """Render the chart with values over its defaults.

    ``api_versions`` are those that a cluster has beside Kubernetes' own, as in
    ``monitoring.coreos.com/v1/PodMonitor``. Numbers become floating-point ones in the templates,
    as of a JSON document: the hardest kind to print well.

    Raises:
        Refused: the schema, or a ``fail`` of a template, refuses the values.
        helm.HelmRenderError: a template is wrong.
    """
    options = {
        "name": release,
        "namespace": namespace,
        "kube_version": f"v{kube_version}",
        "api_versions": list(api_versions),
        "is_install": not upgrade,
        "is_upgrade": upgrade,
    }
    pickled = _render(json.dumps(values or {}), json.dumps(options), chart)
    rendered: Rendered = pickle.loads(pickled)
    return rendered


@functools.cache
def _render(values: str, options: str, chart: Path) -> bytes:
    """What is rendered, pickled: each test gets one of its own, and may change it."""
    try:
        # The binding's own render() hands no versions on; the library takes them.
        answer = _native.call_string("helm_render", loaded(chart)._raw(), values, options)
    except helm.HelmValuesError as error:
        raise Refused(str(error), by_schema=True) from None
    except helm.HelmRenderError as error:
        if said := re.match(r"execution error at \([^)]*\): (.*)", str(error), re.DOTALL):
            raise Refused(said[1], by_schema=False) from None
        raise
    objects: list[Object] = []
    notes = ""
    for path, text in sorted(json.loads(answer).items()):
        if path.endswith("NOTES.txt"):
            notes = text
        else:
            objects += documents(text, path)
    return pickle.dumps(Rendered(tuple(objects), notes))


@functools.cache
def loaded(chart: Path = CHART) -> helm.Chart:
    """The chart, read once."""
    return helm.Chart.load(chart)


def documents(text: str, path: str = "") -> Iterator[Object]:
    """The YAML documents of a manifest as Helm and Kubernetes read them.

    Raises:
        ValueError: a key stands twice in one mapping; Kubernetes would take either.
    """
    for document in re.split(r"(?:^|\n)---[ \t]*(?=\n|$)", text):
        if content := helm.values_from_yaml(document):
            _check_keys(yaml.compose(document, Loader=yaml.CSafeLoader), path)
            yield content


def _check_keys(node: yaml.Node | None, path: str) -> None:
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise ValueError(f"{path}: {sorted(twice)} twice in one mapping{node.start_mark}")
        for _, value in node.value:
            _check_keys(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_keys(value, path)


def container(template: Object, name: str) -> Object:
    """The container of that name in a pod's template."""
    [found] = [each for each in template["spec"]["containers"] if each["name"] == name]
    assert isinstance(found, dict)
    return found


def merged(*all_values: Mapping[str, Any]) -> dict[str, Any]:
    """Values laid over one another as ``-f`` after ``-f`` does; the later ones win."""
    result: dict[str, Any] = {}
    for values in all_values:
        for key, value in values.items():
            old = result.get(key)
            if isinstance(value, Mapping):
                result[key] = merged(old if isinstance(old, Mapping) else {}, value)
            else:
                result[key] = value
    return result
