"""Connecting to where a target is by now; what connects is stood for, so that moments are exact."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from pingpong.link import Resolved
from pingpong.link.dial import resolve_and_connect
from pingpong.webtransport.asyncio import ClientConnection, ConnectError, Target
from pingpong.webtransport.asyncio.failures import Cause
from pingpong.webtransport.quic.engine import Address

TARGET = Target("host.test", 4433, "/ping")
OLD, NEW = (2, ("10.0.0.1", 4433)), (2, ("10.0.0.2", 4433))


class Connection(ClientConnection):
    def __init__(self) -> None:
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


class Network:
    """Nobody is at `OLD`; at `NEW` somebody answers at once, unless it `refuses`."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.made: list[Connection] = []
        self.refuses = refuses
        self.found: Resolved | None = Resolved(TARGET, [OLD, NEW])

    async def find(self) -> Resolved:
        if self.found is None:
            raise ConnectError(Cause.NAME, "DNS is gone")
        return self.found

    async def connect(
        self, target: Target, addresses: Sequence[tuple[int, Address]]
    ) -> ClientConnection:
        if OLD in addresses:
            await asyncio.Event().wait()
        if self.refuses:
            raise ConnectError(Cause.REFUSED, "full")
        await asyncio.sleep(0)
        self.made.append(Connection())
        return self.made[-1]


def begin(network: Network) -> asyncio.Task[Any]:
    return asyncio.create_task(
        resolve_and_connect(
            network.find, network.connect, Resolved(TARGET, [OLD]), lookup_interval=0.0
        )
    )


async def test_what_the_name_leads_to_by_now_is_tried_beside() -> None:
    network = Network()
    assert await begin(network) is network.made[0]
    assert not network.made[0].is_aborted


async def test_while_dns_fails_what_was_known_is_tried_on() -> None:
    network = Network()
    network.found = None
    task = begin(network)
    await asyncio.sleep(0.01)
    assert not task.done()
    network.found = Resolved(TARGET, [NEW])
    assert await task is network.made[0]


async def test_a_new_address_that_refuses_ends_nothing_while_another_may_answer() -> None:
    network = Network(refuses=True)
    task = begin(network)
    await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("turns", range(6))
async def test_who_is_cancelled_in_the_moment_of_success_leaves_no_connection(turns: int) -> None:
    network = Network()
    task = begin(network)
    while not network.made:
        await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    await asyncio.sleep(0)
    [made] = network.made
    assert made.is_aborted is task.cancelled()
