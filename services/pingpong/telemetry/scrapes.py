"""Bounds the time that scrapes of the metrics take from the event loop.

Only one text is made at a time, in pieces between which the event loop runs, and that takes at most
a quarter of the time. Scrapes that wait share the next text, so none gets values older than itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from prometheus_client import Metric

from .exposition import Format, Text

Families = Callable[[], Awaitable[Iterable[Metric]]]

_REST = 3.0
"""Pause after a text, as a multiple of the time that it took; at most `_MAX_REST` seconds."""
_MAX_REST = 1.0


class Scrapes:
    """Makes the text of `families` for each scrape."""

    def __init__(
        self,
        families: Families,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._families = families
        self._clock = clock
        self._sleep = sleep
        self._waiting: dict[tuple[Format, bool], asyncio.Future[list[bytes] | Exception]] = {}
        self._task: asyncio.Task[None] | None = None
        self._rest_until = 0.0

    async def text(self, format: Format, *, compressed: bool) -> list[bytes]:
        """The current metrics, in chunks; with `compressed` as gzip.

        Raises:
            Exception: what `families` raised.
        """
        loop = asyncio.get_running_loop()
        future = self._waiting.setdefault((format, compressed), loop.create_future())
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        result = await asyncio.shield(future)
        if isinstance(result, Exception):
            raise result
        return result

    async def close(self) -> None:
        """Stop. Scrapes that wait are cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for future in self._waiting.values():
            future.cancel()

    async def _run(self) -> None:
        while self._waiting:
            await self._sleep(self._rest_until - self._clock())
            waiting, self._waiting = self._waiting, {}
            began = self._clock()
            try:
                texts = {key: Text(key[0], compressed=key[1]) for key in waiting}
                for metric in await self._families():
                    for text in texts.values():
                        text.add(metric)
                        await asyncio.sleep(0)
                for key, future in waiting.items():
                    future.set_result(texts[key].finish())
            except Exception as error:
                for future in waiting.values():
                    if not future.done():
                        future.set_result(error)
            finally:
                for future in waiting.values():
                    future.cancel()  # if it has no result: this task was cancelled
            now = self._clock()
            self._rest_until = now + min(_REST * (now - began), _MAX_REST)
