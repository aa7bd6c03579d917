"""The results of `connect`, `serve` and of each `close`: awaitables and context managers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")
Opened = TypeVar("Opened", bound=AbstractAsyncContextManager[Any])


class Opening(Coroutine[Any, Any, Opened], AbstractAsyncContextManager[Opened]):
    """Opens something: with `await`, or with `async with`, which closes it at the end.

    Nothing happens before that. It can be used once; a second time raises `RuntimeError`.
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
        """As of a coroutine: it can no longer be used."""
        self._opening.close()


class Closing(Awaitable[T]):
    """A close that has begun; awaiting it is optional."""

    def __init__(self, wait: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._wait = wait

    def __await__(self) -> Generator[Any, Any, T]:
        return self._wait().__await__()


async def finish(closing: asyncio.Task[None]) -> None:
    """Wait for a closing task; cancelling the wait also cancels the task, which closes at once."""
    try:
        await asyncio.wait([closing])
    except asyncio.CancelledError:
        closing.cancel()
        raise
    if not closing.cancelled():
        closing.result()


class Closable:
    """Base of objects that `async with` closes."""

    __slots__ = ()

    def close(self) -> Awaitable[Any]:
        """Begin to close; await the result to wait until it is closed."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            await self.close()
        else:
            await self._close_after_error()

    async def _close_after_error(self) -> None:
        await self.close()
