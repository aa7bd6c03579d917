"""One target's pings, from the first connection to the last answer, and their sum."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from ... import link
from ...link import Dialer, Link, LinkError, LinkOptions, Lookup, Observer, Peer, Resolved, Until
from ...ping import Mode
from ...settings import PingSettings
from ...statistics import Answer, AnswerStatus, Latencies, Summary
from ...webtransport import Address
from ...webtransport.asyncio import choose_engine
from .advice import with_advice
from .observer import Display
from .results import RunSummary, ShownOutage, unconnected

_AT_ONCE = 0.5
"""Seconds between a slot that came after a pause of the process, and the signal that reports it."""
_BACKOFF = (0.1, 2.0)
"""Seconds between attempts to connect: a user is watching, and a server that is back is found."""
_NANOSECONDS = 1_000_000_000


def follows_answers(settings: PingSettings) -> bool:
    """Whether these settings ask for a flood; as with ping(8), one with an interval keeps to it."""
    return settings.flood and "interval" not in settings.model_fields_set


class TargetRun(Observer):
    """A run of pings to the target that is called `name`, shown by `display`.

    Pings are sent when `settings` say, whatever becomes of the connection: one that has no
    connection to go through is not sent, and counted as that. `until` says what ends it besides its
    count. The name is looked up again each `lookup_interval` seconds.

    `started` is called when the first attempt to connect is over, whatever came of it; pings begin
    `offset` seconds later.
    """

    def __init__(
        self,
        name: str,
        lookup: Lookup,
        dialer: Dialer,
        settings: PingSettings,
        display: Display,
        *,
        started: Callable[[], None],
        until: Until,
        offset: float = 0.0,
        lookup_interval: float | None = None,
    ) -> None:
        options = LinkOptions(
            modes=(settings.mode,),
            size=settings.size,
            interval=settings.interval,
            timeout=settings.timeout,
            count=settings.count,
            is_flood=follows_answers(settings),
            offset=offset,
            until=until,
            backoff=_BACKOFF,
            lookup_interval=lookup_interval,
        )
        self.link = Link(name, self._look_up, dialer, self, options)
        self.error: LinkError | None = None
        """What ended it before its time, or has kept it from being connected so far."""
        self.cause: str | None = None
        """Why the target is not up, as far as that is known."""
        self._lookup = lookup
        self._addresses: dict[Address, None] = {}
        """To which the name has led, in the order in which it did."""
        self._created_ns = time.monotonic_ns()
        self._settings = settings
        self._display = display
        self._started = started
        self._until = until
        self._rtt = Latencies()
        self._server = Latencies()
        self._malformed = 0
        self._began_ns: int | None = None
        self._ended_ns: int | None = None
        self._gap = (0.0, 0)
        """When slots were last skipped, and how many."""
        self._is_continued = False
        """Whether the process was stopped since the last slot."""
        # Outages.
        self._down_on: Peer | None = None
        """The last session with the target that is down; None where it is up."""
        self._outages = 0
        self._outage_ns = 0
        self._lost = 0
        """Pings since the last answer that were not answered."""
        self._not_sent = 0

    async def run(self) -> None:
        """Connect and ping until the count is reached, or forever."""
        try:
            await self.link.run()
        except LinkError as error:
            self.error = error
            self.cause = str(error)
        self._ended_ns = time.monotonic_ns()

    async def close(self) -> None:
        """Leave the server."""
        await self.link.close()

    def counts(self) -> Summary:
        """What became of the pings so far, without times: cheap at any moment."""
        return self.link.summary(time.monotonic_ns())

    def outages(self, now_ns: int) -> tuple[int, int]:
        """How many there were, and how long all together: with the one that is on."""
        outage = self.link.availability.outage(now_ns)
        if outage is None:
            return self._outages, self._outage_ns
        return self._outages + 1, self._outage_ns + outage.duration_ns

    def finish(self) -> RunSummary:
        """Take in what has arrived, and sum up."""
        # An answer that is here already counts, whatever was quicker.
        self.link.receive_pending()
        return self.summary()

    def summary(self) -> RunSummary:
        """Sum up."""
        now = self._ended_ns or time.monotonic_ns()
        elapsed = now - self._began_ns if self._began_ns is not None else 0
        peer = self.link.peer
        outages, outage_ns = self.outages(now)
        pings = dataclasses.replace(
            self.link.summary(now),
            elapsed_ns=elapsed,
            rtt=self._rtt.distribution(),
            server=self._server.distribution(),
        )
        is_flood = self._settings.flood and elapsed > 0
        stopped = None
        if peer is None and self.error is None:
            stopped = unconnected(now - self._created_ns, self._addresses)
        return RunSummary(
            pings=pings,
            peer=peer,
            times=link.ConnectTimes() if peer is None else peer.times,
            connections=self.link.connections,
            skipped=self.link.skipped,
            malformed=self._malformed,
            outages=outages,
            outage_ns=outage_ns,
            rate=pings.sent * _NANOSECONDS / elapsed if is_flood else None,
            error=None if self.error is None else with_advice(self.error, self._settings),
            path=self.link.path_statistics(),
            engine=choose_engine(self._settings.engine, server=False),
            unconnected=stopped,
        )

    def continued(self) -> None:
        """The process goes on after it was stopped: show what was skipped meanwhile."""
        at, slots = self._gap
        if time.monotonic() - at < _AT_ONCE:
            self._display.skipped(slots)  # the next slot was there before the signal
            self._gap = (0.0, 0)
        else:
            self._is_continued = True

    async def _look_up(self) -> Resolved:
        found = await self._lookup()
        self._addresses.update(dict.fromkeys(address for _, address in found.addresses))
        return found

    # `Observer`: the target and its sessions.

    def up(self, peer: Peer, outage: link.Outage | None) -> None:
        """It answers, for the first time or again."""
        duration = None if outage is None else outage.duration_ns
        if duration is not None:
            self._outages += 1
            self._outage_ns += duration
        if self._down_on is not None:
            is_reconnected = peer is not self._down_on
            self._display.recovered(
                peer, ShownOutage(duration, self._lost, self._not_sent, is_reconnected)
            )
        self._down_on = self.cause = None
        self._lost = self._not_sent = 0

    def down(self, cause: str) -> None:
        """It does not answer any more."""
        self._down_on = self.link.peer
        self.cause = cause
        if self._until is not Until.SESSION_ENDED:
            self._display.down(cause)

    def connect_failed(self, error: LinkError) -> None:
        """While it is up, how another session fares is of no interest."""
        if not self.link.connections:
            self.error = error
            self.cause = str(error)
            self._start()
        elif self._down_on is not None and str(error) != self.cause:
            self.cause = str(error)
            self._display.failed(self.cause)

    def connected(self, peer: Peer) -> None:
        """There is a session."""
        if self.link.connections == 1:
            self.error = self.cause = None
            self._display.connected(peer)
            self._start()

    def moved(self, before: Peer, peer: Peer, cause: str) -> None:
        """There is another one."""
        if self._down_on is None:
            self._display.moved(before, peer, cause)

    def draining(self) -> None:
        """The server asks to leave."""
        self._display.draining()

    # Pings.

    def sent(self, seq: int, mode: Mode) -> None:
        """It is on its way."""
        self._note_slot()
        self._display.sent(seq, mode)

    def not_sent(self, seq: int, mode: Mode, reason: str) -> None:
        """It is not."""
        self._note_slot()
        self._not_sent += 1
        self._display.not_sent(seq, mode, reason)

    def unconnected(self, seq: int, mode: Mode) -> None:
        """There is no session."""
        self._note_slot()
        self._not_sent += 1
        self._display.unconnected(seq, mode)

    def answered(self, answer: Answer, size: int, is_first: bool) -> None:
        """An answer came."""
        if answer.status is not AnswerStatus.DUPLICATE and answer.rtt_ns is not None:
            self._rtt.add(answer.rtt_ns)
            if answer.server_ns is not None:
                self._server.add(answer.server_ns)
        if self._down_on is None:
            self._lost = self._not_sent = 0
        self._display.answered(answer, size, is_first)

    def unanswered(self, seq: int, *, final: bool) -> None:
        """Its timeout passed, or its session is over."""
        self._lost += 1
        self._display.unanswered(seq, final=final)

    def malformed(self, mode: Mode) -> None:
        """Something came that is no answer."""
        self._malformed += 1

    def skipped(self, slots: int) -> None:
        """Slots passed."""
        if self._is_continued:
            self._display.skipped(slots)
        else:
            self._gap = (time.monotonic(), slots)

    def _note_slot(self) -> None:
        self._is_continued = False
        if self._began_ns is None:
            self._began_ns = time.monotonic_ns()

    def _start(self) -> None:
        started, self._started = self._started, _do_nothing
        started()


def _do_nothing() -> None:
    pass
