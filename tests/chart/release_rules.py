"""What has to agree among the objects of one release: names, selectors, ports, references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.chart.pod_security import containers
from tests.chart.rendering import Object, Rendered

WORKLOADS = ("Deployment", "DaemonSet")
JOBS = ("Job", "CronJob")
CLUSTER_WIDE = ("ClusterRole", "ClusterRoleBinding")


def problems(rendered: Rendered, brought: frozenset[str] = frozenset()) -> list[str]:
    """What does not fit together: a sentence each.

    ``brought`` are Secrets, ConfigMaps and service accounts that are there without the chart, each
    with its kind: ``Secret tokens``.
    """
    return [
        *_names(rendered),
        *_services(rendered),
        *_selectors(rendered),
        *_references(rendered, brought),
        *_roles(rendered),
        *_autoscalers(rendered),
        *_tests(rendered),
        *_hooks(rendered),
    ]


def selects(selector: Object, labels: Object) -> bool:
    """Whether a selector, or a Service's map of labels, selects these labels."""
    if not {"matchLabels", "matchExpressions"} & set(selector):
        return bool(selector) and selector.items() <= labels.items()
    for expression in selector.get("matchExpressions") or []:
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return bool((selector.get("matchLabels") or {}).items() <= labels.items())


def pods_of(rendered: Rendered, selector: Object) -> list[str]:
    """The pods that a selector selects, by the kind and name of what makes them."""
    return [
        place
        for place, template in rendered.pods().items()
        if selects(selector, template["metadata"]["labels"])
    ]


def _names(rendered: Rendered) -> Iterator[str]:
    where = Counter(map(_identity, rendered.objects))
    for (kind, namespace, name), times in where.items():
        if times > 1:
            yield f"{kind} {name} is there {times} times in {namespace}"
    for each in rendered.objects:
        if each["kind"] in CLUSTER_WIDE and "namespace" in each["metadata"]:
            yield f"{each['kind']} has a namespace"


def _identity(thing: Object) -> tuple[str, str, str]:
    metadata = thing["metadata"]
    return thing["kind"], metadata.get("namespace", ""), metadata["name"]


def _services(rendered: Rendered) -> Iterator[str]:
    for service in rendered.of("Service"):
        name = service["metadata"]["name"]
        pods = pods_of(rendered, service["spec"]["selector"])
        if len(pods) != 1 or not pods[0].startswith(WORKLOADS):
            yield f"Service {name} selects {pods}"
            continue
        [main, *_] = rendered.pods()[pods[0]]["spec"]["containers"]
        there = {(p["name"], p.get("protocol", "TCP")) for p in main["ports"]}
        there |= {(p["containerPort"], p.get("protocol", "TCP")) for p in main["ports"]}
        for port in service["spec"]["ports"]:
            target = (port.get("targetPort", port["port"]), port.get("protocol", "TCP"))
            if target not in there:
                yield f"Service {name} leads to port {target}, pods have {sorted(map(str, there))}"


def _selectors(rendered: Rendered) -> Iterator[str]:
    workloads = [each for kind in WORKLOADS for each in rendered.of(kind)]
    for workload in workloads:
        pods = pods_of(rendered, workload["spec"]["selector"])
        if len(pods) != 1:
            yield f"{workload['kind']} {workload['metadata']['name']} selects {pods}"
        spread = workload["spec"]["template"]["spec"].get("topologySpreadConstraints") or []
        for constraint in spread:
            selector = constraint.get("labelSelector") or {}
            if "matchLabels" in selector and pods_of(rendered, selector) != pods:
                yield f"{workload['kind']} {workload['metadata']['name']} spreads other pods"
    for kind, field in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        for each in rendered.of(kind):
            pods = pods_of(rendered, each["spec"][field])
            if kind == "NetworkPolicy" and [pod.split()[0] for pod in pods] == ["CronJob", "Job"]:
                continue
            # The pod of `helm test` may go where the client may.
            others = [pod for pod in pods if not pod.startswith(WORKLOADS)]
            if len(pods) - len(others) != 1 or (others and kind == "PodDisruptionBudget"):
                yield f"{kind} {each['metadata']['name']} selects {pods}"
    for monitor in rendered.of("PodMonitor"):
        pods = pods_of(rendered, monitor["spec"]["selector"])
        if not pods or not all(pod.startswith(WORKLOADS) for pod in pods):
            yield f"PodMonitor {monitor['metadata']['name']} selects {pods}"
    for monitor in rendered.of("ServiceMonitor"):
        found = [
            {port["name"] for port in service["spec"]["ports"]}
            for service in rendered.of("Service")
            if selects(monitor["spec"]["selector"], service["metadata"]["labels"])
        ]
        wanted = {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]}
        if len(found) < 1 or not all(wanted <= names for names in found):
            yield f"ServiceMonitor {monitor['metadata']['name']}: {wanted} among {found}"


def _references(rendered: Rendered, brought: frozenset[str]) -> Iterator[str]:
    there = {*rendered.names(), "ServiceAccount default", *brought}
    there |= {
        f"Secret {certificate['spec']['secretName']}" for certificate in rendered.of("Certificate")
    }
    # What is only there to be deleted is none that pods could have; the Job makes it.
    there -= {f"Secret {secret['metadata']['name']}" for secret in rendered.of("Secret")}
    for job in rendered.of("Job"):
        words = job["spec"]["template"]["spec"]["containers"][0]["args"]
        option = "--certificate-secret="
        there |= {f"Secret {w.removeprefix(option)}" for w in words if w.startswith(option)}
    for place, template in rendered.pods().items():
        for reference in _named_by(template["spec"]):
            if reference not in there:
                yield f"{place} needs {reference}, which is not there"


def _named_by(spec: Object) -> Iterator[str]:
    if "serviceAccountName" in spec:
        yield f"ServiceAccount {spec['serviceAccountName']}"
    for secret in spec.get("imagePullSecrets") or []:
        yield f"Secret {secret['name']}"
    for volume in spec.get("volumes") or []:
        sources: list[Any] = [volume, *((volume.get("projected") or {}).get("sources") or [])]
        for source in sources:
            if "secret" in source:
                yield f"Secret {source['secret'].get('secretName') or source['secret'].get('name')}"
            if "configMap" in source:
                yield f"ConfigMap {source['configMap']['name']}"
    for container in containers(spec):
        for variable in container.get("env") or []:
            for key, source in (variable.get("valueFrom") or {}).items():
                if key in ("secretKeyRef", "configMapKeyRef"):
                    kind = "Secret" if key == "secretKeyRef" else "ConfigMap"
                    yield f"{kind} {source['name']}"
        for source in container.get("envFrom") or []:
            for kind, key in (("Secret", "secretRef"), ("ConfigMap", "configMapRef")):
                if key in source:
                    yield f"{kind} {source[key]['name']}"


def _roles(rendered: Rendered) -> Iterator[str]:
    there = set(map(_identity, rendered.objects))
    accounts = {template["spec"].get("serviceAccountName") for template in rendered.pods().values()}
    given = set()
    for binding in [*rendered.of("RoleBinding"), *rendered.of("ClusterRoleBinding")]:
        kind, namespace, name = _identity(binding)
        role = binding["roleRef"]
        given.add((role["kind"], namespace, role["name"]))
        if (
            not role["name"].startswith("system:")
            and (role["kind"], namespace, role["name"]) not in there
        ):
            yield f"{kind} {name} gives {role['kind']} {role['name']}, which is not there"
        for subject in binding["subjects"]:
            if subject["name"] not in accounts:
                yield f"{kind} {name} gives to {subject['name']}, which no pod runs as"
            if not subject.get("namespace"):
                yield f"{kind} {name} gives to a service account of no namespace"
    for role in [*rendered.of("Role"), *rendered.of("ClusterRole")]:
        if _identity(role) not in given:
            yield f"{role['kind']} {role['metadata']['name']} is given to nobody"


def _autoscalers(rendered: Rendered) -> Iterator[str]:
    for scaler in rendered.of("HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        if not rendered.has(target["kind"], target["name"]):
            yield f"{scaler['metadata']['name']} scales {target}, which is not there"
        elif "replicas" in rendered.one(target["kind"], target["name"])["spec"]:
            yield f"{target['name']} has replicas, which the autoscaler sets as well"


def _tests(rendered: Rendered) -> Iterator[str]:
    for pod in rendered.of("Pod"):
        name, annotations = pod["metadata"]["name"], pod["metadata"].get("annotations") or {}
        if annotations.get("helm.sh/hook") != "test":
            yield f"Pod {name} is no hook of `helm test`"
        if pod["spec"].get("restartPolicy") != "Never":
            yield f"Pod {name} would be restarted, so the test would never fail"


HOOKS = {"test", "pre-install", "pre-upgrade", "pre-rollback", "post-delete"}


def hooks_of(thing: Object) -> set[str]:
    """What Helm takes an object for, where it is no object of the release."""
    hooks = (thing["metadata"].get("annotations") or {}).get("helm.sh/hook", "")
    return {hook for hook in hooks.split(",") if hook}


def _hooks(rendered: Rendered) -> Iterator[str]:
    """A hook is there before, or after, the release's objects: what it needs has to be a hook too."""
    weights: dict[tuple[str, str], tuple[set[str], int]] = {}
    for each in rendered.objects:
        kind, name = each["kind"], each["metadata"]["name"]
        hooks, annotations = hooks_of(each), each["metadata"].get("annotations") or {}
        if hooks - HOOKS:
            yield f"{kind} {name} has hooks that Helm does not know: {sorted(hooks - HOOKS)}"
        if hooks and "before-hook-creation" not in annotations["helm.sh/hook-delete-policy"]:
            yield f"{kind} {name} would be there already the second time"
        weights[kind, name] = hooks, int(annotations.get("helm.sh/hook-weight", 0))
    for job in rendered.of("Job"):
        hooks, weight = weights["Job", job["metadata"]["name"]]
        account = job["spec"]["template"]["spec"]["serviceAccountName"]
        needed = [("ServiceAccount", account)]
        for binding in rendered.of("RoleBinding"):
            if account in [subject["name"] for subject in binding["subjects"]]:
                needed += [("RoleBinding", binding["metadata"]["name"])]
                needed += [("Role", binding["roleRef"]["name"])]
        for kind, name in needed:
            if (
                weights.get((kind, name), (set(), 0))[0] != hooks
                or weights[kind, name][1] >= weight
            ):
                yield f"{kind} {name} is not there when Job {job['metadata']['name']} runs"
