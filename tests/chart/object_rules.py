"""What an API server asks of an object beyond its schema, and what would fail on a node later."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from tests.chart.pod_security import containers
from tests.chart.rendering import Object

LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
"""RFC 1123, and, where it begins with a letter, RFC 1035."""

_NAME = rf"(?=.{{1,253}}$){LABEL}(\.{LABEL})*"
_VALUE = r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?"
_KEY = rf"({_NAME[len('(?=.{1,253}$)') :]}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{{0,61}}[A-Za-z0-9])?"
_QUANTITY = r"\d+(\.\d+)?([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?"
_PORT_NAME = r"(?=.*[a-z])(?!.*--)[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?"
_ENV_NAME = r"[A-Za-z_.-][A-Za-z0-9_.-]*"


def problems(thing: Object) -> list[str]:
    """What is wrong with an object, whatever other objects there are: a sentence each."""
    name = f"{thing['kind']} {thing['metadata']['name']}"
    found = [*_of_metadata(thing)]
    match thing["kind"]:
        case "Service":
            found += _of_service(thing)
        case "PodDisruptionBudget":
            if ("minAvailable" in thing["spec"]) == ("maxUnavailable" in thing["spec"]):
                found.append("has not exactly one of minAvailable and maxUnavailable")
        case "HorizontalPodAutoscaler":
            if thing["spec"].get("minReplicas", 1) > thing["spec"]["maxReplicas"]:
                found.append("minReplicas is above maxReplicas")
        case "Pod":
            found += of_pod(thing)
        case "Deployment" | "DaemonSet":
            found += _of_workload(thing)
        case "Job":
            found += _of_job(thing["spec"])
        case "CronJob":
            found += _of_job(thing["spec"]["jobTemplate"]["spec"])
            if len(thing["metadata"]["name"]) > 52:
                found.append("a CronJob's name has 52 characters at most")
    return [f"{name}: {each}" for each in found]


def _of_metadata(thing: Object) -> Iterator[str]:
    metadata = thing["metadata"]
    of_roles = thing["apiVersion"].startswith("rbac.")
    if not re.fullmatch(r"[^/%]{1,253}" if of_roles else _NAME, metadata["name"]):
        yield f"{metadata['name']!r} is no name for it"
    if thing["kind"] == "Job" and not re.fullmatch(LABEL, metadata["name"]):
        yield f"{metadata['name']!r} is no name for a Job, whose pods have it as a label"
    if thing["kind"] == "Service" and not re.fullmatch(rf"(?=[a-z]){LABEL}", metadata["name"]):
        yield f"{metadata['name']!r} is no name for a Service"
    yield from _of_labels(metadata)


def _of_labels(metadata: Object) -> Iterator[str]:
    annotations = metadata.get("annotations") or {}
    for key in [*(metadata.get("labels") or {}), *annotations]:
        if not re.fullmatch(_KEY, key):
            yield f"{key!r} is no name for a label or an annotation"
    for key, value in (metadata.get("labels") or {}).items():
        if not re.fullmatch(_VALUE, value):
            yield f"label {key} cannot be {value!r}"
    if sum(len(key) + len(value) for key, value in annotations.items()) > 262_144:
        yield "annotations are above 256 KiB"


def _of_service(service: Object) -> Iterator[str]:
    spec = service["spec"]
    kind = spec.get("type", "ClusterIP")
    ports = spec["ports"]
    yield from _twice("port name", (port.get("name", "") for port in ports))
    yield from _twice("port", ((port["port"], port.get("protocol", "TCP")) for port in ports))
    for port in ports:
        if "nodePort" in port and kind not in ("NodePort", "LoadBalancer"):
            yield f"a nodePort, but it is a {kind}"
        for name in ("port", "nodePort"):  # which of them nodes have, each cluster says
            if not 1 <= port.get(name, 1) <= 65535:
                yield f"{name} cannot be {port[name]}"
    if "externalTrafficPolicy" in spec and kind not in ("NodePort", "LoadBalancer"):
        yield f"externalTrafficPolicy, but it is a {kind}"
    for name in ("loadBalancerClass", "loadBalancerSourceRanges", "allocateLoadBalancerNodePorts"):
        if name in spec and kind != "LoadBalancer":
            yield f"{name}, but it is a {kind}"
    for cidr in spec.get("loadBalancerSourceRanges") or []:
        try:
            ipaddress.ip_network(cidr, strict=False)
        except ValueError:
            yield f"{cidr} is no network"
    families = spec.get("ipFamilies") or []
    yield from _twice("IP family", families)
    if spec.get("ipFamilyPolicy", "SingleStack") == "SingleStack" and len(families) > 1:
        yield "several IP families, but it is SingleStack"


def _of_workload(workload: Object) -> Iterator[str]:
    spec = workload["spec"]
    labels = spec["template"]["metadata"]["labels"]
    if not spec["selector"]["matchLabels"].items() <= labels.items():
        yield f"selects {spec['selector']['matchLabels']}, its pods have {labels}"
    strategy = spec.get("strategy") or spec.get("updateStrategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate" and rolling:
        yield f"rollingUpdate, but its strategy is {strategy['type']}"
    surge = rolling.get("maxSurge", "25%" if workload["kind"] == "Deployment" else 0)
    if _is_zero(rolling.get("maxUnavailable", 1)) and _is_zero(surge):
        yield "can never be updated: maxUnavailable and maxSurge are 0"
    if spec["template"]["spec"].get("restartPolicy", "Always") != "Always":
        yield "its pods must always be restarted"
    yield from of_pod(spec["template"])


def _of_job(spec: Object) -> Iterator[str]:
    if spec["template"]["spec"].get("restartPolicy") not in ("Never", "OnFailure"):
        yield "its pods must not always be restarted"
    yield from of_pod(spec["template"])


def _is_zero(value: object) -> bool:
    return value in (0, "0%", "0")


def of_pod(template: Object) -> Iterator[str]:
    """What is wrong with a pod, or a template of pods."""
    yield from _of_labels(template["metadata"])
    spec = template["spec"]
    volumes = [volume["name"] for volume in spec.get("volumes") or []]
    all_containers = containers(spec)
    yield from _twice("volume", volumes)
    yield from _twice("container", (each["name"] for each in all_containers))
    mounted = {m["name"] for c in all_containers for m in c.get("volumeMounts") or []}
    for name in set(volumes) ^ mounted:
        yield f"volume {name} is {'not mounted' if name in volumes else 'mounted but not there'}"
    for name in [*volumes, *(each["name"] for each in all_containers)]:
        if not re.fullmatch(LABEL, name):
            yield f"{name!r} is no name for a volume or a container"
    grace = spec.get("terminationGracePeriodSeconds", 30)
    for each in all_containers:
        yield from (f"{each['name']}: {said}" for said in _of_container(each, grace))
    for volume in spec.get("volumes") or []:
        for source in (volume.get("projected") or {}).get("sources") or []:
            if (token := source.get("serviceAccountToken")) and not (
                600 <= token.get("expirationSeconds", 3600) <= 1 << 32
            ):
                yield f"a token cannot be valid for {token['expirationSeconds']} s"


def _of_container(container: Object, grace: int) -> Iterator[str]:
    ports = container.get("ports") or []
    yield from _twice("port name", (port["name"] for port in ports))
    yield from _twice("port", ((port["containerPort"], port.get("protocol")) for port in ports))
    for port in ports:
        if not re.fullmatch(_PORT_NAME, port["name"]):
            yield f"{port['name']!r} is no name for a port"
        if not 1 <= port["containerPort"] <= 65535:
            yield f"{port['containerPort']} is no port"
    yield from _twice("mount", (m["mountPath"] for m in container.get("volumeMounts") or []))
    variables = [variable["name"] for variable in container.get("env") or []]
    yield from _twice("variable", variables)
    for name in variables:
        if not re.fullmatch(_ENV_NAME, name):
            yield f"{name!r} is no name for a variable"
    names = {port["name"] for port in ports if port.get("protocol", "TCP") == "TCP"}
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        yield from (f"{kind} {said}" for said in _of_probe(kind, container.get(kind) or {}, names))
    sleep = ((container.get("lifecycle") or {}).get("preStop") or {}).get("sleep")
    if sleep is not None and not 1 <= sleep["seconds"] <= grace:
        yield f"preStop sleeps {sleep['seconds']} s, of {grace} s in all"
    yield from _of_resources(container.get("resources") or {})
    if re.search(r"[\s]|^$|:$|@$|^/|//", container["image"]):
        yield f"{container['image']!r} is no image"


def _of_probe(kind: str, probe: Object, names: Iterable[str]) -> Iterator[str]:
    for handler in ("httpGet", "tcpSocket"):
        port = (probe.get(handler) or {}).get("port")
        if isinstance(port, str) and port not in names:
            yield f"asks at port {port}, which is not there"
    least = {"initialDelaySeconds": 0}
    for name in (*least, "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        if probe.get(name, 1) < least.get(name, 1):
            yield f"has {name} {probe[name]}"
    if kind != "readinessProbe" and probe.get("successThreshold", 1) != 1:
        yield "must have a successThreshold of 1"


def _of_resources(resources: Object) -> Iterator[str]:
    kinds = {which: resources.get(which) or {} for which in ("requests", "limits")}
    for which, quantities in kinds.items():
        for name, value in quantities.items():
            if not re.fullmatch(_QUANTITY, str(value)):
                yield f"{which} of {name} cannot be {value!r}"
                return
    for name, value in kinds["requests"].items():
        limit = kinds["limits"].get(name)
        if limit is not None and quantity(value) > quantity(limit):
            yield f"requests {value} of {name}, more than its limit of {limit}"


def quantity(text: object) -> float:
    """A quantity, as in 100m or 128Mi, as a number."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)([a-zA-Z]*)", str(text))
    assert found is not None, text
    small = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0}
    large = {sign: 1000.0**n for n, sign in enumerate("kMGTPE", 1)}
    binary = {f"{sign}i": 1024.0**n for n, sign in enumerate("KMGTPE", 1)}
    return float(found[1]) * {**small, **large, **binary}[found[2]]


def _twice(what: str, values: Iterable[Any]) -> Iterator[str]:
    for value, times in Counter(values).items():
        if times > 1:
            yield f"{what} {value} is there {times} times"
