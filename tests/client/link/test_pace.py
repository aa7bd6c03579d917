from __future__ import annotations

import asyncio
import time

from pingpong.client.link.pace import FLOOD_RATE, FLOOD_WAIT, Flood, Regular


async def test_the_first_slot_is_at_the_offset() -> None:
    began = time.monotonic()
    pace = Regular(10.0, 0.02)
    await pace.wait()
    assert 0.019 < time.monotonic() - began < 5


async def test_regular_slots_don_t_wait_for_answers_and_skip_what_was_missed() -> None:
    pace = Regular(0.02)
    began = time.monotonic()
    for _ in range(4):
        await pace.wait()
    assert time.monotonic() - began >= 0.058
    time.sleep(0.1)  # the loop is blocked
    await pace.wait()
    assert pace.skipped >= 3


async def test_a_flood_goes_on_with_the_answer() -> None:
    pace = Flood()
    await pace.wait()
    waiting = asyncio.create_task(pace.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    began = time.monotonic()
    pace.answered()
    await waiting
    assert time.monotonic() - began < FLOOD_WAIT
    # Also where the answer was there before anybody waited for it.
    pace.answered()
    await pace.wait()


async def test_a_flood_goes_on_without_an_answer() -> None:
    pace = Flood()
    began = time.monotonic()
    for _ in range(4):
        await pace.wait()
    assert time.monotonic() - began >= 3 * FLOOD_WAIT * 0.9
    assert pace.skipped == 0


async def test_a_flood_has_a_bound() -> None:
    """Where answers come at once."""
    pace = Flood()
    began = time.monotonic()
    for _ in range(200):
        await pace.wait()
        pace.answered()
    assert time.monotonic() - began >= (200 - 30) / FLOOD_RATE
