from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable, Iterable

import pytest

from pingpong.telemetry.exposition import Format, render
from pingpong.telemetry.metrics import BucketCounts, Family, Spec
from pingpong.telemetry.scrapes import Scrapes

PINGS = Spec("x_pings_total", "counter", "Pings.", {"target": None})
LEVEL = Spec("x_level", "gauge", "A level.")
RTT = Spec("x_rtt_seconds", "histogram", "Round trips.", {"target": None}, (0.001, 0.01, 0.1, 1.0))


class Source:
    """Families whose making a test may hold up."""

    def __init__(self) -> None:
        self.times = 0
        self.held = asyncio.Event()
        self.held.set()

    async def families(self) -> Iterable[Family]:
        self.times += 1
        times = self.times
        await self.held.wait()
        return [LEVEL.family([((), times)])]


def level(text: list[bytes]) -> int:
    return int(b"".join(text).split()[-1])


async def given(families: Iterable[Family]) -> Iterable[Family]:
    return families


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_text_is_what_is_rendered() -> None:
    rows = [((f"target {n}",), n) for n in range(5000)]
    families = [PINGS.family(rows), LEVEL.family([((), 1)])]
    scrapes = Scrapes(lambda: given(families))
    text = await scrapes.text(Format.TEXT, compressed=False)
    assert len(text) > 1, "it comes in chunks"
    assert b"".join(text).decode() == "".join(render(families, Format.TEXT))
    openmetrics = await scrapes.text(Format.OPENMETRICS, compressed=False)
    assert b"".join(openmetrics).endswith(b"# EOF\n")


async def test_compressed_it_is_gzip() -> None:
    families = [PINGS.family(((f"target {n}",), n) for n in range(5000))]
    scrapes = Scrapes(lambda: given(families))
    text = b"".join(await scrapes.text(Format.TEXT, compressed=True))
    assert gzip.decompress(text).decode() == "".join(render(families, Format.TEXT))
    assert len(text) < 60_000


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
    answers: list[Callable[[], Awaitable[Iterable[Family]]]] = []
    scrapes = Scrapes(lambda: answers.pop(0)())

    async def fail() -> Iterable[Family]:
        raise LookupError("no workers")

    answers += [fail, Source().families]
    failed = await asyncio.gather(
        scrapes.text(Format.TEXT, compressed=False),
        scrapes.text(Format.OPENMETRICS, compressed=False),
        return_exceptions=True,
    )
    assert [type(error) for error in failed] == [LookupError, LookupError]
    assert level(await scrapes.text(Format.TEXT, compressed=False)) == 1


async def test_two_families_of_one_name_are_a_mistake() -> None:
    scrapes = Scrapes(lambda: given([LEVEL.family(), LEVEL.family()]))
    with pytest.raises(ValueError, match="two sources gave a family x_level"):
        await scrapes.text(Format.TEXT, compressed=False)


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

    async def slow() -> Iterable[Family]:
        nonlocal now
        now += 0.1
        return [LEVEL.family([((), 1)])]

    scrapes = Scrapes(slow, lambda: now, sleep)
    for _ in range(3):
        await scrapes.text(Format.TEXT, compressed=False)
    assert slept == pytest.approx([0.3, 0.3])


async def test_a_hundred_targets_take_less_than_thirty_milliseconds() -> None:
    """As `pingpong probe` has them: twenty counters and five histograms a target."""
    bounds = tuple(0.00025 * 2**n for n in range(14))
    counts = BucketCounts(bounds)
    for n in range(1000):
        counts.observe(n / 177)
    counters = [
        Spec(f"x{n}_total", "counter", "Pings.", {"target": None}).family(
            ((f"https://ping-{target}.example.svc:4433/ping",), target) for target in range(100)
        )
        for n in range(20)
    ]
    histograms = [
        Spec(f"x{n}_seconds", "histogram", "Times.", {"target": None}, bounds).family(
            ((f"https://ping-{target}.example.svc:4433/ping",), counts) for target in range(100)
        )
        for n in range(5)
    ]
    times = []
    for _ in range(5):
        scrapes = Scrapes(lambda: given([*counters, *histograms]))
        began = time.thread_time()
        await scrapes.text(Format.TEXT, compressed=True)
        times.append(time.thread_time() - began)
    assert min(times) < 0.030


async def test_the_event_loop_goes_round_while_a_text_is_made() -> None:
    """A hundred targets: what waits for its turn gets one after a few rows."""
    counts = BucketCounts(RTT.buckets)
    families = [
        RTT.family(((str(target),), counts) for target in range(100)),
        *(
            Spec(f"x{n}_total", "counter", "Pings.", {"target": None}).family(
                ((str(target),), target) for target in range(1000)
            )
            for n in range(20)
        ),
    ]
    scrapes = Scrapes(lambda: given(families))
    text = asyncio.ensure_future(scrapes.text(Format.TEXT, compressed=True))
    turns = 0
    while not text.done():
        await asyncio.sleep(0)
        turns += 1
    # So many pieces of two hundred rows, and twenty histograms; and each family's gathering.
    assert turns > 20 * 5 + 5 + 21
