"""The extras of the distribution: each service's has what it imports, and no service needs more."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.images.dockerfiles import ROOT, SERVICES, read
from tests.images.extras import ASKING, installed, named
from tests.support import processes
from tests.support.processes import Process, serving

# Run in place of `-m pingpong`: what is named first cannot be imported, as if it were not installed.
WITHOUT = """\
import sys
from importlib.abc import MetaPathFinder

class Without(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Without())
"""


@cache
def imported(service: str) -> dict[str, set[str]]:
    """The packages of others that a service's modules import, wherever, and which modules do."""
    graph = grimp.build_graph(
        "pingpong",
        include_external_packages=True,
        exclude_type_checking_imports=True,
        cache_dir=None,
    )
    roots = {"pingpong.__main__"}
    for package in (f"pingpong.{service}", "pingpong.telemetry"):
        roots |= {package, *graph.find_descendants(package)}
    other = f"pingpong.{({*SERVICES} - {service}).pop()}"
    modules, waiting = set(), list(roots)
    while waiting:
        module = waiting.pop()
        # `__main__` imports the verbs one by one, when they are asked for.
        is_apart = module == "pingpong.run" or module.split(".")[:2] == other.split(".")
        if module not in modules and not is_apart:
            modules.add(module)
            waiting += graph.find_modules_directly_imported_by(module)
    return {
        name: graph.find_modules_that_directly_import(name) & modules
        for name in modules
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "pingpong", "pingpong_engine"}
    }


@pytest.mark.parametrize("service", SERVICES)
def test_what_a_service_imports_is_in_its_image(service: str) -> None:
    packages = packages_distributions()
    found = imported(service)
    assert {"aioquic", "kubernetes", "pydantic", "uvloop"} <= set(found)
    assert ("dns" in found) == (service == "client")
    for name, modules in found.items():
        distributions = {canonicalize_name(each) for each in packages[name]}
        assert distributions & installed(service), (name, modules)


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_named_is_imported(service: str) -> None:
    packages = packages_distributions()
    used = {canonicalize_name(each) for name in imported(service) for each in packages[name]}
    assert {canonicalize_name(Requirement(text).name) for text in named(service)} - used == set()


@pytest.mark.parametrize("service", SERVICES)
def test_all_that_comes_into_an_image_has_an_exact_version(service: str) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines if line[:1] != "#"}
    assert installed(service) - pinned == set()
    [watcher] = read(service).stages["reloader"].all("RUN")
    assert watcher.words[-1] == "watchfiles"
    assert {"watchfiles", "anyio", "idna"} <= pinned


def test_the_server_has_nothing_of_what_only_the_client_needs() -> None:
    only_client = installed("client") - installed("server")
    assert {"dnspython", "rich", "pygments"} <= only_client
    assert {"mypy", "pytest", "watchfiles", "hypothesis"} & installed("client") == set()


def missing(service: str) -> set[str]:
    """The packages that can be imported here and not in a service's image."""
    there = installed(service)
    return {
        name
        for name, distributions in packages_distributions().items()
        if not {canonicalize_name(each) for each in distributions} & there
    } - {"pingpong", "_distutils_hack"}


@pytest.fixture(params=SERVICES)
def bare(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A service; `python -m pingpong` finds only what its image has."""
    service = str(request.param)
    names = missing(service)
    assert {"pytest", "watchfiles"} <= names
    assert ("dns" in names) == (service == "server")
    (tmp_path / "sitecustomize.py").write_text(WITHOUT.format(missing=names))
    found = {"PYTHONPATH": f"{tmp_path}:{ROOT / 'services'}"}
    monkeypatch.setattr(
        "tests.support.processes.environment", lambda: {"PATH": "/usr/bin:/bin", **found}
    )
    return service


@pytest.mark.process
def test_it_works_with_what_its_image_has(bare: str) -> None:
    with serving() as (_, words):
        if bare == "server":
            # A client at a shell, for `kubectl exec` into the server's pod.
            with Process(*words, "-c", "1") as client:
                status, out, err = client.finish()
            assert (status, err) == (0, "")
            assert "1 sent, 1 received" in out
            return
        url, trust = words[1:]
        probing = (url, trust, "--admin-host=127.0.0.1", "--admin-port=0")
        with Process("probe", *probing) as client:
            client.read_event("target_up")


@pytest.mark.process
def test_it_can_ask_a_cluster_with_what_its_image_has(bare: str) -> None:
    names = ", ".join(f"pingpong.{name}" for name in ASKING[bare])
    done = subprocess.run(
        [sys.executable, "-c", f"import {names}"],
        env=processes.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("service", SERVICES)
def test_the_apis_that_are_used_have_byte_code_in_its_image(service: str) -> None:
    text = "".join(each.text for each in read(service).stages["dependencies"].all("RUN"))
    [named] = re.findall(r"from kubernetes\.aio\.client import ([^;]*);", text)
    modules = imported(service)["kubernetes"] - {"pingpong.cluster"}
    assert modules == {f"pingpong.{name}" for name in ASKING[service]}
    paths = (
        ROOT / "services/pingpong" / f"{name.replace('.', '/')}.py" for name in ASKING[service]
    )
    sources = "".join(path.read_text() for path in paths)
    assert set(named.split(", ")) == set(re.findall(r"\b\w+V\d+Api\b", sources))
