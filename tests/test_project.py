"""What holds for the project as a whole: its files agree with each other and with its rules."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import pingpong

ROOT = Path(__file__).parent.parent
SERVICES = ROOT / "services"
WEBTRANSPORT = SERVICES / "pingpong" / "webtransport"
SEAM = set((WEBTRANSPORT / "quic").glob("*.py"))
"""What aioquic's answer to the seam is made of."""
SOURCES = sorted(SERVICES.rglob("*.py"))


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


@pytest.fixture(scope="module")
def pins() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def requirements(project: dict[str, Any]) -> list[Requirement]:
    extras = project["project"]["optional-dependencies"].values()
    texts = [*project["project"]["dependencies"], *(text for extra in extras for text in extra)]
    found = [Requirement(text) for text in texts]
    return [each for each in found if each.name != project["project"]["name"]]  # its own extras


def imported(path: Path) -> set[str]:
    """The modules that a file names in its imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return names


def test_there_are_sources() -> None:
    assert SERVICES / "pingpong" / "__init__.py" in SOURCES


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if path not in SEAM],
    ids=lambda path: str(path.relative_to(SERVICES)),
)
def test_only_the_seam_knows_aioquic(path: Path) -> None:
    assert {name for name in imported(path) if name.split(".")[0] == "aioquic"} == set()


def test_constraints_are_sorted_exact_pins_without_an_address(pins: list[str]) -> None:
    for pin in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.!+]*", pin)
    assert pins == sorted(pins, key=str.upper)
    names = [canonicalize_name(pin.partition("==")[0]) for pin in pins]
    assert len(names) == len(set(names))
    assert "://" not in (ROOT / "constraints.txt").read_text()


def test_constraints_pin_every_dependency_at_an_allowed_version(
    project: dict[str, Any], pins: list[str]
) -> None:
    versions = dict(pin.split("==") for pin in pins)
    pinned = {canonicalize_name(name): version for name, version in versions.items()}
    for requirement in requirements(project):
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_aioquic_is_held_to_a_minor_release(project: dict[str, Any]) -> None:
    [aioquic] = [each for each in requirements(project) if each.name == "aioquic"]
    assert re.fullmatch(r"==\d+\.\d+\.(\*|\d+)", str(aioquic.specifier))


def test_the_version_is_said_once(project: dict[str, Any]) -> None:
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    assert ROOT / project["tool"]["hatch"]["version"]["path"] == Path(pingpong.__file__)
    says_it = re.compile(rf"(?<![\d.]){re.escape(pingpong.__version__)}(?![\d.])")
    places = [path.name for path in SOURCES if says_it.search(path.read_text())]
    assert places == ["__init__.py"]


def test_what_the_source_distribution_lists_exists(project: dict[str, Any]) -> None:
    """`make package` looks into the one that is built."""
    listed = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert [path for path in listed if not (ROOT / path.lstrip("/")).exists()] == []
    assert (SERVICES / "pingpong" / "py.typed").exists()


def test_every_ignored_lint_rule_has_a_reason_beside_it() -> None:
    rules = 0
    for table in re.findall(
        r"^(?:ignore|\"[^\"]+\") = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S
    ):
        for line in table.splitlines():
            assert re.fullmatch(r'    "[A-Z]+\d*", +# .+', line)
            rules += 1
    assert rules


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    inherited.pop("PYTHON", None)
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.process
def test_make_help_lists_every_target() -> None:
    [phony] = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    listed = re.findall(r"^make (\S+) +\S", make("help").stdout, re.M)
    assert listed == phony.split()
    assert {"run", "test", "check", "bench"} <= set(listed)


def fake(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.process
def test_make_passes_over_pythons_that_fail_or_are_too_old(tmp_path: Path) -> None:
    fake(tmp_path, "python3.13", "echo 'not the version that is chosen' >&2; exit 127")
    fake(tmp_path, "python3.12", "exit 1")
    fake(tmp_path, "python3.11", "exit 0")
    found = make("python", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert found.stdout == "python3.11\n"


@pytest.mark.process
def test_make_says_what_to_do_without_a_python(tmp_path: Path) -> None:
    found = make("python", f"PYTHON={tmp_path}/none")
    assert found.returncode != 0
    assert "make PYTHON=" in found.stderr


@pytest.mark.process
def test_make_says_which_package_a_python_without_pip_lacks(tmp_path: Path) -> None:
    fake(tmp_path, "python3.11", 'case "$*" in *"import pip"* | *ensurepip*) exit 1 ;; esac')
    found = make("run", f"VENV={tmp_path}/venv", f"PYTHON={tmp_path}/python3.11")
    assert found.returncode != 0
    assert "apt install python3-venv" in found.stderr
