"""Keeps a target connected: again after a loss, and anew before a server leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import Enum

from ...statistics import Outcome, Totals
from ..ping.observer import Observer
from ..ping.results import Outage
from .backoff import Backoff
from .connecting import Connector, LinkError
from .link import Link
from .peer import ConnectTimes, Peer

_SHORTEST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
"""Seconds between attempts to connect: somebody is watching, and a server that is back is found."""
_SETTLED = 5.0
"""Seconds after which a link that was lost had been a good one: connecting begins anew at once."""


class State(Enum):
    """Where a target stands."""

    CONNECTING = "connecting"
    """Never connected so far."""
    UP = "up"
    DOWN = "down"
    """Connected before, and to be again."""
    ENDED = "ended"
    """Nothing more is to come."""


class Links:
    """One target's links: the one that pings go through, and those that answers may come from.

    A lost link is made again, and one that the server wants to end is first made a second time;
    without `reconnect` the first one's end is the end. `timeout_ns` is a ping's. `progress` is
    called when answers came, or none can come any more.
    """

    def __init__(
        self,
        connector: Connector,
        totals: Totals,
        observer: Observer,
        *,
        timeout_ns: int,
        reconnect: bool,
        progress: Callable[[], None],
    ) -> None:
        self.state = State.CONNECTING
        self.since = time.monotonic()
        """When the state became what it is."""
        self.cause: str | None = None
        """Why the state is not up, as far as that is known."""
        self.error: LinkError | None = None
        """What ended the first link where that was the end, or has kept it from being made."""
        self.ended = asyncio.Event()
        """Set where there is no link and never will be."""
        self.current: Link | None = None
        """The one that pings go through; None while there is no connection."""
        self.made = 0
        """How many there were so far."""
        self._connector = connector
        self._totals = totals
        self._observer = observer
        self._timeout_ns = timeout_ns
        self._reconnects = reconnect
        self._progress = progress
        self._newest: Link | None = None
        self._leaving: list[Link] = []
        self._malformed = 0
        self._backoff = Backoff(_SHORTEST_PAUSE, _LONGEST_PAUSE)
        self._wanted = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        # Outages.
        self._is_out = False
        self._outages = 0
        self._outage_ns = 0
        self._last_answer_ns = 0
        self._lost = 0
        self._missed = 0

    @property
    def peer(self) -> Peer | None:
        """Who is pinged, or was last."""
        return None if self._newest is None else self._newest.peer

    @property
    def times(self) -> ConnectTimes:
        """How long it took to connect, the last time."""
        return ConnectTimes() if self._newest is None else self._newest.times

    @property
    def malformed(self) -> int:
        """How many messages came that are no answer to any ping."""
        return self._malformed + sum(link.pinger.malformed for link in self._all())

    def outages(self, now_ns: int) -> tuple[int, int]:
        """How many there were, and how long all together: with the one that is on."""
        if not self._is_out:
            return self._outages, self._outage_ns
        return self._outages + 1, self._outage_ns + now_ns - self._last_answer_ns

    async def begin(self, *, insist: bool) -> None:
        """Make the first one, or with `insist` try to. Raises `LinkError` otherwise."""
        try:
            link = await self._connector.connect(self)
        except LinkError as error:
            if not insist:
                self._end(error)
                raise
            self._attempt_failed(error)
            self._wanted.set()
        else:
            self._use(link)

    async def keep(self) -> None:
        """Make another one whenever it is wanted, forever."""
        while True:
            await self._wanted.wait()
            await asyncio.sleep(self._backoff.next())
            try:
                # Of several addresses, the one that was lost, or is being left, comes last.
                avoid = None if self._newest is None else self._newest.peer.address
                link = await self._connector.connect(self, avoid=avoid)
            except LinkError as error:
                self._attempt_failed(error)
            else:
                self._wanted.clear()
                self._use(link)

    def missed(self) -> None:
        """A ping's time came while there was no link."""
        self._totals.unconnected += 1
        self._missed += 1

    def receive_pending(self) -> None:
        """Take in what is in the sockets already."""
        for link in self._all():
            link.receive_pending()

    def retire(self) -> None:
        """Leave the links of which nothing is expected any more."""
        for link in [link for link in self._leaving if link.statistics.deadline is None]:
            self._leaving.remove(link)
            self._forget(link)

    def leave(self) -> None:
        """Leave all of them: the end."""
        self.receive_pending()
        for link in self._all():
            self._forget(link)
        self.current = None
        self._leaving.clear()
        self._set_state(State.ENDED)

    async def close(self) -> None:
        """Say goodbye to the server."""
        for link in self._all():
            self._close(link)
        if self._closing:
            await asyncio.wait(self._closing)

    # `LinkOwner`.

    def link_answered(self, link: Link, outcome: Outcome, size: int) -> None:
        """An answer came."""
        self._last_answer_ns = time.monotonic_ns()
        self._totals.answered(outcome)
        self._observer.answered(outcome, size)
        if self._leaving:
            self.retire()
        self._progress()

    def link_draining(self, link: Link) -> None:
        """Connect anew first, then leave."""
        if link is self.current and self._reconnects:
            self._observer.draining()
            self._want(link)

    def link_closed(self, link: Link, cause: str) -> None:
        """What it was asked and has not answered is lost."""
        waiting = self._forget(link)
        if link is not self.current:
            self._leaving.remove(link)
            self._progress()
            return
        self.current = None
        self._observer.lost(cause, final=not self._reconnects)
        if self._reconnects:
            self.cause = cause
            self._is_out = True
            self._lost, self._missed = len(waiting), 0
            self._set_state(State.DOWN)
            self._want(link)
        else:
            self._end(LinkError(cause))
        self._progress()

    # Inside.

    def _use(self, link: Link) -> None:
        old, self.current = self.current, link
        now = time.monotonic_ns()
        self._totals.begin(link.statistics)
        self.cause = self.error = None
        if self._newest is None:
            self._observer.connected(link.peer)
        elif old is None:
            outage = Outage(now - self._last_answer_ns, self._lost, self._missed)
            self._is_out = False
            self._outages += 1
            self._outage_ns += outage.duration_ns
            self._observer.recovered(link.peer, outage)
        else:
            self._leaving.append(old)
            self._observer.moved(link.peer)
        self._newest = link
        self.made += 1
        self._last_answer_ns = now
        self._set_state(State.UP)
        self.retire()
        # What happened before anybody listened.
        if link.end is not None:
            self.link_closed(link, link.end)
        elif link.is_draining:
            self.link_draining(link)

    def _want(self, old: Link) -> None:
        # One that is lost as soon as it is made is not to be made without a pause.
        if time.monotonic() - old.began > _SETTLED:
            self._backoff.reset()
        self._wanted.set()

    def _attempt_failed(self, error: LinkError) -> None:
        if self._newest is None:
            self.error = error
        # While the old link works, how the new one fares is of no interest.
        if self.current is None and str(error) != self.cause:
            self.cause = str(error)
            self._observer.failed(self.cause)

    def _forget(self, link: Link) -> list[int]:
        """Sum a link up and close it. Returns the pings that it leaves without an answer."""
        waiting = self._totals.end(link.statistics, time.monotonic_ns(), self._timeout_ns)
        self._malformed += link.pinger.malformed
        for seq in waiting:
            self._observer.unanswered(seq, final=True)
        self._close(link)
        return waiting

    def _close(self, link: Link) -> None:
        task = asyncio.create_task(link.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _all(self) -> list[Link]:
        return [*self._leaving, *([] if self.current is None else [self.current])]

    def _end(self, error: LinkError) -> None:
        self.error = error
        self.cause = str(error)
        self._set_state(State.ENDED)
        self.ended.set()

    def _set_state(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self.since = time.monotonic()
