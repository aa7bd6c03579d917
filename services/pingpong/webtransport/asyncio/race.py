"""Which address of a server, and which attempt, answers first (RFC 8305)."""

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
"""Seconds before an address that has not answered is tried anew, beside the attempts before.

QUIC by itself repeats its first packet after ever longer pauses: who waits for one of them
learns late that a path has healed.
"""

MAX_ATTEMPTS_AT_ONE = 5
"""At one address at one time; the oldest gives way to another."""

MAX_ATTEMPTS = 20
"""At one time, unless there are more addresses."""

Begin: TypeAlias = Callable[[int, Address], ClientConnection]


@dataclass(eq=False)
class _Destination:
    """One address, and the attempts at it."""

    family: int
    address: Address
    attempts: list[ClientConnection] = field(default_factory=list)
    begun_at: float = 0.0
    """When the last one was begun, on the loop's clock."""

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come back from there."""
        return not any(attempt.received_packets for attempt in self.attempts)


class Race:
    """Connection attempts side by side, until one gets ready.

    `begin` starts one at an address of `host`; it raises `OSError` where there is no way to it.
    An address that stays silent is tried anew each `retry_delay` seconds.
    """

    def __init__(self, begin: Begin, host: str, retry_delay: float | None = None) -> None:
        self.failure: ConnectError | None = None
        """Of the attempts that failed, the failure that says most."""
        self._begin_attempt = begin
        self._host = host
        self._retry_delay = RETRY_ATTEMPT_DELAY if retry_delay is None else retry_delay
        self._loop = asyncio.get_running_loop()
        self._refusal: OSError | None = None
        """Why this machine let no packet out."""
        self._tried: list[_Destination] = []
        """The addresses that have not failed."""

    async def run(self, addresses: Sequence[tuple[int, Address]]) -> ClientConnection:
        """The first connection that gets ready. Raises `ConnectError` when all have failed."""
        waiting = [_Destination(family, address) for family, address in addresses]
        while waiting or self._tried:
            if waiting:
                destination = waiting.pop(0)
                try:
                    self._begin(destination)
                except OSError as error:
                    if error.errno not in REFUSED_HERE:
                        self._failed(self._no_way(error))
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
        """What to say where this machine has let no packet out."""
        attempts = [one for each in self._tried for one in each.attempts]
        for attempt in attempts:
            self._refusal = attempt.refused_here or self._refusal
        if self._refusal is None or any(one.sent_packets for one in attempts):
            return None
        text = f"this machine lets no packet out to {self._host}: {self._refusal.strerror}"
        return ConnectError(Cause.REFUSED_HERE, text)

    def abandon_losers(self) -> None:
        """Close all others."""
        for destination in self._tried:
            for attempt in destination.attempts:
                attempt.abort()
        self._tried.clear()

    @staticmethod
    async def _wait(
        attempts: Iterable[asyncio.Future[None]], seconds: float | None
    ) -> set[asyncio.Future[None]]:
        """Wait until one is done, at most `seconds`: those that are done."""
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
        """Seconds until the next attempt is to be made."""
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
                continue  # What is under way may still be answered.
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

    def _no_way(self, error: OSError) -> ConnectError:
        return ConnectError(Cause.UNREACHABLE, f"no way to {self._host}: {error.strerror}")


def more_telling(first: ConnectError | None, second: ConnectError) -> ConnectError:
    """The one of two failures that says more: a server's answer says more than silence."""
    silent = (Cause.NO_ANSWER, Cause.UNREACHABLE, Cause.REFUSED_HERE)
    if first is None or (first.cause in silent and second.cause not in silent):
        return second
    # Of an address that has not answered yet, more can come than of those that refused.
    is_waiting = second.cause in (Cause.NO_ANSWER, Cause.REFUSED_HERE)
    return second if is_waiting and first.cause in silent else first
