"""Fuzzing: `make fuzz SECONDS=60`; see the options. The exit status is 1 where something is found."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pingpong.webtransport.quic import engines
from tests.fuzz.guided import guided, is_installed
from tests.fuzz.targets import (
    TARGETS,
    TEXT,
    WITH_QUINN,
    Found,
    Report,
    generated,
    load,
    repeat,
    run,
)

_PROGRESS_EVERY = 5.0


def _printer() -> Callable[[Report], None]:
    printed = time.monotonic()

    def progress(report: Report) -> None:
        nonlocal printed
        if time.monotonic() - printed >= _PROGRESS_EVERY:
            printed = time.monotonic()
            print(
                f"  {report.target:18} {report.inputs:9,} inputs, {len(report.found)} findings",
                flush=True,
            )

    return progress


def _work(job: tuple[str, str, int, float, Path]) -> Report:
    name, seed, count, seconds, folder = job
    half = is_installed() and not count
    report = run(
        name,
        generated(seed, name),
        count=count,
        seconds=seconds / 2 if half else seconds,
        folder=folder,
        progress=_printer(),
    )
    if half:
        known = set(folder.glob(f"{name}.*{TEXT}"))
        report.inputs += guided(name, max(1, seconds / 2), folder)
        report.seconds = seconds
        for text in sorted(set(folder.glob(f"{name}.*{TEXT}")) - known):
            path = text.with_suffix("")
            inputs = load(path.read_bytes())
            report.found[path.name] = Found(name, text.read_text().strip(), inputs, path)
    return report


def _replay(paths: list[Path]) -> int:
    status = 0
    for path in paths:
        found = repeat(path.name.partition(".")[0], load(path.read_bytes()))
        print(f"{path}: {found or 'nothing is found'}")
        status |= bool(found)
    return status


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--inputs", type=int, default=0, help="a target, instead of seconds")
    parser.add_argument("--runs", type=int, default=0, help="the same, of whole sessions")
    parser.add_argument("--target", default="", help="some of them, by name, with commas")
    parser.add_argument("--seed", default="0", help="the same seed makes the same inputs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"), help="for what is found")
    parser.add_argument("--replay", type=Path, nargs="+", help="files of inputs, and nothing else")
    options = parser.parse_args(arguments)
    if options.replay:
        return _replay(options.replay)
    absent = set() if engines.is_installed("quinn") else WITH_QUINN.keys()
    names = [name for name in TARGETS if name not in absent]
    if options.target:
        names = options.target.split(",")
    if unknown := set(names) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are: {', '.join(TARGETS)}")
    if options.inputs or options.runs:
        counts = {
            name: options.runs if name.startswith("sessions") else options.inputs for name in names
        }
        names = [name for name in names if counts[name]]
    else:
        counts = dict.fromkeys(names, 0)
    jobs = max(1, min(options.jobs, len(names)))
    seconds = options.seconds * jobs / len(names)
    way = "half of the time guided by coverage" if is_installed() else "generated"
    print(f"{len(names)} targets, {jobs} at a time, seed {options.seed}, {way}", flush=True)
    work = [(name, options.seed, counts[name], seconds, options.folder) for name in names]
    reports = []
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=1) as pool:
        for report in pool.imap_unordered(_work, work, chunksize=1):
            print(_line(report), flush=True)
            reports.append(report)
    found = [one for report in reports for one in report.found.values()]
    print(f"\n{sum(r.inputs for r in reports):,} inputs, {len(found)} findings")
    for one in found:
        print(f"\n{one.target}: {one.text}, {one.count} times")
        print(f"  again: make fuzz REPLAY={one.path}")
    return 1 if found else 0


def _line(report: Report) -> str:
    return (
        f"{report.target:20} {report.inputs:9,} inputs {report.inputs / report.seconds:8,.0f}/s"
        f"  slowest {report.slowest * 1e3:6.1f} ms  {len(report.found)} findings"
    )


if __name__ == "__main__":
    sys.exit(main())
