"""All probers: one a target, each with a task of its own, none of them in another's way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...settings import ProbeSettings
from ...telemetry.failure_log import Repeats
from ...telemetry.logs import get_logger
from ..link.backoff import Backoff
from ..link.dialer import Dialer, Lookup
from .metrics import ProbeMetrics, TargetCounts
from .prober import Prober

if TYPE_CHECKING:
    from ..discovery import Destination

TICK = 0.25
"""Seconds from one stock-taking to the next."""
_SHORTEST_RESTART = 0.1
_LONGEST_RESTART = 30.0
"""Seconds before a prober that had a fault in itself is made anew."""


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """How it is with one target."""

    name: str
    is_up: bool
    reason: str
    """Why it is down, for people."""
    seconds: float
    """For how long it has been so."""


@dataclass(eq=False, slots=True)
class _Supervised:
    """A target, and what probes it now."""

    destination: Destination
    task: asyncio.Task[None] | None = None
    prober: Prober | None = None


class Supervisor:
    """Probes the targets that `changed` names; `lookup` says where one of them is now."""

    def __init__(self, settings: ProbeSettings, metrics: ProbeMetrics, lookup: Lookup) -> None:
        self._settings = settings
        self._metrics = metrics
        self._dialer = Dialer(settings, lookup)
        self._failures = Repeats()
        self._log = get_logger("pingpong.client").bind()
        self._loop = asyncio.get_running_loop()
        self._targets: dict[str, _Supervised] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._ticked_at = time.monotonic()
        self._timer = self._loop.call_later(TICK, self._tick)

    def changed(self, destinations: Mapping[str, Destination]) -> None:
        """These are the targets now: others are left, and their series removed."""
        for name in [name for name in self._targets if name not in destinations]:
            self._remove(name)
        for name, destination in destinations.items():
            known = self._targets.get(name)
            if known is not None and known.destination.url != destination.url:
                self._remove(name)
                known = None
            if known is None:
                self._add(name, destination)
            elif known.destination != destination:
                known.destination = destination
                if known.prober is not None:
                    known.prober.connect_now()

    def connect_now(self) -> None:
        """Whoever waits before the next attempt to connect waits no longer."""
        for target in self._targets.values():
            if target.prober is not None:
                target.prober.connect_now()

    def statuses(self) -> list[TargetStatus]:
        """How it is with each target."""
        now = time.monotonic_ns()
        found = []
        for name, target in self._targets.items():
            if target.prober is None:
                found.append(TargetStatus(name, False, "a fault in this program", 0))
                continue
            availability = target.prober.availability
            seconds = max(now - availability.changed_at, 0) * 1e-9
            found.append(TargetStatus(name, availability.is_up, target.prober.reason, seconds))
        return found

    async def close(self, timeout: float = 1.0) -> None:
        """Stop probing, and leave all sessions; after `timeout` seconds, without a word."""
        self._timer.cancel()
        for target in self._targets.values():
            self._cancel(target)
        self._targets.clear()
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=timeout)

    def _add(self, name: str, destination: Destination) -> None:
        target = self._targets[name] = _Supervised(destination)
        counts = self._metrics.targets[name] = TargetCounts(self._settings.modes)
        target.task = self._loop.create_task(self._supervise(name, target, counts))
        self._log.info(
            "target_added",
            target=name,
            url=destination.url,
            addresses=list(destination.addresses),
        )

    def _remove(self, name: str) -> None:
        self._cancel(self._targets.pop(name))
        del self._metrics.targets[name]
        self._failures.forget(name)
        self._log.info("target_removed", target=name)

    def _cancel(self, target: _Supervised) -> None:
        task = target.task
        if task is not None:
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
            task.cancel()

    async def _supervise(self, name: str, target: _Supervised, counts: TargetCounts) -> None:
        backoff = Backoff(_SHORTEST_RESTART, _LONGEST_RESTART)
        while True:
            prober = target.prober = Prober(
                name, self._settings, self._metrics, counts, self._dialer, self._failures
            )
            began = time.monotonic()
            try:
                await prober.run()
            except Exception:
                self._log.exception("prober_failed", target=name)
            finally:
                target.prober = None
                counts.is_up = False
                await prober.close()
            if time.monotonic() - began > _LONGEST_RESTART:
                backoff.reset()
            await asyncio.sleep(backoff.next())

    def _tick(self) -> None:
        now = time.monotonic()
        # What this process slept through, or was held up for, is nobody's silence.
        passed = now - self._ticked_at
        awake = min(passed, 2 * TICK)
        asleep_ns = int((passed - awake) * 1e9)
        self._ticked_at = now
        self._timer = self._loop.call_later(TICK, self._tick)
        for target in list(self._targets.values()):
            prober = target.prober
            if prober is None:
                continue
            if asleep_ns:
                prober.availability.slept(asleep_ns)
            try:
                prober.tick(now, awake)
            except Exception as error:
                prober.fail(error)
