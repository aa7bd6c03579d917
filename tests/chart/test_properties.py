"""Whatever the schema allows renders to what a cluster takes and the program accepts, or is refused.

The values are drawn from the schema, over one of the documented modes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from tests.chart import cluster
from tests.chart.kubernetes_schemas import VERSIONS
from tests.chart.rendering import CHART, Refused, Rendered, loaded, merged, render
from tests.chart.schema_values import Generator

PEERS: list[dict[str, Any]] = [
    {"podSelector": {"matchLabels": {"app": "prometheus"}}},
    {"namespaceSelector": {}, "podSelector": {}},
    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
]
RELABELINGS: list[dict[str, Any]] = [
    {"action": "labeldrop", "regex": "pod_template_.*"},
    {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"},
]
AFFINITY: dict[str, Any] = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "edge", "operator": "Exists"}]}]
        }
    }
}
VALUE_FROM: list[dict[str, Any]] = [
    {"fieldRef": {"fieldPath": "spec.nodeName"}},
    {"secretKeyRef": {"name": "other", "key": "a"}},
    {"configMapKeyRef": {"name": "other", "key": "a"}},
]
EXAMPLES: dict[str, st.SearchStrategy[Any]] = {
    # What Kubernetes' own types are, the schema leaves to Kubernetes.
    "global": st.just({}),
    "affinity": st.sampled_from([{}, AFFINITY]),
    "dataFrom": st.lists(st.sampled_from(PEERS), max_size=2),
    "adminFrom": st.lists(st.sampled_from(PEERS), max_size=2),
    "relabelings": st.lists(st.sampled_from(RELABELINGS), max_size=2),
    "metricRelabelings": st.lists(st.sampled_from(RELABELINGS), max_size=2),
    "podSecurityContext": st.sampled_from([{}, {"fsGroup": 4294967295}, {"runAsUser": None}]),
    "containerSecurityContext": st.sampled_from([{}, {"capabilities": {"add": []}}]),
    "valueFrom": st.sampled_from(VALUE_FROM),
}
MODES = [
    {},
    *(yaml.safe_load(path.read_text()) for path in sorted((CHART / "examples").glob("*.yaml"))),
]
APIS = [
    "cert-manager.io/v1/Certificate",
    *(f"monitoring.coreos.com/v1/{kind}" for kind in ("PodMonitor", "PrometheusRule")),
    "monitoring.coreos.com/v1/ServiceMonitor",
]
NAMES = "|".join(loaded().values)
GENERATOR = Generator(loaded().schema or {}, EXAMPLES)


def texts(value: object) -> Iterator[str]:
    """Every text in values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)


def brought(values: Mapping[str, Any]) -> frozenset[str]:
    """What the values may refer to: objects of each name in them are there."""
    kinds = ("Secret", "ConfigMap", "ServiceAccount")
    return frozenset(f"{kind} {text}" for kind in kinds for text in {"other", *texts(values)})


def outcome(values: dict[str, Any], version: str) -> Rendered | Refused:
    """What the chart makes of values, or why it doesn't."""
    try:
        return render(values, kube_version=f"{version}.0", api_versions=APIS)
    except Refused as refusal:
        return refusal


@settings(max_examples=80, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(MODES), GENERATOR.values(most=5), st.sampled_from(VERSIONS))
def test_what_the_schema_allows_is_taken_by_the_cluster_and_the_program_or_refused(
    mode: dict[str, Any], changes: dict[str, Any], version: str
) -> None:
    values = merged(mode, changes)
    assume(GENERATOR.valid(loaded().merge_values(values)))
    made = outcome(values, version)
    if isinstance(made, Rendered):
        assert cluster.problems(made, version, brought=brought(values)) == []
    else:
        assert not made.by_schema, made
        # Each sentence names a value that the user has, and can change.
        assert all(re.search(rf"\b({NAMES})\b", each) for each in made.sentences), made


def test_most_of_what_is_drawn_is_not_refused() -> None:
    made = []

    @settings(max_examples=40, database=None, phases=[Phase.generate], derandomize=True)
    @given(GENERATOR.values(most=3))
    def draw(values: dict[str, Any]) -> None:
        if GENERATOR.valid(loaded().merge_values(values)):
            made.append(outcome(values, VERSIONS[0]))

    draw()
    assert sum(isinstance(each, Rendered) for each in made) > 20
    assert len({repr(each) for each in made}) > 10
