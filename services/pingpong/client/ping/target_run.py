"""One target's pings, from the first connection to the last answer."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Coroutine
from typing import Any

from ...settings import PingSettings
from ...statistics import Summary, Totals
from ..link.connecting import Connector, LinkError
from ..link.links import Links
from ..link.pace import Flood, Pace, Regular, follows_answers
from ..link.pinger import SendError
from .observer import Observer
from .results import RunSummary

_AT_ONCE = 0.5
"""Seconds between a slot that came after a pause of the process, and the signal that tells of it."""
_NANOSECONDS = 1_000_000_000


class TargetRun:
    """A run of pings to one target.

    Pings are sent when `settings` say, whatever becomes of the connection: one that has no
    connection to go through is not sent, and counted as that. Without `reconnect` the end of the
    session is the end of the run. Where the first connection cannot be made, the run is over; with
    `insist` it is tried again.

    `started` is called when the first attempt to connect is over, whatever came of it; pings begin
    `offset` seconds later.
    """

    def __init__(
        self,
        connector: Connector,
        settings: PingSettings,
        observer: Observer,
        *,
        started: Callable[[], None],
        offset: float = 0.0,
        reconnect: bool = True,
        insist: bool = False,
    ) -> None:
        self._settings = settings
        self._observer = observer
        self._started = started
        self._offset = offset
        self._insists = insist
        self._totals = Totals()
        self._progress = asyncio.Event()
        """Set when an answer came, or a ping was sent, or there is less to wait for."""
        self.links = Links(
            connector,
            self._totals,
            observer,
            timeout_ns=int(settings.timeout * _NANOSECONDS),
            reconnect=reconnect,
            progress=self._answered,
        )
        self._pace: Pace | None = None
        self._seq = 0
        self._began_ns: int | None = None
        self._ended_ns: int | None = None
        self._gap = (0.0, 0)
        """When slots were last skipped, and how many."""
        self._is_continued = False
        """Whether the process was stopped since the last slot."""

    async def run(self) -> None:
        """Connect and ping until the count is reached, or forever."""
        try:
            await self.links.begin(insist=self._insists)
        except LinkError:
            return
        finally:
            self._started()
        settings = self._settings
        if follows_answers(settings):
            self._pace = Flood()
        else:
            self._pace = Regular(settings.interval, self._offset)
        await _first_of(
            self._send_all(self._pace), self.links.ended.wait(), self._watch(), self.links.keep()
        )
        self.links.leave()
        self._ended_ns = time.monotonic_ns()

    def counts(self) -> Summary:
        """What became of the pings so far, without times: cheap at any moment."""
        return self._totals.counts(time.monotonic_ns())

    def finish(self) -> RunSummary:
        """Take in what has arrived, and sum up."""
        # An answer that is here already counts, whoever was quicker.
        self.links.receive_pending()
        return self.summary()

    def summary(self) -> RunSummary:
        """Sum up."""
        now = self._ended_ns or time.monotonic_ns()
        elapsed = now - self._began_ns if self._began_ns is not None else 0
        links = self.links
        outages, outage_ns = links.outages(now)
        pings = dataclasses.replace(self._totals.summary(now), elapsed_ns=elapsed)
        is_flood = self._settings.flood and elapsed > 0
        return RunSummary(
            pings=pings,
            peer=links.peer,
            times=links.times,
            connections=links.made,
            skipped=self.skipped,
            malformed=links.malformed,
            outages=outages,
            outage_ns=outage_ns,
            rate=pings.sent * _NANOSECONDS / elapsed if is_flood else None,
            error=None if links.error is None else links.error.text,
        )

    async def close(self) -> None:
        """Say goodbye to the server."""
        await self.links.close()

    @property
    def skipped(self) -> int:
        """Slots of the schedule that could not be kept."""
        return 0 if self._pace is None else self._pace.skipped

    def continued(self) -> None:
        """The process goes on after it was stopped: what was skipped meanwhile is told."""
        at, slots = self._gap
        if time.monotonic() - at < _AT_ONCE:
            self._observer.skipped(slots)  # the next slot was there before the signal
            self._gap = (0.0, 0)
        else:
            self._is_continued = True

    async def _send_all(self, pace: Pace) -> None:
        """Send when it is time, whatever becomes of the answers; then wait for the last."""
        count = self._settings.count
        while count is None or self._seq < count:
            skipped = pace.skipped
            await pace.wait()
            if pace.skipped > skipped:
                self._note_gap(pace.skipped - skipped)
            self._is_continued = False
            self._send()
        while self._totals.deadline is not None:
            self._progress.clear()
            await self._progress.wait()

    def _send(self) -> None:
        self._seq += 1
        if self._began_ns is None:
            self._began_ns = time.monotonic_ns()
        link = self.links.current
        if link is None:
            self.links.missed()
            self._observer.unconnected(self._seq)
            return
        try:
            link.send(self._seq)
        except SendError as error:
            self._observer.not_sent(self._seq, str(error))
        else:
            self._observer.sent(self._seq)
        self._progress.set()

    def _note_gap(self, slots: int) -> None:
        if self._is_continued:
            self._observer.skipped(slots)
        else:
            self._gap = (time.monotonic(), slots)

    async def _watch(self) -> None:
        """Say which pings have had no answer in time."""
        while True:
            deadline = self._totals.deadline
            if deadline is None:
                self._progress.clear()
                await self._progress.wait()
                continue
            delay = deadline / _NANOSECONDS - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            # An answer may be in the socket already: it is in time if it arrived in time.
            self.links.receive_pending()
            for seq in self._totals.expire(time.monotonic_ns()):
                self._observer.unanswered(seq, final=False)
            self.links.retire()
            self._progress.set()

    def _answered(self) -> None:
        if self._pace is not None:
            self._pace.answered()
        self._progress.set()


async def _first_of(*works: Coroutine[Any, Any, object]) -> None:
    """Run until one is done, and cancel the others. Raises what it raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
