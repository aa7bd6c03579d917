"""One ping on a session of its own."""

from __future__ import annotations

import asyncio

from ..ping import DEFAULT_SIZE
from ..statistics import Outcome
from .dial import Dialer, Lookup
from .observer import Observer
from .session import PingSession


class _Once(Observer):
    """Waits for the answer, or for the session's end."""

    def __init__(self) -> None:
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def answered(self, outcome: Outcome, size: int, is_first: bool) -> None:
        """It came."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def not_sent(self, seq: int, mode: str, reason: str) -> None:
        """None will come."""
        self._fail(f"not sent: {reason}")

    def session_answered(self, session: PingSession, at_ns: int) -> None:
        """`answered` has the rest."""

    def session_draining(self, session: PingSession) -> None:
        """It will have answered before that."""

    def session_refused(self, session: PingSession, cause: str) -> None:
        """It may be forged."""

    def session_ended(self, session: PingSession) -> None:
        """None will come."""
        self._fail(session.end_cause)

    def _fail(self, cause: str) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(ConnectionError(cause))
            self.outcome.exception()


async def ping_once(
    name: str,
    lookup: Lookup,
    dialer: Dialer,
    *,
    mode: str = "datagram",
    size: int = DEFAULT_SIZE,
    timeout: float = 1.0,
) -> Outcome:
    """Connect, ping, and leave without a word.

    Raises `LinkError` where there is no session, `TimeoutError` where no answer comes within
    `timeout` seconds, and `ConnectionError` where none can come.
    """
    once = _Once()
    session = await dialer.dial(
        name, lookup, lambda client: PingSession(client, size, timeout, once, once)
    )
    try:
        session.send(1, mode)
        async with asyncio.timeout(timeout):
            return await once.outcome
    finally:
        session.client.abort()
