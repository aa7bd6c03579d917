from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from pingpong.link import LinkError
from pingpong.server.self_ping import TOO_OLD_AFTER, SelfPing
from pingpong.webtransport.asyncio.failures import Cause, ConnectError
from pingpong.webtransport.events import Request


class Scripted(SelfPing):
    """Its pings end as they are told to, one after the other; then it stays in the last."""

    def __init__(self, *ends: Exception | None) -> None:
        super().__init__([], lambda: b"", interval=0.001)
        self._ends: Iterator[Exception | None] = iter(ends)
        self.over = asyncio.Event()

    async def ping(self) -> None:
        end = next(self._ends, StopIteration())
        if isinstance(end, StopIteration):
            self.over.set()
            await asyncio.Event().wait()
        elif end is not None:
            raise end


async def after(*ends: Exception | None) -> SelfPing:
    one = Scripted(*ends)
    task = asyncio.create_task(one.run())
    await one.over.wait()
    task.cancel()
    return one


_REFUSED = "the server refuses connections: it is full or leaving"
FULL = LinkError("refused", _REFUSED, ConnectError(Cause.REFUSED, _REFUSED))


async def test_before_the_first_answer() -> None:
    assert (await after()).result(time.monotonic()) == (False, "not answered yet")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "no answer in time"),
        (OSError(1, "no way"), "[Errno 1] no way"),
        (LinkError("timeout", "no answer on UDP port 1"), "no answer on UDP port 1"),
        (ValueError("what nobody thought of"), "what nobody thought of"),
    ],
)
async def test_why_there_was_none(error: Exception, reason: str) -> None:
    assert (await after(error)).result(time.monotonic()) == (False, reason)


async def test_an_answer_holds_for_some_intervals() -> None:
    one = await after(None, TimeoutError())
    now = time.monotonic()
    assert one.result(now)[0]
    ok, reason = one.result(now + TOO_OLD_AFTER * 0.001 + 10)
    assert not ok
    assert reason.endswith("s ago: no answer in time")


async def test_a_server_that_is_full_answers_too() -> None:
    one = await after(None, FULL)
    assert one.result(time.monotonic())[0]


async def test_one_that_never_answered_is_not_full() -> None:
    assert not (await after(FULL)).result(time.monotonic())[0]


def test_knows_its_own_requests() -> None:
    one, other = (SelfPing([], lambda: b"", 1) for _ in range(2))
    mine = Request("localhost", "/ping", headers=((b"pingpong-self", one._secret),))
    assert one.recognizes(mine)
    assert not other.recognizes(mine)
    assert not one.recognizes(Request("localhost", "/ping"))
