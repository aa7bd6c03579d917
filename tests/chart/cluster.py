"""Whether a cluster would take what was rendered, and run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.chart import kubernetes_schemas, object_rules, pod_security, program, release_rules
from tests.chart.rendering import Object, Rendered


def problems(
    rendered: Rendered,
    *versions: str,
    restricted: bool = True,
    brought: frozenset[str] = frozenset(),
) -> list[str]:
    """What is wrong with what was rendered: a sentence each, none if all is well.

    Checked are the schemas of versions of Kubernetes (of all, if none are given), the rules that
    its API has beside them, how the objects refer to each other, Pod Security "restricted" unless
    the values ask for less, and whether the program takes its settings. ``brought`` are Secrets
    and the like that are there without the chart, each with its kind: ``Secret tokens``.
    """
    found = [
        each
        for version in versions or kubernetes_schemas.VERSIONS
        for thing in rendered.objects
        for each in kubernetes_schemas.problems(thing, version)
    ]
    if found:
        return found  # the rest takes the types for granted
    for thing in rendered.objects:
        found += object_rules.problems(thing)
    found += release_rules.problems(rendered, brought)
    for place, template in rendered.pods().items():
        if restricted:
            found += [f"{place}: {each}" for each in pod_security.violations(template)]
        found += [f"{place}: {each}" for each in of_the_program(template)]
    return found


def of_the_program(template: Object) -> list[str]:
    """What the program would refuse, or warn of, in the pods of a template."""
    [main] = template["spec"]["containers"]
    try:
        settings = program.settings(main)
    except program.SettingsError as error:
        return list(error.mistakes)
    except AssertionError as error:
        return [str(error).splitlines()[0]]
    return [*_files(settings, main, template), *_ports(settings, main), *_grace(settings, template)]


def _files(settings: Any, main: Object, template: Object) -> list[str]:
    there = program.files(main, template["spec"].get("volumes") or [])
    wanted = {
        str(value)
        for name in type(settings).model_fields
        if isinstance(value := getattr(settings, name), Path)
    }
    missing = [f"{path} is on no volume, those have {sorted(there)}" for path in wanted - {*there}]
    return missing + [f"{path} is mounted, but not read" for path in {*there} - wanted]


def _ports(settings: Any, main: Object) -> list[str]:
    there = {port["name"]: port["containerPort"] for port in main.get("ports") or []}
    wanted = {
        name: getattr(settings, field)
        for name, field in (("webtransport", "bind_port"), ("admin", "admin_port"))
        if hasattr(settings, field)
    }
    return [] if there == wanted else [f"listens on {wanted}, but its ports are {there}"]


def _grace(settings: Any, template: Object) -> list[str]:
    [main] = template["spec"]["containers"]
    grace = template["spec"].get("terminationGracePeriodSeconds", 30)
    sleep = ((main.get("lifecycle") or {}).get("preStop") or {}).get("sleep") or {}
    needed = sleep.get("seconds", 0) + getattr(settings, "drain_timeout", 0)
    return [] if grace > needed else [f"is killed after {grace} s, but needs {needed} s to leave"]
