"""Makes sessions with targets: a fresh lookup, a fresh socket, and today's authorities and headers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from ..webtransport import Address, Headers, Windows
from ..webtransport.asyncio import (
    CatchUp,
    Cause,
    ClientConnection,
    ConnectError,
    EndpointConfig,
    Target,
    more_telling,
    open_connection,
    resolve,
)
from .failures import FAILURES, LinkError
from .session import IDLE_TIMEOUT, PingSession

LOOKUP_INTERVAL = 0.5
"""Seconds without an answer before it is asked again where the target is.

A lookup may ask less often; `Discovery.fresh` does so once a second at most.
"""

_ANSWER_STREAMS = 1024
"""Streams that a server may have open for its answers (mode uni)."""
_SHORTEST_TIMEOUT = 0.001
_ROUNDING = 0.01
"""Seconds by which a timeout may come before its deadline."""
_GAP = 0.003
"""Seconds that the event loop has for everything else before another attempt begins."""
_MAX_GAPS = 5
_AT_ONCE = 8
"""Attempts under way that the next one does not wait for."""
_LONGEST_TURN = 0.2
"""Seconds after which an attempt is not waited for either."""
_UNAUTHORIZED = (401, 403)


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a target is now, and what to insist on there.

    `addresses` are socket families and addresses, in the order in which to try them. They are all
    that the name leads to: a session with another one is to be left.
    """

    target: Target
    addresses: Sequence[tuple[int, Address]]


Lookup: TypeAlias = Callable[[], Awaitable[Resolved]]
"""Looks a target up. Raises `ConnectError` where it can't be found."""


def system_lookup(target: Target) -> Lookup:
    """Look a target up as the system does, each time anew."""

    async def look_up() -> Resolved:
        return Resolved(target, await resolve(target))

    return look_up


class _Throttle:
    """Lets attempts begin one after the other: a hundred at one moment would all time out.

    The next one waits until the event loop keeps up, so that probes go out in time, and until few
    others are under way, so that a server gets done with them. Those that take long, as at a server
    that is not there, hold up nothing else.
    """

    def __init__(self) -> None:
        self._next = asyncio.Lock()
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._under_way = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it."""
        self._under_way += 1
        try:
            async with self._next:
                await self._room.acquire()
                room = ExitStack()
                room.callback(self._room.release)
                timer = asyncio.get_running_loop().call_later(_LONGEST_TURN, room.close)
                try:
                    if self._under_way > 1:
                        await self._leave_a_gap()
                except BaseException:
                    room.close()
                    raise
            try:
                yield
            finally:
                timer.cancel()
                room.close()
        finally:
            self._under_way -= 1

    async def _leave_a_gap(self) -> None:
        for _ in range(_MAX_GAPS):
            began = time.monotonic()
            await asyncio.sleep(_GAP)
            if time.monotonic() - began < 2 * _GAP:
                break


class Dialer:
    """Makes sessions, of any number of targets.

    `timeout` is how many seconds an attempt has, from the lookup on; `headers` is called in each
    attempt for what goes into its request, and may raise `LinkError`; `idle_timeout` is this
    side's, and `config` the rest of what its endpoints are like.
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
        self._catch_up = CatchUp()
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
        """Make a session with what is called `name`; the address `avoid` is tried last.

        For `retry_delay` see `open_connection`. Raises `LinkError`.
        """
        resolve_ns = None
        tried: set[Address] = set()
        async with self._throttle.turn():
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
                    catch_up=self._catch_up,
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
            # Also of a server that then has no session for us.
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
    """Connect to one of the addresses that are `known`, or that `find` comes to know meanwhile.

    An address that is gone stays silent for ever, as that of a pod does; what has taken its place
    is elsewhere. It is tried beside the others, as soon as the name leads there, which is looked
    up again every `lookup_interval` seconds.

    Raises `ConnectError` when all attempts have failed.
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
        # Nothing is awaited here: a cancellation meanwhile would drop what is returned.
        for attempt in attempts:
            attempt.add_done_callback(_abort_result)
            attempt.cancel()
    assert failure is not None
    raise failure.again()


def _abort_result(attempt: asyncio.Future[ClientConnection]) -> None:
    """Close what an attempt made that is not pending any more."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abort()


async def _find_later(find: Lookup, seconds: float) -> Resolved | None:
    await asyncio.sleep(seconds)
    try:
        return await find()
    except ConnectError:
        return None  # What was known before still holds.


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), _SHORTEST_TIMEOUT)
