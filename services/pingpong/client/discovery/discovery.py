"""Keeps the destinations of all sources up to date, and refreshes one on request."""

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
"""Maximum seconds that `Discovery.refresh` waits for a lookup."""
REFRESH_TIMEOUT_KNOWN = 0.5
"""The same if addresses are known: a reconnect must not wait for a name server that is down. It
refreshes again if no server answers at the known addresses.
"""

_APART = 0.002
"""Seconds between the first lookups of two sources, to spread them over turns of the event
loop."""

_SHOWN = 3
"""Failing sources that a summary names."""


@dataclass(frozen=True, slots=True)
class SourceState:
    """The state of a source.

    `result` and `error` are of the last lookup; `result` is None before the first one.
    `last_success` is in seconds since 1970. `addresses` is the number of addresses in use, also
    after a failed lookup.
    """

    source: str
    kind: Kind
    result: Result | None
    error: str
    last_success: float | None
    addresses: int


@dataclass(slots=True, eq=False)
class _TrackedSource:
    """A source and its lookups."""

    source: Source
    lookups: LookupState
    ask: Callable[[], Awaitable[Answer]] | None = None
    asking: asyncio.Task[None] | None = None
    watch: EndpointSliceWatch | None = None


class Discovery:
    """Discovers destinations while `run` runs.

    `servers` are the entries of the setting. With `per_address` there is one destination for each
    address (or pod). Destinations above `max_targets` are left out. `interval` is the maximum time
    between lookups, in seconds. `changed` is called with all destinations by name, in the order of
    the setting, when any of them has changed. A name becomes a destination after its first lookup,
    without addresses if that failed (with `per_address`: when there is an address). `counted` is
    called with the result of each lookup.

    Raises `ValueError` for an invalid entry.
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
        """The current destinations, as last passed to `changed`."""
        return self._destinations

    @property
    def left_out(self) -> int:
        """The number of destinations above `max_targets`."""
        return self._limit_targets.left_out

    @property
    def last_success(self) -> float:
        """The oldest of the last successful lookups of all sources, in seconds since 1970.

        0 until each source had one.
        """
        states = self.state()
        return min((state.last_success or 0.0 for state in states), default=0.0)

    def state(self) -> tuple[SourceState, ...]:
        """The state of each source, in the order of the setting; empty before `run`."""
        if not self._known:
            return ()
        now, wall = asyncio.get_running_loop().time(), time.time()
        return tuple(_state(known, now, wall) for known in self._known)

    def summary(self) -> str:
        """A summary in one line: which sources fail, why, and how many addresses are kept."""
        states = self.state()
        troubled = [state for state in states if state.error]
        parts = [f"{s.source}: {s.error} ({s.addresses} kept)" for s in troubled[:_SHOWN]]
        if len(troubled) > _SHOWN:
            parts.append(f"and {len(troubled) - _SHOWN} more")
        if self.left_out:
            parts.append(f"{self.left_out} targets above the limit of {self._limit_targets.limit}")
        return "; ".join(parts) or f"{len(states)} looked up"

    async def run(self) -> None:
        """Look up all sources repeatedly, until cancelled."""
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
        """Look a destination up again, and return it.

        Its addresses are in the order of the answer, which name servers rotate to spread load. It
        waits at most `REFRESH_TIMEOUT`, or `REFRESH_TIMEOUT_KNOWN`. Without an answer by then it
        returns the last good one; also if the last lookup ended less than a second ago, or a watch
        follows the source. `changed` may be called meanwhile. Raises `KeyError` for an unknown
        name.
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
        """The running lookup, or a new one."""
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
            # A bug in the parsing of an answer must not stop discovery.
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
            "no ready endpoint with this port"
            if what
            else "the service does not exist, or has no pods",
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
        """Rebuild the destinations, and call `changed` if they differ."""
        candidates = []
        owners: dict[str, _TrackedSource] = {}
        for known in self._known:
            for made in self._destinations_of(known, known.lookups.endpoints):
                owners.setdefault(made.name, known)
                candidates.append(made)
        chosen = {
            name: made
            for name, made in self._limit_targets.admit(candidates).items()
            # Names without a lookup reserve their place, so that the order of the setting decides
            # which ones are left out, not the order of answers.
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
            # The setting names it: if the lookup fails, it is a target that is down.
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
        succeeded_at = now  # the last report of a watch stays valid
    return SourceState(
        known.source.label,
        known.source.kind,
        lookups.result,
        lookups.error,
        None if succeeded_at is None else wall - (now - succeeded_at),
        _count_addresses(lookups.endpoints),
    )
