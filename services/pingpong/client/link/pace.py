"""When the next ping is due: on absolute deadlines, or as fast as answers come."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from ...settings import PingSettings
from .schedule import Schedule

FLOOD_WAIT = 0.01
"""Seconds after which a flood goes on without an answer, as ping(8) has it."""
FLOOD_RATE = 1000
"""Pings a second that a flood has at most: what a server takes unless told otherwise."""
_FLOOD_BURST = 0.02
"""Seconds that a flood may catch up on: the loop's timers are no finer than a millisecond."""


def follows_answers(settings: PingSettings) -> bool:
    """Whether these settings ask for a flood; as with ping(8), one with an interval keeps to it."""
    return settings.flood and "interval" not in settings.model_fields_set


class Pace(Protocol):
    """Says when to send."""

    @property
    def skipped(self) -> int:
        """Slots that passed without a ping."""

    async def wait(self) -> None:
        """Wait until a ping is to be sent. Others have had their turn in any case."""

    def answered(self) -> None:
        """An answer came."""


class Regular:
    """Slots at fixed times, whatever becomes of the answers; see `Schedule`.

    The first is `offset` seconds from now.
    """

    def __init__(self, interval: float, offset: float = 0.0) -> None:
        self._schedule = Schedule(time.monotonic() + offset, interval)

    @property
    def skipped(self) -> int:
        """Slots that passed without a ping."""
        return self._schedule.skipped

    async def wait(self) -> None:
        """Wait for the next slot."""
        await asyncio.sleep(max(self._schedule.next - time.monotonic(), 0))
        self._schedule.take(time.monotonic())

    def answered(self) -> None:
        """Nothing depends on it."""


class Flood:
    """A ping as soon as the one before is answered, or after 10 ms; a thousand a second at most."""

    skipped = 0
    """There are no slots to skip."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[None] | None = None
        """Waited for."""
        self._is_answered = True
        self._next = 0.0
        """Before which nothing is sent, or the rate would be too high."""

    async def wait(self) -> None:
        """Wait for an answer, but not long."""
        if not self._is_answered:
            loop = asyncio.get_running_loop()
            self._answer = loop.create_future()
            timer = loop.call_later(FLOOD_WAIT, self.answered)
            try:
                await self._answer
            finally:
                timer.cancel()
                self._answer = None
        await asyncio.sleep(max(self._next - time.monotonic(), 0))
        self._next = max(self._next, time.monotonic() - _FLOOD_BURST) + 1 / FLOOD_RATE
        self._is_answered = False

    def answered(self) -> None:
        """Go on."""
        self._is_answered = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)
