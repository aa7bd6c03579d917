from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pingpong.server.workers.control import Channel
from tests.webtransport.asyncio.peers import on_both_loops


@asynccontextmanager
async def channels() -> AsyncIterator[tuple[Channel, Channel]]:
    ours, its = socket.socketpair()
    one, other = await Channel.open(ours), await Channel.open(its)
    try:
        yield one, other
    finally:
        await one.close()
        await other.close()


@on_both_loops
async def test_messages_arrive_whole_and_in_their_order() -> None:
    async with channels() as (one, other):
        sent: list[dict[str, Any]] = [
            {"id": 1, "do": "drain"},
            {"text": "two\nlines, ü"},
            {"long": "x" * 3_000_000},
            {},
        ]
        for message in sent:
            one.send(message)
        assert [await other.receive() for _ in sent] == sent
        other.send({"id": 1, "value": None})
        assert await one.receive() == {"id": 1, "value": None}


@on_both_loops
async def test_end_of_the_other_side_is_the_end() -> None:
    async with channels() as (one, other):
        one.send({"last": True})
        await one.close()
        assert await other.receive() == {"last": True}
        assert await other.receive() is None
        # Nobody hears it, and nothing breaks.
        for _ in range(3):
            other.send({"anybody": "there"})
            await asyncio.sleep(0)
        one.send({"closed": "here"})


@on_both_loops
async def test_message_that_was_cut_off_is_none() -> None:
    ours, its = socket.socketpair()
    channel = await Channel.open(ours)
    its.sendall(b'{"whole": 1}\n{"half": ')
    its.close()
    assert await channel.receive() == {"whole": 1}
    assert await channel.receive() is None
    await channel.close()


@on_both_loops
async def test_side_that_does_not_read_is_known() -> None:
    ours, its = socket.socketpair()
    channel = await Channel.open(ours)
    channel.send({"little": 1})
    assert not channel.is_clogged
    async with asyncio.timeout(10):
        while not channel.is_clogged:
            channel.send({"much": "x" * 100_000})
    its.close()
    await channel.close()


@pytest.mark.parametrize("line", [b"\n", b"{\n", b"no json\n"])
async def test_an_invalid_message_raises(line: bytes) -> None:
    ours, its = socket.socketpair()
    channel = await Channel.open(ours)
    its.sendall(line)
    with pytest.raises(ValueError, match="Expecting"):
        await channel.receive()
    its.close()
    await channel.close()
