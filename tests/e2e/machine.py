"""What the end-to-end tests need of a machine: docker, kind and helm.

They are taken from the PATH. Where they aren't there, `kindctl` makes them, on machines that have
it: it builds all of it from source, which takes minutes the first time.

As a program, `machine.py check` says whether the tests can run here, with the exit status too, and
`machine.py prepare` makes what is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
KINDCTL = ROOT.parent / "shared" / "kind" / "kindctl"
"""Where it is looked for, unless the environment variable KINDCTL says where it is."""
CANNOT = 3
"""The exit status that says so: any other but 0 is a fault."""
PROGRAMS = ("docker", "kind", "helm")

_BUILD = 3600.0
"""Seconds that kindctl may take, where it has everything to build."""


class MachineError(Exception):
    """The tests cannot run on this machine; the text is a sentence that says what is missing."""


def missing(environment: Mapping[str, str]) -> str:
    """What of docker, kind and helm cannot be used with this environment; "" where all can be."""
    path = environment.get("PATH")
    absent = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if absent:
        return f"{', '.join(absent)} not on the PATH"
    return "" if _docker_answers(environment) else "no docker daemon answers"


def find_kindctl(environment: Mapping[str, str]) -> Path | None:
    """The kindctl of this machine, if it has one."""
    path = Path(environment.get("KINDCTL") or KINDCTL).resolve()
    return path if os.access(path, os.X_OK) and path.is_file() else None


def prepare(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment with docker, kind and helm on its PATH, and a docker daemon that answers.

    Where kindctl has to make them, it takes up to 20 minutes, once a machine. Raises MachineError.
    """
    lacks = missing(environment)
    if not lacks:
        return dict(environment)
    kindctl = _require_kindctl(environment, lacks)
    _run(kindctl, "all", environment, _BUILD)
    # What it prints is for a shell to evaluate.
    script = 'exports="$("$0" env)" && eval "$exports" && env -0'
    made = subprocess.run(
        ["bash", "-c", script, str(kindctl)],
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    variables = (line.partition("=") for line in made.stdout.split("\0") if line)
    prepared = {name: value for name, _, value in variables}
    if lacks := missing(prepared):
        raise MachineError(f"{lacks}, though {kindctl} was to see to it")
    return prepared


def check(environment: Mapping[str, str]) -> str:
    """How the tests can run here, in a few words. Raises MachineError where they cannot.

    A docker daemon is started for that, if kindctl can.
    """
    lacks = missing(environment)
    if not lacks:
        return "docker, kind and helm are on the PATH"
    kindctl = _require_kindctl(environment, lacks)
    if shutil.which("go", path=environment.get("PATH")) is None:
        raise MachineError(f"{lacks}, and {kindctl} needs a Go toolchain on the PATH")
    _run(kindctl, "up-docker", environment, 600)
    return f"with what {kindctl} makes"


def _require_kindctl(environment: Mapping[str, str], lacks: str) -> Path:
    kindctl = find_kindctl(environment)
    if kindctl is None:
        raise MachineError(
            f"{lacks}: install docker, kind and helm, or name a kindctl that makes them"
            " (make e2e KINDCTL=/path/to/kindctl)"
        )
    return kindctl


def _run(kindctl: Path, verb: str, environment: Mapping[str, str], timeout: float) -> None:
    """Its standard error, where it says what it is doing, is this process's."""
    try:
        subprocess.run(
            [str(kindctl), verb],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            timeout=timeout,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise MachineError(f"`{kindctl} {verb}` did not end in {timeout:g} s") from None
    except subprocess.CalledProcessError as error:
        raise MachineError(
            f"`{kindctl} {verb}` ended with {error.returncode}: above it says why"
        ) from None


def _docker_answers(environment: Mapping[str, str]) -> bool:
    try:
        asked = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


def main(verb: str) -> int:
    """Say whether the tests can run here, or see to it that they can."""
    try:
        if verb == "prepare":
            prepare(os.environ)
        else:
            print(f"make e2e can run here: {check(os.environ)}")
    except MachineError as error:
        print(f"make e2e cannot run here: {error}", file=sys.stderr)
        return CANNOT
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["check"], ["prepare"]):
        sys.exit(f"usage: {sys.argv[0]} check|prepare")
    sys.exit(main(sys.argv[1]))
