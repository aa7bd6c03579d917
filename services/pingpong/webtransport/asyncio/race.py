"""Races connection attempts to the addresses of a server (RFC 8305)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ..quic.engine import Address
from .connection import REFUSED_HERE, ClientConnection
from .failures import Cause, ConnectError

CONNECTION_ATTEMPT_DELAY = 0.25
"""Seconds before the next address is tried beside the one before (RFC 8305, section 5)."""

RETRY_ATTEMPT_DELAY = 1.0
"""Seconds before another attempt to an address that has not answered, beside those before.

QUIC repeats its first packet at growing intervals, so one attempt notices late that a path works
again.
"""

MAX_ATTEMPTS_AT_ONE = 5
"""Parallel attempts to one address; another one replaces the oldest."""

MAX_ATTEMPTS = 20
"""Parallel attempts, unless there are more addresses."""

Begin: TypeAlias = Callable[[int, Address], ClientConnection]


@dataclass(eq=False)
class _Destination:
    """An address, and the attempts to connect to it."""

    family: int
    address: Address
    attempts: list[ClientConnection] = field(default_factory=list)
    begun_at: float = 0.0
    """When the last one began, on the loop's clock."""

    @property
    def is_silent(self) -> bool:
        """Whether no packet arrived from this address."""
        return not any(attempt.received_packets for attempt in self.attempts)


class Race:
    """Parallel connection attempts, until one succeeds.

    `begin` starts an attempt to an address of `host`; it raises `OSError` if there is no route.
    An address that does not answer gets another attempt every `retry_delay` seconds.
    """

    def __init__(self, begin: Begin, host: str, retry_delay: float | None = None) -> None:
        self.failure: ConnectError | None = None
        """The most informative failure so far."""
        self._begin_attempt = begin
        self._host = host
        self._retry_delay = RETRY_ATTEMPT_DELAY if retry_delay is None else retry_delay
        self._loop = asyncio.get_running_loop()
        self._refusal: OSError | None = None
        """The error with which this machine blocked a packet."""
        self._tried: list[_Destination] = []
        """The addresses that have not failed."""

    async def run(self, addresses: Sequence[tuple[int, Address]]) -> ClientConnection:
        """Return the first connection that is ready. Raises `ConnectError` if all attempts fail."""
        waiting = [_Destination(family, address) for family, address in addresses]
        while waiting or self._tried:
            if waiting:
                destination = waiting.pop(0)
                try:
                    self._begin(destination)
                except OSError as error:
                    if error.errno not in REFUSED_HERE:
                        self._failed(self._no_route(error))
                        continue
                    self._refusal = error
                self._tried.append(destination)
            attempts = {one.ready: one for each in self._tried for one in each.attempts}
            done = await self._wait(attempts, self._until_next(waiting=bool(waiting)))
            for ready in done:
                if ready.exception() is None:
                    return self._won(attempts[ready])
            for ready in done:
                failure = ready.exception()
                assert isinstance(failure, ConnectError)
                self._failed(failure)
                self._give_up(attempts[ready])
            self._try_again()
        failure = self.failure or ConnectError(Cause.NAME, f"no address for {self._host}")
        raise failure.again()

    @property
    def refused_here(self) -> ConnectError | None:
        """The failure if this machine blocked all packets; otherwise None."""
        attempts = [one for each in self._tried for one in each.attempts]
        for attempt in attempts:
            self._refusal = attempt.refused_here or self._refusal
        if self._refusal is None or any(one.sent_packets for one in attempts):
            return None
        text = f"this machine blocks packets to {self._host}: {self._refusal.strerror}"
        return ConnectError(Cause.REFUSED_HERE, text)

    def abandon_losers(self) -> None:
        """Close all attempts that did not win."""
        for destination in self._tried:
            for attempt in destination.attempts:
                attempt.abort()
        self._tried.clear()

    @staticmethod
    async def _wait(
        attempts: Iterable[asyncio.Future[None]], seconds: float | None
    ) -> set[asyncio.Future[None]]:
        """Wait until one is done, at most `seconds`. Returns those that are done."""
        if not attempts:
            await asyncio.sleep(seconds or 0)
            return set()
        first = asyncio.FIRST_COMPLETED
        return (await asyncio.wait(attempts, timeout=seconds, return_when=first))[0]

    def _begin(self, destination: _Destination) -> None:
        destination.begun_at = self._loop.time()
        attempt = self._begin_attempt(destination.family, destination.address)
        destination.attempts.append(attempt)

    def _until_next(self, *, waiting: bool) -> float | None:
        """Seconds until the next attempt is due; None: no further one."""
        next_one = [CONNECTION_ATTEMPT_DELAY] if waiting else []
        now = self._loop.time()
        next_one += [
            max(0.0, each.begun_at + self._retry_delay - now)
            for each in self._tried
            if each.is_silent
        ]
        return min(next_one, default=None)

    def _try_again(self) -> None:
        now = self._loop.time()
        for destination in self._tried:
            if now - destination.begun_at < self._retry_delay or not destination.is_silent:
                continue
            under_way = sum(len(each.attempts) for each in self._tried)
            is_full = under_way >= MAX_ATTEMPTS
            if is_full and len(destination.attempts) == 1:
                destination.begun_at = now
                continue
            try:
                self._begin(destination)
            except OSError:
                continue  # Earlier attempts may still be answered.
            if is_full or len(destination.attempts) > MAX_ATTEMPTS_AT_ONE:
                destination.attempts.pop(0).abort()

    def _won(self, winner: ClientConnection) -> ClientConnection:
        for destination in self._tried:
            if winner in destination.attempts:
                destination.attempts.remove(winner)
        return winner

    def _give_up(self, failed: ClientConnection) -> None:
        """Give up the address of an attempt that failed, with all its attempts."""
        for destination in self._tried:
            if failed in destination.attempts:
                for attempt in destination.attempts:
                    attempt.abort()
                self._tried.remove(destination)
                break

    def _failed(self, error: ConnectError) -> None:
        self.failure = error if self.failure is None else more_telling(self.failure, error)

    def _no_route(self, error: OSError) -> ConnectError:
        return ConnectError(Cause.UNREACHABLE, f"no route to {self._host}: {error.strerror}")


def more_telling(first: ConnectError | None, second: ConnectError) -> ConnectError:
    """The more informative of two failures: that of a server's answer rather than of none."""
    silent = (Cause.NO_ANSWER, Cause.UNREACHABLE, Cause.REFUSED_HERE)
    if first is None or (first.cause in silent and second.cause not in silent):
        return second
    # An address that has not answered may still do so, unlike one that refused.
    is_waiting = second.cause in (Cause.NO_ANSWER, Cause.REFUSED_HERE)
    return second if is_waiting and first.cause in silent else first
