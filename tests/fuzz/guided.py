"""Inputs that a target's coverage leads to, by atheris (libFuzzer), where that is installed.

A program of its own, because atheris instruments what is imported after it, and ends the
process: `python -m tests.fuzz.guided TARGET SECONDS FOLDER`. What it finds is kept in the
folder as by the runner, and so are the inputs that reached something new, for the next time.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

_INSTRUMENTED = ["pingpong", "aioquic"]
_MAX_SIZE = 600
_SLOWER = 20


def is_installed() -> bool:
    """Whether there is an atheris here."""
    return importlib.util.find_spec("atheris") is not None


def guided(name: str, seconds: float, folder: Path) -> int:
    """Run a target so for some seconds, in a process of its own; returns how many inputs."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.guided", name, str(int(seconds)), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    runs = re.search(r"Done (\d+) runs", done.stderr)
    if done.returncode or runs is None:
        raise RuntimeError(f"atheris on {name}: {done.stderr[-2_000:]}")
    return int(runs[1])


def main(name: str, seconds: str, folder: str) -> None:
    atheris = importlib.import_module("atheris")

    with atheris.instrument_imports(include=_INSTRUMENTED):
        from tests.fuzz import targets
        from tests.fuzz.targets import TARGETS, Report, attempt, keep, undisturbed

    # How long an input takes says nothing here: what is instrumented is several times slower.
    targets.SLOW *= _SLOWER
    target, report = TARGETS[name](), Report(name)

    def one(data: bytes) -> None:
        found = attempt(name, target, data, report)
        if found is not None:
            keep(report, found, Path(folder))
            target.reset()

    corpus = Path(folder) / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", f"-max_len={_MAX_SIZE}"]
    atheris.Setup([name, *options, "-print_final_stats=0", str(corpus)], one)
    with undisturbed():
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
