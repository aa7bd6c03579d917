"""Measures round trips to an echo server by datagrams: how many come back, and how soon.

python examples/measure.py https://localhost:4433/ HASH [COUNT]
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time

from pingpong.webtransport.asyncio import Session, SessionClosedError, connect

INTERVAL = 0.02
"""Seconds between two datagrams."""
TIMEOUT = 1.0
"""Seconds that the last answers may take."""


async def receive(session: Session, sent: dict[int, int], trips: list[float], count: int) -> None:
    """Match answers with what was sent; a second copy of one counts for nothing."""
    async for data in session.datagrams:
        now = time.monotonic_ns()
        if (sent_at := sent.pop(int.from_bytes(data), None)) is not None:
            trips.append((now - sent_at) / 1e6)
        if len(trips) == count:
            break


async def measure(session: Session, count: int) -> list[float]:
    """The round trips in milliseconds of those that came back."""
    sent: dict[int, int] = {}
    trips: list[float] = []
    receiving = asyncio.create_task(receive(session, sent, trips, count))
    for number in range(count):
        sent[number] = time.monotonic_ns()
        session.datagrams.send(number.to_bytes(8))
        await asyncio.sleep(INTERVAL)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(receiving, TIMEOUT)
    return trips


async def main(url: str, certificate_hash: str | None = None, count: str = "50") -> int:
    try:
        async with connect(url, certificate_hash=certificate_hash) as session:
            trips = await measure(session, int(count))
    except SessionClosedError as error:  # ConnectError is one too
        print(error, file=sys.stderr)
        return 1
    print(f"{count} sent, {len(trips)} received")
    if trips:
        print(f"min {min(trips):.2f} ms, median {statistics.median(trips):.2f} ms")
    return 0 if trips else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
