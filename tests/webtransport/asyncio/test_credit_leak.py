from __future__ import annotations

import asyncio

import pytest

from pingpong.webtransport.asyncio import StreamResetError
from pingpong.webtransport.asyncio.session import Session
from tests.webtransport.asyncio.peers import on_a_loop, session_pair, task, until_still


def received(session: Session) -> int:
    """Stream bytes that have been counted against what the session's peer was granted."""
    flow = session._get_core().flow
    assert flow is not None
    return flow.data_in.received


@on_a_loop
async def test_a_reset_gives_back_the_credit_of_what_was_never_sent() -> None:
    async with session_pair() as pair:
        for _ in range(3):
            sending = await pair.client.create_unidirectional_stream()
            writing = task(sending.write(bytes(4 << 20)))
            receiving = await pair.server.incoming_unidirectional_streams.get()
            receiving.cancel(1)
            with pytest.raises(StreamResetError):
                await writing
            await until_still(lambda: received(pair.server))
        sending = await pair.client.create_unidirectional_stream()
        await sending.close(b"still there")
        receiving = await pair.server.incoming_unidirectional_streams.get()
        async with asyncio.timeout(10):
            assert await receiving.read_all() == b"still there"
