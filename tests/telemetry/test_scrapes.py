from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable, Iterable

import pytest
from prometheus_client import Metric

from pingpong.telemetry.exposition import Format
from pingpong.telemetry.metrics import BucketCounts, Spec
from pingpong.telemetry.scrapes import Scrapes

PINGS = Spec("x_pings_total", "counter", "Pings.", {"target": None})
LEVEL = Spec("x_level", "gauge", "A level.")
RTT = Spec("x_rtt_seconds", "histogram", "Round trips.", {"target": None})


class Source:
    """Families whose making a test may hold up."""

    def __init__(self) -> None:
        self.times = 0
        self.held = asyncio.Event()
        self.held.set()

    async def families(self) -> Iterable[Metric]:
        self.times += 1
        times = self.times
        await self.held.wait()
        return [LEVEL.metric([((), times)])]


def level(text: list[bytes]) -> int:
    return round(float(b"".join(text).split()[-1]))


async def given(families: Iterable[Metric]) -> Iterable[Metric]:
    return families


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_each_scrape_sees_values_that_are_not_older_than_itself() -> None:
    source = Source()
    scrapes = Scrapes(source.families)
    assert level(await scrapes.text(Format.TEXT, compressed=False)) == 1
    assert level(await scrapes.text(Format.TEXT, compressed=False)) == 2


async def test_scrapes_that_wait_share_one_text() -> None:
    source = Source()
    source.held.clear()
    scrapes = Scrapes(source.families)
    first = asyncio.ensure_future(scrapes.text(Format.TEXT, compressed=False))
    await settle()
    later = [asyncio.ensure_future(scrapes.text(Format.TEXT, compressed=False)) for _ in range(100)]
    await settle()
    assert source.times == 1
    source.held.set()
    assert level(await first) == 1
    assert {level(await one) for one in later} == {2}
    assert source.times == 2


async def test_each_gets_the_format_that_it_asked_for() -> None:
    scrapes = Scrapes(Source().families)
    text, openmetrics, compressed = await asyncio.gather(
        scrapes.text(Format.TEXT, compressed=False),
        scrapes.text(Format.OPENMETRICS, compressed=False),
        scrapes.text(Format.TEXT, compressed=True),
    )
    assert b"# EOF" not in b"".join(text)
    assert b"# EOF" in b"".join(openmetrics)
    assert gzip.decompress(b"".join(compressed)) == b"".join(text)


async def test_what_raises_reaches_all_who_wait_and_the_next_one_is_well() -> None:
    answers: list[Callable[[], Awaitable[Iterable[Metric]]]] = []
    scrapes = Scrapes(lambda: answers.pop(0)())

    async def fail() -> Iterable[Metric]:
        raise LookupError("no workers")

    answers += [fail, Source().families]
    failed = await asyncio.gather(
        scrapes.text(Format.TEXT, compressed=False),
        scrapes.text(Format.OPENMETRICS, compressed=False),
        return_exceptions=True,
    )
    assert [type(error) for error in failed] == [LookupError, LookupError]
    assert level(await scrapes.text(Format.TEXT, compressed=False)) == 1


async def test_who_gives_up_takes_nothing_from_the_others() -> None:
    source = Source()
    source.held.clear()
    scrapes = Scrapes(source.families)
    one = asyncio.ensure_future(scrapes.text(Format.TEXT, compressed=False))
    other = asyncio.ensure_future(scrapes.text(Format.TEXT, compressed=False))
    await settle()
    one.cancel()
    await settle()
    source.held.set()
    assert level(await other) == 1


@pytest.mark.parametrize("turns", [0, 1, 20])
async def test_closed_nobody_is_left_waiting(turns: int) -> None:
    source = Source()
    source.held.clear()
    scrapes = Scrapes(source.families)
    waiting = [asyncio.ensure_future(scrapes.text(Format.TEXT, compressed=False)) for _ in range(2)]
    for _ in range(turns):
        await asyncio.sleep(0)
    waiting.append(asyncio.ensure_future(scrapes.text(Format.OPENMETRICS, compressed=False)))
    await asyncio.sleep(0)
    await scrapes.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 3


async def test_the_making_of_texts_takes_a_quarter_of_the_time_at_most() -> None:
    now = 100.0
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        nonlocal now
        if seconds > 0:
            slept.append(seconds)
            now += seconds
        await asyncio.sleep(0)

    async def slow() -> Iterable[Metric]:
        nonlocal now
        now += 0.1
        return [LEVEL.metric([((), 1)])]

    scrapes = Scrapes(slow, lambda: now, sleep)
    for _ in range(3):
        await scrapes.text(Format.TEXT, compressed=False)
    assert slept == pytest.approx([0.3, 0.3])


async def test_the_event_loop_goes_round_while_a_text_is_made() -> None:
    """A hundred targets: what waits for its turn gets one after a few rows."""
    counts = BucketCounts((0.001, 0.01, 0.1, 1.0))
    metrics = RTT.slices(((str(target),), counts) for target in range(100))
    scrapes = Scrapes(lambda: given(metrics))
    text = asyncio.ensure_future(scrapes.text(Format.TEXT, compressed=True))
    turns = 0
    while not text.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100 * 7 / 200
