"""Scrapes of the metrics that cannot starve what is measured.

However many are asked for, one text is made at a time, in pieces between which the event loop goes
round, and the making of texts takes at most a quarter of the time. Scrapes that wait share the next
one, so that each sees values that are not older than itself.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable

from .exposition import Format, render
from .metrics import Family

Families = Callable[[], Awaitable[Iterable[Family]]]

_CHUNK = 65_536
"""Characters that leave together."""
_REST = 3.0
"""Time of rest after a text, as a multiple of the time that it took; at most `_MAX_REST` seconds."""
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
        """The metrics as of now, in chunks; with `compressed` as gzip.

        Raises:
            Exception: what asking for the families raised.
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
        """Stop; scrapes that wait get no answer."""
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
                families = await self._gathered()
                for (format, compressed), future in waiting.items():
                    future.set_result(await _text(families, format, compressed))
            except Exception as error:
                for future in waiting.values():
                    if not future.done():
                        future.set_result(error)
            finally:
                for future in waiting.values():
                    future.cancel()  # where it has no result yet: this task was cancelled
            now = self._clock()
            self._rest_until = now + min(_REST * (now - began), _MAX_REST)

    async def _gathered(self) -> list[Family]:
        families: dict[str, Family] = {}
        for family in await self._families():
            if families.setdefault(family.spec.name, family) is not family:
                raise ValueError(f"two sources gave a family {family.spec.name}")
            await asyncio.sleep(0)
        return list(families.values())


async def _text(families: Iterable[Family], format: Format, compressed: bool) -> list[bytes]:
    # Metrics repeat themselves so much that the lowest level makes a twentieth of them, and takes
    # less time than to send them as they are.
    compress = zlib.compressobj(level=1, wbits=31) if compressed else None
    chunks: list[bytes] = []
    pieces: list[bytes] = []
    size = 0
    for text in render(families, format):
        data = text.encode()
        pieces.append(compress.compress(data) if compress else data)
        size += len(pieces[-1])
        if size >= _CHUNK:
            chunks.append(b"".join(pieces))
            pieces.clear()
            size = 0
        await asyncio.sleep(0)
    if compress:
        pieces.append(compress.flush())
    chunks.append(b"".join(pieces))
    return chunks
