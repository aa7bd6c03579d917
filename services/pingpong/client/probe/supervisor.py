"""Probes all targets, each with its own link in its own task."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from ...link import Backoff, Dialer, Link, LinkOptions, Lookup, Resolved
from ...settings import ProbeSettings
from ...telemetry.failure_log import FailureLogThrottle
from ...telemetry.logs import get_logger
from ...webtransport import Address
from ...webtransport.asyncio import Cause, ConnectError, EndpointConfig
from ..authorization import authorization
from ..discovery import Destination
from ..target import target_of
from .metrics import ProbeMetrics, TargetCounts
from .recorder import Recorder

LookUp: TypeAlias = Callable[[str], Awaitable[Destination]]
"""Finds the destination of a target by name. Raises `KeyError` if it is not a target any longer."""

_SHORTEST_RESTART = 0.1
_LONGEST_RESTART = 30.0
"""Seconds before a link that raised an exception is restarted."""


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """The state of one target."""

    name: str
    is_up: bool
    reason: str
    """Why it is down, for display."""
    seconds: float
    """How long it has been in this state."""


@dataclass(eq=False, slots=True)
class _Supervised:
    """A target, its task and its current link."""

    destination: Destination
    task: asyncio.Task[None] | None = None
    link: Link | None = None


class Supervisor:
    """Probes the targets that `changed` gets; `lookup` finds the destination of one of them."""

    def __init__(self, settings: ProbeSettings, metrics: ProbeMetrics, lookup: LookUp) -> None:
        self._settings = settings
        self._metrics = metrics
        self._look_up = lookup
        headers = partial(authorization, settings.token_file)
        self._dialer = Dialer(
            timeout=settings.connect_timeout,
            headers=headers,
            config=EndpointConfig(engine=settings.engine),
        )
        self._failures = FailureLogThrottle()
        self._log = get_logger("pingpong.client").bind()
        self._loop = asyncio.get_running_loop()
        self._targets: dict[str, _Supervised] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    def changed(self, destinations: Mapping[str, Destination]) -> None:
        """Replace the set of targets. Others are closed, and their series removed."""
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
                if known.link is not None:
                    found = self._resolved(destination)
                    known.link.addresses_changed([address for _, address in found.addresses])
                    known.link.connect_now()

    def connect_now(self) -> None:
        """End the backoff of all targets."""
        for target in self._targets.values():
            if target.link is not None:
                target.link.connect_now()

    def statuses(self) -> list[TargetStatus]:
        """The state of each target."""
        now = time.monotonic_ns()
        found = []
        for name, target in self._targets.items():
            if target.link is None:
                found.append(TargetStatus(name, False, "internal error; see the log", 0))
                continue
            availability = target.link.availability
            seconds = max(now - availability.changed_at, 0) * 1e-9
            found.append(TargetStatus(name, availability.is_up, target.link.reason, seconds))
        return found

    async def close(self, timeout: float = 1.0) -> None:
        """Stop probing, and close all sessions, at most for `timeout` seconds."""
        for target in self._targets.values():
            self._cancel(target)
        self._targets.clear()
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=timeout)

    def _add(self, name: str, destination: Destination) -> None:
        target = self._targets[name] = _Supervised(destination)
        settings = self._settings
        counts = self._metrics.targets[name] = TargetCounts(settings.mode, settings.rtt_buckets)
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
        settings = self._settings
        options = LinkOptions(
            modes=settings.mode,
            size=settings.size,
            interval=settings.interval,
            timeout=settings.timeout,
            spread_by=name,
            warms_up=True,
            backoff=(settings.backoff_min, settings.backoff_max),
        )
        while True:
            recorder = Recorder(name, self._metrics, counts, self._failures)
            link = target.link = Link(name, self._lookup_of(name), self._dialer, recorder, options)
            counts.path_of = link.path_statistics
            began = time.monotonic()
            try:
                await link.run()
            except Exception:
                self._log.exception("prober_failed", target=name)
            finally:
                target.link = None
                counts.is_up = False
                await link.close()
                path = link.path_statistics()
                counts.lost_packets += 0 if path is None else path.lost_packets
                counts.path_of = lambda: None
            if time.monotonic() - began > _LONGEST_RESTART:
                backoff.reset()
            await asyncio.sleep(backoff.next())

    def _lookup_of(self, name: str) -> Lookup:
        async def look_up() -> Resolved:
            try:
                found = self._resolved(await self._look_up(name))
            except LookupError:
                raise ConnectError(Cause.NAME, f"{name} is not a target any longer") from None
            if not found.addresses:
                raise ConnectError(Cause.NAME, f"no address for {found.target.host}")
            return found

        return look_up

    def _resolved(self, destination: Destination) -> Resolved:
        target = target_of(destination.url, self._settings)
        return Resolved(target, tuple(_socket_addresses(destination.addresses, target.port)))


def _socket_addresses(addresses: Sequence[str], port: int) -> Iterator[tuple[int, Address]]:
    """Socket addresses of IP addresses; other texts are skipped."""
    for address in addresses:
        try:
            found = socket.getaddrinfo(
                address, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
            )
        except OSError:
            continue
        for family, _, _, _, socket_address in found:
            yield family, socket_address
