"""What `connect`, `serve` and streams' `close` return: awaited, entered, or left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")
Opened = TypeVar("Opened", bound=AbstractAsyncContextManager[Any])


class Opening(Coroutine[Any, Any, Opened], AbstractAsyncContextManager[Opened]):
    """Await it for what it opens, or enter it with `async with`, which closes that at the end.

    It opens once: nothing happens until then, and a second time raises `RuntimeError`.
    """

    def __init__(self, opening: Coroutine[Any, Any, Opened]) -> None:
        self._opening = opening
        self._opened: Opened

    def __await__(self) -> Generator[Any, Any, Opened]:
        return self._opening.__await__()

    async def __aenter__(self) -> Opened:
        self._opened = await self._opening
        await self._opened.__aenter__()
        return self._opened

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._opened.__aexit__(kind, error, traceback)

    # `Coroutine`, so that `asyncio.create_task` takes it.

    def send(self, value: Any) -> Any:
        """As of a coroutine."""
        return self._opening.send(value)

    def throw(self, *error: Any) -> Any:
        """As of a coroutine."""
        return self._opening.throw(*error)

    def close(self) -> None:
        """As of a coroutine: it opens nothing any more."""
        self._opening.close()


class Closing(Awaitable[T]):
    """An end that is on its way; to be awaited by whom it concerns, or not at all."""

    def __init__(self, wait: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._wait = wait

    def __await__(self) -> Generator[Any, Any, T]:
        return self._wait().__await__()


async def finish(closing: asyncio.Task[None]) -> None:
    """Wait for what closes something; a wait that is cancelled makes it close at once."""
    try:
        await asyncio.wait([closing])
    except asyncio.CancelledError:
        closing.cancel()
        raise
    if not closing.cancelled():
        closing.result()


class Closable:
    """What is closed at the end of an `async with`."""

    __slots__ = ()

    def close(self) -> Awaitable[Any]:
        """Close it, from the call on; await what it returns to wait until that is done."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
