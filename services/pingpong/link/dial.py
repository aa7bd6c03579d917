"""Opens sessions with targets. Each attempt has its own lookup and socket, and current headers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from ..webtransport import Address, Headers, Windows
from ..webtransport.asyncio import (
    Cause,
    ClientConnection,
    ConnectError,
    EndpointConfig,
    ReceiveBudget,
    Target,
    more_telling,
    open_connection,
    resolve,
)
from .failures import FAILURES, LinkError
from .session import IDLE_TIMEOUT, PingSession

LOOKUP_INTERVAL = 0.5
"""Seconds without an answer after which the name is looked up again.

A lookup may be cached: `Discovery.refresh` asks at most once a second.
"""

_ANSWER_STREAMS = 1024
"""Streams that a server may have open for its answers (mode uni)."""
_SHORTEST_TIMEOUT = 0.001
_ROUNDING = 0.01
"""Seconds by which a timeout may fire before its deadline."""
_GAP = 0.003
"""Seconds for other work of the event loop before another attempt begins."""
_MAX_GAPS = 5
_MAX_ATTEMPTS = 8
"""Attempts at the same time."""
_SLOT_TIMEOUT = 0.2
"""Seconds after which an attempt no longer counts."""
_UNAUTHORIZED = (401, 403)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A resolved target.

    `addresses` are socket families and addresses, in the order in which to try them. They are all
    addresses of the name: a session with any other address has to be replaced.
    """

    target: Target
    addresses: Sequence[tuple[int, Address]]


Lookup: TypeAlias = Callable[[], Awaitable[Resolved]]
"""Looks a target up. Raises `ConnectError` if that fails."""


def system_lookup(target: Target) -> Lookup:
    """A lookup with the system's resolver, without a cache."""

    async def look_up() -> Resolved:
        return Resolved(target, await resolve(target))

    return look_up


class _Throttle:
    """Limits concurrent attempts to connect: a hundred at the same time would all time out.

    An attempt waits until the event loop is not late, so that probes are sent on time, and until
    few other attempts run, so that a server can complete them. Slow attempts, as with a server
    that does not answer, do not block others.
    """

    def __init__(self) -> None:
        self._next = asyncio.Lock()
        self._slots = asyncio.Semaphore(_MAX_ATTEMPTS)
        self._attempts = 0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a free slot, and hold it."""
        self._attempts += 1
        try:
            async with self._next:
                await self._slots.acquire()
                slot = ExitStack()
                slot.callback(self._slots.release)
                timer = asyncio.get_running_loop().call_later(_SLOT_TIMEOUT, slot.close)
                try:
                    if self._attempts > 1:
                        await self._wait_for_loop()
                except BaseException:
                    slot.close()
                    raise
            try:
                yield
            finally:
                timer.cancel()
                slot.close()
        finally:
            self._attempts -= 1

    async def _wait_for_loop(self) -> None:
        for _ in range(_MAX_GAPS):
            began = time.monotonic()
            await asyncio.sleep(_GAP)
            if time.monotonic() - began < 2 * _GAP:
                break


class Dialer:
    """Opens sessions with any number of targets.

    `timeout` is the time limit of an attempt in seconds, including the lookup. `headers` is called
    in each attempt for the fields of the request, and may raise `LinkError`. `idle_timeout` is
    this side's, in seconds; `config` has the other options of its endpoints.
    """

    def __init__(
        self,
        *,
        timeout: float = 5.0,
        headers: Callable[[], Headers] = tuple,
        idle_timeout: float = IDLE_TIMEOUT,
        config: EndpointConfig | None = None,
    ) -> None:
        self.timeout = timeout
        self._headers = headers
        self._throttle = _Throttle()
        self._budget = ReceiveBudget()
        self._config = replace(
            config or EndpointConfig(),
            idle_timeout=idle_timeout,
            windows=Windows(streams_uni=_ANSWER_STREAMS),
        )

    async def dial(
        self,
        name: str,
        lookup: Lookup,
        make: Callable[[ClientConnection], PingSession],
        *,
        avoid: Address | None = None,
        retry_delay: float | None = None,
    ) -> PingSession:
        """Open a session with the target `name`; the address `avoid` is tried last.

        For `retry_delay` see `open_connection`. Raises `LinkError`.
        """
        resolve_ns = None
        tried: set[Address] = set()
        async with self._throttle.slot():
            began, deadline = time.monotonic_ns(), time.monotonic() + self.timeout

            async def find() -> Resolved:
                try:
                    async with asyncio.timeout(_left(deadline)):
                        return await lookup()
                except TimeoutError:
                    text = f"no address for {name} within {self.timeout:g} s"
                    raise ConnectError(Cause.NAME, text) from None

            async def connect(
                target: Target, addresses: Sequence[tuple[int, Address]]
            ) -> ClientConnection:
                tried.update(address for _, address in addresses)
                return await open_connection(
                    target,
                    config=self._config,
                    timeout=_left(deadline),
                    addresses=sorted(addresses, key=lambda entry: entry[1] == avoid),
                    retry_delay=retry_delay,
                    budget=self._budget,
                    named_timeout=self.timeout,
                )

            try:
                headers = self._headers()
                known = await find()
                resolve_ns = time.monotonic_ns() - began
                client = await resolve_and_connect(find, connect, known)
                client.timings.resolve = resolve_ns
                session = await self._establish(make(client), headers, deadline)
            except ConnectError as error:
                result = FAILURES[error.cause][0]
                if error.status in _UNAUTHORIZED:
                    result = "unauthorized"
                elif error.cause is Cause.SESSION and _left(deadline) <= _ROUNDING:
                    result = "timeout"
                raise LinkError(result, str(error), error, resolve_ns, tried) from None
            session.dialed_at = began * 1e-9
            return session

    async def _establish(
        self, session: PingSession, headers: Headers, deadline: float
    ) -> PingSession:
        client = session.client
        try:
            await session.establish(headers, _left(deadline))
        except ConnectError as error:
            # Also if the server only rejected the session.
            error.certificate = client.peer_certificate
            await client.close(0)
            raise
        except BaseException:
            client.abort()
            raise
        return session


Connect: TypeAlias = Callable[[Target, Sequence[tuple[int, Address]]], Awaitable[ClientConnection]]


async def resolve_and_connect(
    find: Lookup, connect: Connect, known: Resolved, *, lookup_interval: float = LOOKUP_INTERVAL
) -> ClientConnection:
    """Connect to one of the `known` addresses, or of those that `find` returns meanwhile.

    The address of a deleted pod never answers; its replacement has another one. So the name is
    looked up again every `lookup_interval` seconds, and new addresses are tried in parallel.

    Raises `ConnectError` if all attempts fail.
    """
    tried = set(known.addresses)
    attempts = {asyncio.ensure_future(connect(known.target, known.addresses))}
    looking = asyncio.create_task(_find_later(find, lookup_interval))
    failure: ConnectError | None = None
    try:
        while attempts:
            await asyncio.wait({*attempts, looking}, return_when=asyncio.FIRST_COMPLETED)
            for attempt in [each for each in attempts if each.done()]:
                attempts.discard(attempt)
                error = attempt.exception()
                if not isinstance(error, ConnectError):
                    return attempt.result()
                failure = more_telling(failure, error)
            if looking.done() and attempts:
                found = looking.result()
                if found is not None:
                    more = [each for each in found.addresses if each not in tried]
                    tried.update(more)
                    if more:
                        attempts.add(asyncio.ensure_future(connect(found.target, more)))
                looking = asyncio.create_task(_find_later(find, lookup_interval))
    finally:
        looking.cancel()
        # Nothing is awaited here: a cancellation would lose the connection that is returned.
        for attempt in attempts:
            attempt.add_done_callback(_abort_result)
            attempt.cancel()
    assert failure is not None
    raise failure.again()


def _abort_result(attempt: asyncio.Future[ClientConnection]) -> None:
    """Close the connection of an attempt that is no longer needed."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abort()


async def _find_later(find: Lookup, seconds: float) -> Resolved | None:
    await asyncio.sleep(seconds)
    try:
        return await find()
    except ConnectError:
        return None  # The addresses found before stay valid.


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), _SHORTEST_TIMEOUT)
