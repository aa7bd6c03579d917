"""Where a target is, as the system says, and as it said before."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from pingpong.client.ping import targets
from pingpong.client.ping.targets import SystemLookup
from pingpong.webtransport import Address
from pingpong.webtransport.asyncio import Cause, ConnectError, Target

V4: tuple[int, Address] = (socket.AF_INET, ("192.0.2.1", 443))
V6: tuple[int, Address] = (socket.AF_INET6, ("2001:db8::1", 443, 0, 0))

Found = list[tuple[int, Address]]


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Have the system say this from now on; None: nothing, for ever."""
    answer: list[object] = []

    async def resolve(target: Target, timeout: float | None) -> Found:
        if answer[0] is None:
            assert timeout is not None
            await asyncio.sleep(timeout)
            raise failure()
        if isinstance(answer[0], Exception):
            raise answer[0]
        assert isinstance(answer[0], list)
        return answer[0]

    def says(what: object) -> None:
        answer[:] = [what]

    monkeypatch.setattr(targets, "resolve", resolve)
    return says


def failure() -> ConnectError:
    return ConnectError(Cause.NAME, "no address for a.test: temporary failure")


@pytest.mark.parametrize("fault", [failure(), None], ids=["fails", "is silent"])
async def test_a_lookup_that_fails_changes_nothing(
    system: Callable[[object], None], fault: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "_LONGEST_LOOKUP", 0.01)
    lookup = SystemLookup(Target("a.test"))
    system([V4])
    assert (await lookup()).addresses == [V4]
    system(fault)
    assert (await lookup()).addresses == [V4]
    system([V6])
    assert (await lookup()).addresses == [V6, V4]


async def test_the_first_lookup_that_fails_is_an_error(system: Callable[[object], None]) -> None:
    system(failure())
    with pytest.raises(ConnectError, match="no address"):
        await SystemLookup(Target("a.test"))()
