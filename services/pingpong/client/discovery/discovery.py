"""Keeps the destinations of all sources up to date, and looks one up anew when asked to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from ...telemetry.failure_log import FailureLogThrottle
from ...telemetry.logs import get_logger
from .addresses import Families
from .destinations import Destination, Kind, Source, TargetLimit, destinations, read_sources
from .endpointslices import Slice, ready_endpoints
from .lookups import Answer, DiscoveryError, Endpoint, LookupState, Result
from .resolver import Resolver

if TYPE_CHECKING:
    from .watch import EndpointSliceWatch

REFRESH_TIMEOUT = 2.0
"""Seconds that `Discovery.refresh` waits for a lookup, at most."""
REFRESH_TIMEOUT_KNOWN = 0.5
"""The same where there is a good answer: a reconnect must not wait for a name server that is gone.
It asks again where no server answers at the addresses known.
"""

_APART = 0.002
"""Seconds between the first lookups of two sources: not all in one turn of the event loop."""

_SHOWN = 3
"""Sources in trouble that a summary names."""


@dataclass(frozen=True, slots=True)
class SourceState:
    """How a source does.

    `result` is of the last lookup, None before the first one ended, and `error` says why it
    failed. `last_success` is in seconds since 1970. `addresses` are those in use, whatever became
    of the last lookup.
    """

    source: str
    kind: Kind
    result: Result | None
    error: str
    last_success: float | None
    addresses: int


@dataclass(slots=True, eq=False)
class _TrackedSource:
    """A source and what is known of it."""

    source: Source
    lookups: LookupState
    ask: Callable[[], Awaitable[Answer]] | None = None
    asking: asyncio.Task[None] | None = None
    watch: EndpointSliceWatch | None = None


class Discovery:
    """Finds destinations, for as long as `run` runs.

    `servers` are the setting's entries; `per_address`, one destination for each address (or pod);
    more than `max_targets` are left out; `interval`, in seconds, is the longest between lookups.
    `changed` is called with all destinations by name, in the setting's order, whenever any of them
    has changed. A name to be looked up becomes a destination when its first lookup has ended, without
    addresses if that failed (per address: when there is one). `counted` is called with the result of each lookup.

    Raises `ValueError` for an entry that is none.
    """

    def __init__(
        self,
        servers: Sequence[str],
        *,
        per_address: bool,
        max_targets: int,
        interval: float,
        changed: Callable[[Mapping[str, Destination]], None],
        counted: Callable[[Result], None] = lambda result: None,
        resolver: Resolver | None = None,
        families: Families | None = None,
    ) -> None:
        self._sources = read_sources(servers)
        self._per_address = per_address
        self._interval = interval
        self._limit_targets = TargetLimit(max_targets)
        self._changed = changed
        self._counted = counted
        self._resolver = resolver or Resolver()
        self._families = families or Families()
        self._throttle = FailureLogThrottle()
        self._log = get_logger("pingpong.client.discovery")
        self._known: tuple[_TrackedSource, ...] = ()
        self._owners: dict[str, _TrackedSource] = {}
        self._destinations: Mapping[str, Destination] = MappingProxyType({})
        services = [source for source in self._sources if source.kind == "endpointslice"]
        self._is_only_service = len(services) == 1

    @property
    def destinations(self) -> Mapping[str, Destination]:
        """All there are now, as `changed` was last called with."""
        return self._destinations

    @property
    def left_out(self) -> int:
        """How many destinations there is no room for."""
        return self._limit_targets.left_out

    @property
    def last_success(self) -> float:
        """When the source that has waited longest last had a lookup that succeeded.

        In seconds since 1970; 0 until each has had one.
        """
        states = self.state()
        return min((state.last_success or 0.0 for state in states), default=0.0)

    def state(self) -> tuple[SourceState, ...]:
        """How each source does, in the setting's order; empty before `run`."""
        if not self._known:
            return ()
        now, wall = asyncio.get_running_loop().time(), time.time()
        return tuple(_state(known, now, wall) for known in self._known)

    def summary(self) -> str:
        """How the sources do, in a line for people: which fail, why, and what is kept of them."""
        states = self.state()
        troubled = [state for state in states if state.error]
        parts = [f"{s.source}: {s.error} ({s.addresses} kept)" for s in troubled[:_SHOWN]]
        if len(troubled) > _SHOWN:
            parts.append(f"and {len(troubled) - _SHOWN} more")
        if self.left_out:
            parts.append(f"{self.left_out} targets above the limit of {self._limit_targets.limit}")
        return "; ".join(parts) or f"{len(states)} looked up"

    async def run(self) -> None:
        """Look up, and go on with it whatever fails, until cancelled."""
        now = asyncio.get_running_loop().time()
        self._known = tuple(self._begin(source, now) for source in self._sources)
        self._rebuild()
        try:
            async with asyncio.TaskGroup() as group:
                for index, known in enumerate(self._known):
                    if known.ask is not None:
                        group.create_task(self._keep(known, index * _APART))
                    if known.watch is not None:
                        group.create_task(known.watch.run())
                group.create_task(_for_ever())
        finally:
            for known in self._known:
                if known.asking is not None:
                    known.asking.cancel()

    async def refresh(self, name: str) -> Destination:
        """Look a destination up again, and return it as it is now.

        Its addresses are in the order of the answer, which name servers change to spread load. No
        longer than `REFRESH_TIMEOUT` is waited, or `REFRESH_TIMEOUT_KNOWN`; without an answer by then it is the
        last one that was good, and so it is where the last lookup ended less than a second ago, or
        where a watch follows the source. `changed` may be called meanwhile. Raises `KeyError` for a name
        that is none.
        """
        before = self._destinations[name]
        known = self._owners[name]
        now = asyncio.get_running_loop().time()
        if known.ask is not None and not known.lookups.is_recent(now):
            timeout = (
                REFRESH_TIMEOUT_KNOWN
                if _count_addresses(known.lookups.endpoints)
                else REFRESH_TIMEOUT
            )
            done, _ = await asyncio.wait({self._look_up(known)}, timeout=timeout)
            for task in done:
                if not task.cancelled():
                    task.result()
        for made in self._destinations_of(known, known.lookups.latest):
            if made.name == name:
                return made
        return self._destinations.get(name, before)

    def _begin(self, source: Source, now: float) -> _TrackedSource:
        known = _TrackedSource(source, LookupState(self._interval, now))
        if source.kind == "address":
            assert isinstance(source.port, int)
            endpoint = Endpoint(source.host, source.port, (source.name,))
            known.lookups.succeeded(Answer((endpoint,)), now)
        elif source.kind == "endpointslice":
            # It imports kubernetes, which is large.
            from .watch import EndpointSliceWatch

            def notify(what: tuple[Slice, ...] | DiscoveryError) -> None:
                self._take_slices(known, what)

            known.watch = EndpointSliceWatch(source.namespace, source.name, notify)
        else:
            known.ask = lambda: self._ask(source)
        return known

    async def _ask(self, source: Source) -> Answer:
        if source.kind == "srv":
            return await self._resolver.services(source.name)
        assert isinstance(source.port, int)
        found = await self._resolver.addresses(source.name)
        endpoint = Endpoint(source.host, source.port, found.addresses, missing=found.missing)
        return Answer((endpoint,), found.ttl)

    async def _keep(self, known: _TrackedSource, pause: float) -> None:
        while True:
            await asyncio.sleep(pause)
            now = asyncio.get_running_loop().time()
            if known.lookups.due <= now:
                await self._look_up(known)
                now = asyncio.get_running_loop().time()
            pause = max(0.0, known.lookups.due - now)

    def _look_up(self, known: _TrackedSource) -> asyncio.Task[None]:
        """The lookup that is on its way, or a new one."""
        if known.asking is None or known.asking.done():
            known.asking = asyncio.create_task(self._ask_and_take(known))
        return known.asking

    async def _ask_and_take(self, known: _TrackedSource) -> None:
        assert known.ask is not None
        try:
            outcome: Answer | DiscoveryError = await known.ask()
        except DiscoveryError as failure:
            outcome = failure
        except Exception as error:
            # Whatever an answer may have done to the parser: discovery goes on.
            self._log.exception("discovery_crashed", source=known.source.label)
            outcome = DiscoveryError(Result.ERROR, type(error).__name__)
        self._take(known, outcome)

    def _take_slices(self, known: _TrackedSource, what: tuple[Slice, ...] | DiscoveryError) -> None:
        source = known.source
        if isinstance(what, DiscoveryError):
            self._take(known, what)
            return
        endpoints = ready_endpoints(what, source.host, source.port)
        nothing = DiscoveryError(
            Result.EMPTY,
            "no ready endpoint with such a port" if what else "no such service, or without pods",
        )
        self._take(known, Answer(endpoints) if endpoints else nothing)

    def _take(self, known: _TrackedSource, outcome: Answer | DiscoveryError) -> None:
        now = asyncio.get_running_loop().time()
        lookups = known.lookups
        is_first = lookups.result is None
        has_changed = False
        if isinstance(outcome, DiscoveryError):
            lookups.failed(outcome, now)
        else:
            endpoints = tuple(
                replace(endpoint, addresses=self._families.usable(endpoint.addresses))
                for endpoint in outcome.endpoints
            )
            has_changed = lookups.succeeded(replace(outcome, endpoints=endpoints), now)
        assert lookups.result is not None
        self._counted(lookups.result)
        self._log_result(known, now)
        if has_changed or is_first:
            self._rebuild()

    def _log_result(self, known: _TrackedSource, now: float) -> None:
        lookups, label = known.lookups, known.source.label
        if lookups.result is Result.OK:
            recovered = self._throttle.succeeded(label, now)
            if recovered is not None:
                self._log.info(
                    "discovery_recovered",
                    source=label,
                    failures=recovered.count,
                    seconds=round(recovered.seconds, 1),
                )
            return
        failed = self._throttle.failed(label, lookups.error, now)
        if failed is not None:
            self._log.warning(
                "discovery_failed",
                source=label,
                result=lookups.result,
                error=lookups.error,
                addresses_kept=_count_addresses(lookups.endpoints),
                count=failed.count,
            )

    def _rebuild(self) -> None:
        """Make the destinations anew, and call `changed` if they differ."""
        candidates = []
        owners: dict[str, _TrackedSource] = {}
        for known in self._known:
            for made in self._destinations_of(known, known.lookups.endpoints):
                owners.setdefault(made.name, known)
                candidates.append(made)
        chosen = {
            name: made
            for name, made in self._limit_targets.admit(candidates).items()
            # Names that are not looked up yet only hold their places: the setting's order decides
            # who is left out, not the order of answers.
            if owners[name].lookups.result is not None
        }
        self._owners = {name: owners[name] for name in chosen}
        self._log_left_out()
        if chosen != self._destinations:
            self._destinations = MappingProxyType(chosen)
            self._changed(self._destinations)

    def _destinations_of(
        self, known: _TrackedSource, endpoints: Sequence[Endpoint]
    ) -> tuple[Destination, ...]:
        source = known.source
        if not endpoints and source.kind == "host":
            # The operator asked for it: where it can't be found, it is a target that is down.
            assert isinstance(source.port, int)
            endpoints = (Endpoint(source.host, source.port, ()),)
        return tuple(
            destinations(
                source,
                endpoints,
                per_address=self._per_address,
                is_only_service=self._is_only_service,
            )
        )

    def _log_left_out(self) -> None:
        left_out = self._limit_targets.left_out
        now = asyncio.get_running_loop().time()
        if not left_out:
            self._throttle.succeeded(self._limit_targets, now)
        elif self._throttle.failed(self._limit_targets, "", now) is not None:
            self._log.warning(
                "targets_left_out", left_out=left_out, max_targets=self._limit_targets.limit
            )


async def _for_ever() -> None:
    await asyncio.Event().wait()


def _count_addresses(endpoints: Sequence[Endpoint]) -> int:
    return sum(len(endpoint.addresses) for endpoint in endpoints)


def _state(known: _TrackedSource, now: float, wall: float) -> SourceState:
    lookups = known.lookups
    succeeded_at = lookups.succeeded_at
    if known.ask is None and lookups.result is Result.OK:
        succeeded_at = now  # what a watch has reported holds until it reports something else
    return SourceState(
        known.source.label,
        known.source.kind,
        lookups.result,
        lookups.error,
        None if succeeded_at is None else wall - (now - succeeded_at),
        _count_addresses(lookups.endpoints),
    )
