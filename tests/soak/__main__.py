"""Churn for minutes, and then: is all as it was, and does all add up? `make soak MINUTES=5`.

Real servers and probes run on loopback, some of them behind a bad network, while sessions, streams,
targets, certificates, tokens and faults come and go (`churn`). After a fifth of the time, when all
is warm that is made once, and again at the end, all of that stops for a while. What the processes
are at these two rests is compared: memory within 2 % (`accounts` says what more is allowed, and
why), descriptors, threads, tasks, connections, sessions and time series exactly. And every ping is
accounted for: by the probes, by each `pingpong ping`, and by the servers.

The exit status is 1 where something is not so, with a sentence for each.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import random
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from tests.integration.services import Probe
from tests.soak import readings
from tests.soak.accounts import (
    ALLOWANCES,
    MIB,
    Pings,
    Reading,
    messages_missing,
    not_flat,
    not_same_series,
    shown,
    slots_missing,
    unaccounted,
)
from tests.soak.churn import Churn
from tests.soak.world import INTERVAL, MODES, World
from tests.support.running import Metrics

WARM_UP = 0.2
"""Of the time, before the first rest."""
REST = 20.0
"""Seconds of a rest. A probe keeps a session that it has replaced for 15.5 s, since answers may
still come; servers give a handshake up after 10 s, and a silent connection after 5 s."""
SETTLE = 30.0
"""Seconds after a rest in which what is to be flat has to become so."""
SHORTEST = 1.5
"""Minutes, two rests included."""
EACH = 10.0
"""Seconds between two lines that show how it is, where no terminal is."""
WIDTH = 79
_HEADS = {
    "connections": "conns",
    "malformed": "malf.",
    "send_error": "unsent",
    "sessions": "sess",
    "threads": "thr",
}
_EXPECTED_ERRORS = {"certificate_unusable"}
"""Events that are logged as errors, and are part of the churn."""


@dataclass(frozen=True)
class Rest:
    """What was found at one rest. No ping of `pings` was waited for; they are by probe first."""

    readings: dict[str, Reading]
    scrapes: dict[str, Metrics]
    scraped_at: dict[str, float]
    pings: dict[tuple[str, ...], Pings]


class Soak:
    """One run; `complaints` are what is wrong, a sentence each."""

    def __init__(self, world: World, churn: Churn, seconds: float) -> None:
        self._world = world
        self._churn = churn
        self._seconds = seconds
        self._began = time.monotonic()
        self._shown_at = 0.0
        self._complaints: dict[str, None] = {}

    def run(self) -> list[str]:
        """Churn, rest, churn, rest. Returns what is wrong, a sentence each.

        Raises AssertionError where a rest is none.
        """
        self._world.wait_rest(SETTLE)
        self._churn_until(self._seconds * WARM_UP, "warm-up")
        begin = self._rest()
        self._churn_until(self._seconds - REST, "churn")
        end = self._rest(begin)
        self._complain(self._churn.complaints)
        self._complain(_not_flat(begin, end))
        self._complain(self._unaccounted(begin, end))
        self._complain(self._errors())
        if sys.stdout.isatty():
            print("\r\x1b[K", end="")
        print("\n".join(self._summary(begin, end)))
        return list(self._complaints)

    @property
    def _probes(self) -> dict[str, Probe]:
        return {n: s for n, s in self._world.watched.items() if isinstance(s, Probe)}

    def _complain(self, complaints: Iterator[str] | list[str]) -> None:
        self._complaints |= dict.fromkeys(complaints)

    # The course.

    def _churn_until(self, seconds: float, what: str) -> None:
        with self._churn.running():
            while time.monotonic() < self._began + seconds:
                self._churn.check()
                self._follow(what)
                time.sleep(0.5)

    def _follow(self, what: str) -> None:
        """Show how it is, and see that the probes' figures are possible."""
        passed = time.monotonic() - self._began
        sums = Pings()
        for probe in self._probes.values():
            with contextlib.suppress(OSError, http.client.HTTPException):
                for name, each in readings.pings(probe.metrics()).items():
                    self._complain(unaccounted(" ".join(name), each, at_rest=False))
                    sums += each
        services = self._world.watched.values()
        memory = " ".join(f"{readings.resident(one.popen.pid) / MIB:.1f}" for one in services)
        line = (
            f"{passed:5.0f} s  {what:<8} pings sent {sums.sent:,} lost {sums.lost:,}"
            f"  memory {memory} MiB"
        )[:WIDTH]
        if sys.stdout.isatty():
            print(f"\r\x1b[K{line}", end="", flush=True)
        elif passed - self._shown_at >= EACH:
            self._shown_at = passed
            print(line, flush=True)

    def _rest(self, begin: Rest | None = None) -> Rest:
        """Let all end that ends by itself, and look; again until all is as it was at the first rest."""
        until = time.monotonic() + REST
        while time.monotonic() < until:
            self._follow("rest")
            time.sleep(1)
        world = self._world
        world.wait_rest(SETTLE)
        resident = {name: readings.resident(pid) for name, pid in world.processes().items()}
        rest = self._look(resident)
        while begin is not None and time.monotonic() < until + SETTLE:
            # What is done once a second, say, may just have been under way.
            if not list(_not_flat(begin, rest)):
                break
            time.sleep(1)
            rest = self._look(resident)
        return rest

    def _look(self, resident: Mapping[str, float]) -> Rest:
        world = self._world
        found: dict[str, Reading] = {}
        for name, service in world.watched.items():
            found |= readings.service_readings(name, service, world.folder, resident)
        pings = {
            (name, *target_mode): each
            for name, probe in self._probes.items()
            for target_mode, each in _settled(probe).items()
        }
        scrapes, scraped_at = {}, {}
        for name, service in world.watched.items():
            scraped_at[name] = time.monotonic()
            scrapes[name] = service.metrics()
        return Rest(found, scrapes, scraped_at, pings)

    # The verdict.

    def _unaccounted(self, begin: Rest, end: Rest) -> Iterator[str]:
        for target_mode, pings in end.pings.items():
            yield from unaccounted(", ".join(target_mode), pings)
        fixed = next(name for name, one in self._probes.items() if one is self._world.fixed)
        before, after = begin.scrapes[fixed], end.scrapes[fixed]
        schedules = len(readings.pings(after))
        yield from slots_missing(
            fixed,
            slots=(end.scraped_at[fixed] - begin.scraped_at[fixed]) / INTERVAL * schedules,
            counted=readings.slots_counted(after) - readings.slots_counted(before),
            sessions=(readings.connected(after) - readings.connected(before)) * len(MODES),
            schedules=schedules,
        )
        for name in end.scrapes.keys() - self._probes.keys():
            for found in readings.messages(end.scrapes[name]):
                yield from messages_missing(name, *found)

    def _errors(self) -> Iterator[str]:
        """A sentence for each kind of error that a service has logged, or written elsewise."""
        for name, service in self._world.watched.items():
            for event in service.events():
                is_error = event["level"] in ("error", "critical")
                if is_error and event["event"] not in _EXPECTED_ERRORS:
                    yield f"{name}: logged {event['event']}"
            for line in service.err:
                if not line.startswith("{"):
                    yield f"{name}: wrote {line!r}"

    def _summary(self, begin: Rest, end: Rest) -> Iterator[str]:
        heads = "".join(f"{_HEADS.get(one, one):>{_width(one)}}" for one in ALLOWANCES)
        yield f"{'at rest, MiB':<21}{heads}"
        for name, reading in begin.readings.items():
            for when, of in (("begin", reading), ("end", end.readings[name])):
                cells = ((one, shown(one, of.figures[one]).rstrip("M")) for one in ALLOWANCES)
                row = "".join(f"{cell:>{_width(one)}}" for one, cell in cells)
                yield f"{name if when == 'begin' else '':<15}{when:<6}{row}"
        yield ""
        for name, scrape in end.scrapes.items():
            yield f"{name}: {len(begin.scrapes[name].series())} → {len(scrape.series())} series"
            for mode, received, answered, dropped in readings.messages(scrape):
                reasons = ", ".join(
                    f"{count} {reason}" for reason, count in dropped.items() if count
                )
                text = f"  {mode}: {received} received, {answered} answered"
                yield f"{text}; dropped: {reasons}" if reasons else text
        yield ""
        columns = [field.name for field in fields(Pings)]
        yield f"{'pings of':<31}" + "".join(f"{_HEADS.get(c, c):>8}" for c in columns)
        rows = {**end.pings, ("", "pingpong ping", "all modes"): self._churn.pings}
        for (_, target, mode), pings in sorted(rows.items()):
            counts = "".join(f"{getattr(pings, column):>8}" for column in columns)
            short = target if len(target) <= 20 else f"…{target[-19:]}"
            yield f"{short:<21}{mode:<10}{counts}"
        yield ""
        done = ", ".join(f"{name} {count}" for name, count in sorted(self._churn.counts.items()))
        yield from textwrap.wrap(f"done: {done}", WIDTH)
        yield ""
        yield from self._complaints
        count = len(self._complaints)
        yield f"{count} complaints." if count else "All is flat, and adds up."


def _settled(probe: Probe) -> dict[tuple[str, ...], Pings]:
    """The pings of each target in each mode, at a moment in which none was waited for."""
    settled: dict[tuple[str, ...], Pings] = {}
    deadline = time.monotonic() + SETTLE
    while True:
        pings = readings.pings(probe.metrics())
        is_late = time.monotonic() > deadline
        settled |= {key: each for key, each in pings.items() if is_late or not each.waiting}
        if settled.keys() == pings.keys():
            return settled
        time.sleep(0.05)


def _not_flat(begin: Rest, end: Rest) -> Iterator[str]:
    if begin.readings.keys() != end.readings.keys():
        yield f"processes: {sorted(begin.readings.keys() ^ end.readings.keys())} were not there twice"
    for name in begin.readings.keys() & end.readings.keys():
        yield from not_flat(name, begin.readings[name], end.readings[name])
    for name, scrape in begin.scrapes.items():
        yield from not_same_series(name, scrape.series(), end.scrapes[name].series())


def _width(figure: str) -> int:
    return (
        7 if figure in ("rss", "kept", "malloc", "blocks") else len(_HEADS.get(figure, figure)) + 1
    )


def main() -> int:
    """Returns the exit status: 1 where something is not flat, or does not add up."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0, help="how long, at least 1.5")
    parser.add_argument("--seed", default=f"{random.getrandbits(32):08x}", help="of what is random")
    arguments = parser.parse_args()
    minutes = max(arguments.minutes, SHORTEST)
    print(f"soak: {minutes:g} minutes, --seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        try:
            world = World(Path(folder), arguments.seed, stack)
            churn = Churn(world, random.Random(arguments.seed))
            return 1 if Soak(world, churn, 60 * minutes).run() else 0
        except AssertionError as error:
            print(f"\nsoak: {error}")
            return 1
        except KeyboardInterrupt:
            return 130


if __name__ == "__main__":
    sys.exit(main())
