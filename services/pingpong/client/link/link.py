"""A session to ping through, and the connection under it."""

from __future__ import annotations

import asyncio
import errno
import time
from typing import Protocol

from ...webtransport import Session, SessionClosed
from ...webtransport.asyncio import ClientConnection
from ..statistics.statistics import Outcome, Statistics
from .advice import describe_end
from .peer import ConnectTimes, Peer
from .pinger import Pinger, SendError
from .presence import KEEP_ALIVES, Refusals

_GOODBYE = 1.0
"""Seconds that the server has to hear of our end, at most."""
_NANOSECONDS = 1_000_000_000


class LinkOwner(Protocol):
    """Who is told what a link does, by plain calls."""

    def link_answered(self, link: Link, outcome: Outcome, size: int) -> None:
        """An answer of `size` bytes came."""

    def link_draining(self, link: Link) -> None:
        """The server asks to finish and leave; pings still go through. At most once."""

    def link_closed(self, link: Link, cause: str) -> None:
        """The session is over, for a reason that people can read. At most once, and the last."""


class Link:
    """Pings go out through it, one session long.

    It keeps the connection alive where pings are rare, and says when the server is gone. Made
    before the session, whose handler is `pinger`; in use from `begin` on. `idle_timeout` is this
    side's, in seconds.
    """

    def __init__(
        self,
        client: ClientConnection,
        mode: str,
        size: int,
        timeout: float,
        *,
        owner: LinkOwner,
        idle_timeout: float,
    ) -> None:
        self.client = client
        self.peer: Peer
        """Who answers; there from `begin` on."""
        self.began = time.monotonic()
        self.is_draining = False
        """Whether the server wants it to leave."""
        self.end: str | None = None
        """Why the session is over; None as long as it isn't."""
        self._mode = mode
        self._size = size
        self._owner = owner
        timeout_ns = int(timeout * _NANOSECONDS)
        self.pinger = Pinger(
            mode,
            size,
            # The run keeps all times itself, over all of its links.
            lambda is_v1: Statistics(timeout_ns, directions=is_v1, keep_times=False),
            flush=client.endpoint.flush,
            answer=self._answered,
            closed=self._session_closed,
            draining=self._session_draining,
        )
        self._is_in_use = False
        self._error = ""
        """The socket's last one."""
        self._pause = idle_timeout / KEEP_ALIVES
        self._sent_at = self.began
        self._timer: asyncio.TimerHandle | None = None
        self._refusals = Refusals()
        self._is_gone = False
        """Whether there is nobody to say goodbye to."""

    @property
    def statistics(self) -> Statistics:
        """What became of the pings of this session."""
        return self.pinger.statistics

    @property
    def times(self) -> ConnectTimes:
        """How long it took to get here."""
        timings = self.client.timings
        return ConnectTimes(timings.resolve, timings.handshake, timings.session)

    def begin(self, session: Session) -> None:
        """The session is established. What has happened to it by now, the owner finds here."""
        self._is_in_use = True
        self.peer = Peer(
            address=self.client.address[0],
            mode=self._mode,
            size=self._size,
            protocol=session.protocol,
            draft=str(session.draft),
        )
        self.client.socket_error = self._socket_error
        self._pause = self.client.connection.quic.idle_timeout / KEEP_ALIVES
        if self.end is None:
            self._keep_alive()

    def send(self, seq: int) -> None:
        """Send a ping, now. Raises `SendError` where that cannot be."""
        self._sent_at = time.monotonic()
        pump = self.client.endpoint.pump
        dropped = pump.dropped_packets
        self.pinger.send(seq)
        # What is on a stream is sent again.
        dropped_it = pump.dropped_packets != dropped and self._mode == "datagram"
        if dropped_it and self.statistics.send_failed(seq):
            raise SendError(self._error or "the network is down")

    def receive_pending(self) -> None:
        """Take in what is in the socket already: it has arrived, whoever was quicker."""
        if self.end is None:
            self.client.endpoint.catch_up()

    async def close(self) -> None:
        """Say goodbye, where anybody is there to hear it, and give up the socket."""
        self.end = self.end or "closed by this side"
        if self._timer is not None:
            self._timer.cancel()
        await self.client.close(timeout=0 if self._is_gone else _GOODBYE)

    def _keep_alive(self) -> None:
        loop = asyncio.get_running_loop()
        delay = self._sent_at + self._pause - time.monotonic()
        if delay <= 0:
            self.client.connection.quic.ping()
            self._sent_at = time.monotonic()
            delay = self._pause
        self._timer = loop.call_later(delay, self._keep_alive)

    # What happens.

    def _answered(self, outcome: Outcome, size: int) -> None:
        self._refusals.answered()
        self._owner.link_answered(self, outcome, size)

    def _session_draining(self) -> None:
        if not self.is_draining and self.end is None:
            self.is_draining = True
            if self._is_in_use:
                self._owner.link_draining(self)

    def _session_closed(self, closed: SessionClosed) -> None:
        self._over(describe_end(closed))

    def _socket_error(self, error: OSError) -> None:
        self._error = (error.strerror or str(error)).lower()
        if error.errno != errno.ECONNREFUSED:
            return  # A network that is down may come back, and the connection with it.
        if self._refusals.refused(time.monotonic()):
            self._is_gone = True
            self._over("the server is gone: nothing listens on its port any more")

    def _over(self, cause: str) -> None:
        if self.end is not None:
            return
        self.end = cause
        if self._timer is not None:
            self._timer.cancel()
        if self._is_in_use:
            self._owner.link_closed(self, cause)
