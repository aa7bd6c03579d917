"""Runs a `Discovery` against real servers of the tests, and notes what it tells."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pingpong.client.discovery import Destination, Discovery, Result
from pingpong.client.discovery import lookups as timing
from pingpong.client.discovery.addresses import Families
from pingpong.client.discovery.hosts import HostsFile, SystemLookups
from pingpong.client.discovery.resolver import Resolver
from tests.support.nameserver import NameServer

PATIENCE = 30


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


class Found:
    """A discovery that runs, and what it told."""

    def __init__(self, *servers: str, **options: Any) -> None:
        self.told: list[dict[str, Destination]] = []
        self.results: list[Result] = []
        defaults: dict[str, Any] = {"per_address": False, "max_targets": 100, "interval": 30.0}
        defaults["families"] = Families(lambda address: True)
        defaults["counted"] = self.results.append
        self.discovery = Discovery(
            servers,
            changed=self._changed,
            **{**defaults, **options},
        )

    def _changed(self, destinations: Mapping[str, Destination]) -> None:
        self.told.append(dict(destinations))

    @property
    def names(self) -> list[str]:
        return list(self.discovery.destinations)

    def addresses(self, name: str) -> tuple[str, ...] | None:
        made = self.discovery.destinations.get(name)
        return None if made is None else made.addresses

    async def until(self, *names: str) -> None:
        """Wait for destinations with exactly these names, in this order."""
        await eventually(lambda: self.names == list(names))

    async def until_at(self, name: str, *addresses: str) -> None:
        """Wait until a destination has these addresses, in this order."""
        await eventually(lambda: self.addresses(name) == addresses)

    async def lookups(self, count: int) -> None:
        """Wait until so many further lookups have ended."""
        wanted = len(self.results) + count
        await eventually(lambda: len(self.results) >= wanted)


@contextlib.asynccontextmanager
async def running(found: Found) -> AsyncIterator[Found]:
    task = asyncio.create_task(found.discovery.run())
    try:
        await asyncio.sleep(0)
        yield found
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])


class Surroundings:
    """What discoveries of a test ask: a name server, and perhaps an API server."""

    def __init__(self, names: NameServer, folder: Path) -> None:
        self.names = names
        self._folder = folder

    def resolver(self, *lines: str) -> Resolver:
        return Resolver(
            resolv_conf=self.names.resolv_conf(self._folder, *lines),
            port=self.names.port,
            hosts=HostsFile(self._folder / "hosts"),
            system=SystemLookups(self._folder / "nsswitch.conf"),
        )

    def find(self, *servers: str, **options: Any) -> contextlib.AbstractAsyncContextManager[Found]:
        return running(Found(*servers, **{"resolver": self.resolver(), **options}))


def hurry(monkeypatch: pytest.MonkeyPatch, shortest: float = 0.02) -> None:
    """Let lookups follow each other without a second between them."""
    monkeypatch.setattr(timing, "MIN_INTERVAL", shortest)
