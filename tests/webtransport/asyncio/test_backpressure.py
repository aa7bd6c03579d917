"""The issue's number: 100 MB both ways past readers that pause, and memory stays where it was."""

from __future__ import annotations

import asyncio
import gc
import os
import sys

import pytest
import uvloop

from pingpong.webtransport.asyncio import ReceiveStream, SendStream, Session
from pingpong.webtransport.asyncio.streams import WRITE_HIGH_WATER
from tests.webtransport.asyncio.peers import session_pair, task, until_still

CHUNK = 64 << 10
MB = 1_000_000
STREAM_WINDOW = 1 << 20
PAUSES = 5

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")


def resident() -> int:
    """Bytes of this process that are in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Flow:
    """One direction of a stream: who writes it, and who reads it with pauses."""

    def __init__(self, sending: SendStream, receiving: ReceiveStream, size: int) -> None:
        self.sending = sending
        self.receiving = receiving
        self.size = size
        self.written = self.read = 0
        self.most_under_way = 0
        self.largest = 0

    async def write(self) -> None:
        block = bytes(range(256)) * (CHUNK // 256)
        while self.written < self.size:
            await self.sending.write(block)
            self.written += CHUNK
        await self.sending.close()

    async def pause_and_read(self) -> None:
        pauses_at = [self.size * pause // PAUSES for pause in range(PAUSES)]
        checked = 0
        while True:
            if pauses_at and self.read >= pauses_at[0]:
                pauses_at.pop(0)
                # Until the writer has come to a stand: it is the reader that it waits for.
                await until_still(lambda: self.written)
                assert self.written < self.size
                self._measure()
            data = await self.receiving.read()
            if not data:
                break
            # The bytes are those that were sent, at their places.
            assert data[0] == self.read % 256
            self.read += len(data)
            assert data[-1] == (self.read - 1) % 256
            if self.read - checked > MB:
                checked = self.read
                self._measure()
        assert self.read == self.written >= self.size

    def _measure(self) -> None:
        self.most_under_way = max(self.most_under_way, self.written - self.read)
        self.largest = max(self.largest, resident())


async def flow(client: Session, server: Session, size: int) -> list[Flow]:
    """`size` bytes each way through one bidirectional stream."""
    near = await client.create_bidirectional_stream()
    await near.writable.write(bytes(range(256)))
    far = await server.incoming_bidirectional_streams.get()
    assert await far.readable.read_exactly(256) == bytes(range(256))
    flows = [
        Flow(near.writable, far.readable, size),
        Flow(far.writable, near.readable, size),
    ]
    await asyncio.gather(
        *(task(work()) for each in flows for work in (each.write, each.pause_and_read))
    )
    return flows


@linux
@pytest.mark.slow
def test_100_mb_both_ways_past_readers_that_pause() -> None:
    async def main() -> None:
        # Both ends are in this process: what it holds is an upper bound of what either does.
        async with session_pair() as pair:
            await flow(pair.client, pair.server, 10 * MB)
            gc.collect()
            before = resident()
            flows = await flow(pair.client, pair.server, 100 * MB)
            for each in flows:
                assert each.largest - before < 10 * MB
                # What is not read is with the reader, within its window, or with the writer.
                assert each.most_under_way <= STREAM_WINDOW + WRITE_HIGH_WATER + 2 * CHUNK
                assert not each.receiving._buffer
            gc.collect()
            assert resident() - before < 10 * MB

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
