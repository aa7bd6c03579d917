"""One target: probes on absolute deadlines, and always a session to send them on.

A session is replaced before it is left wherever that is possible. Where the server drains it, or
nothing was heard of it for a while, or somebody says that nobody listens there any more, another
one is made beside it, and probes go on over the old one until then. An old one that answers
after all, unless it drains, ends the attempts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ...settings import ProbeSettings
from ...telemetry.failure_log import Repeats
from ...telemetry.logs import get_logger
from ..link.availability import Availability
from ..link.backoff import Backoff
from ..link.dialer import Dialer, DialError
from ..link.presence import IDLE_TIMEOUT
from ..link.probe_session import HORIZON, ProbeSession
from ..link.schedule import Schedule, first_slot, spread
from .metrics import ProbeMetrics, TargetCounts

_GRACE = 1.0
"""Seconds that a new target has to be connected to before its slots count."""
_CALM = 1.0
"""Seconds without such a wish after which a drained session is replaced without waiting."""
_SUSPICION = 1.0
"""Seconds of silence, with QUIC's repetitions in it, after which another session is tried."""
_SHORTEST_PATIENCE = 2.0
_LONGEST_PATIENCE = IDLE_TIMEOUT / 3
"""Seconds of silence after which a path is taken for dead: three intervals within these bounds."""
_UNANSWERED = 10
"""Probes without an answer, in a row, after which a session is of no use, though it lives."""
_MAX_RETIRING = 4
"""Sessions that were replaced and may still bring answers, at most."""


class Need(Enum):
    """Why a session is wanted."""

    START = "start"
    DRAIN = "drain"
    """The server asks to leave the one that is there."""
    SILENT = "silent"
    REFUSED = "refused"
    UNANSWERED = "unanswered"
    ENDED = "ended"

    @property
    def is_a_doubt(self) -> bool:
        """Whether an answer on the old session settles it."""
        return self in (Need.SILENT, Need.REFUSED, Need.UNANSWERED)


@dataclass(eq=False, slots=True)
class _Slots:
    """When probes of one mode are sent."""

    mode: str
    schedule: Schedule
    timer: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class _Retired:
    """When a session that was replaced is left at the latest, and why it was replaced."""

    until: float
    reason: str


class Prober:
    """Probes one target until `close`. `run` is to be running all the time, `tick` to be called.

    Its values in `metrics` are the supervisor's to make and remove; `attempts` are failures of
    all targets, to be logged at their change.
    """

    def __init__(
        self,
        name: str,
        settings: ProbeSettings,
        metrics: ProbeMetrics,
        counts: TargetCounts,
        dialer: Dialer,
        failures: Repeats,
    ) -> None:
        self.name = name
        self.availability = Availability(time.monotonic_ns())
        self._settings = settings
        self._metrics = metrics
        self._counts = counts
        self._dialer = dialer
        self._failures = failures
        self._backoff = Backoff(settings.backoff_min, settings.backoff_max)
        self._log = get_logger("pingpong.client").bind(target=name)
        self._loop = asyncio.get_running_loop()
        self._patience = max(
            settings.timeout,
            _SHORTEST_PATIENCE,
            min(3 * settings.interval, _LONGEST_PATIENCE),
        )
        self._suspicion = max(settings.timeout, _SUSPICION)
        self._current: ProbeSession | None = None
        """Where probes go."""
        self._retiring: dict[ProbeSession, _Retired] = {}
        """Sessions that were replaced, the oldest first."""
        self._need = Need.START
        self._cause = ""
        """Why, for people."""
        self._connect_failure = ""
        """Of the last attempt, for people; empty since the target is up."""
        self._calm_since = time.monotonic()
        """When a session was wanted last."""
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._news: asyncio.Future[None] = self._loop.create_future()
        self._failure: BaseException | None = None
        self._slots: list[_Slots] = []
        self._farewells: set[asyncio.Task[None]] = set()

    @property
    def reason(self) -> str:
        """Why the target is down, for people; empty where it is up."""
        if self.availability.is_up:
            return ""
        if not self._connect_failure or self._connect_failure == self.availability.cause:
            return self.availability.cause
        return f"{self.availability.cause}; {self._connect_failure}"

    async def run(self) -> None:
        """Keep a session, until cancelled. Raises what a fault in here raised."""
        grace = self._loop.call_later(_GRACE, self._start_slots)
        try:
            while True:
                await self._wanted.wait()
                await self._connect()
        finally:
            grace.cancel()

    def tick(self, now: float, awake: float) -> None:
        """Take stock, several times a second: see `ProbeSession.check`."""
        for session, retired in list(self._retiring.items()):
            session.check(now, awake)
            if session in self._retiring and (now >= retired.until or not session.open):
                self._leave(session)
        current = self._current
        if current is None:
            return
        current.check(now, awake)
        if current is not self._current:
            return
        if current.silent_for >= self._patience:
            self._doubt(Need.SILENT, f"nothing was heard of it for {self._patience:g} s")
        elif current.unanswered >= _UNANSWERED:
            self._doubt(Need.UNANSWERED, f"{_UNANSWERED} probes in a row were not answered")
        elif current.silent_for >= self._suspicion and not self._wanted.is_set():
            self._want(Need.SILENT, f"nothing was heard of it for {self._suspicion:g} s")

    def connect_now(self) -> None:
        """Do not wait before the next attempt: something has changed."""
        self._tell()

    def fail(self, error: BaseException) -> None:
        """Have `run` raise this."""
        self._failure = error
        self._wanted.set()
        self._tell()

    async def close(self) -> None:
        """Stop, and leave all sessions; it takes `probe_session.GOODBYE` seconds at most."""
        for slots in self._slots:
            if slots.timer is not None:
                slots.timer.cancel()
        sessions = [*self._retiring, self._current]
        for session in sessions:
            if session is not None:
                self._leave(session)
        if self._farewells:
            await asyncio.gather(*self._farewells, return_exceptions=True)

    # Connecting.

    async def _connect(self) -> None:
        """Make a session, attempt by attempt, as long as one is wanted."""
        calm = time.monotonic() - self._calm_since
        if calm >= self._backoff.longest:
            self._backoff.reset()
        at_once = self._need is Need.START or (self._need is Need.DRAIN and calm >= _CALM)
        pause = 0.0 if at_once else self._backoff.next()
        while self._wanted.is_set():
            await self._pause(pause)
            if self._wanted.is_set() and (session := await self._attempt()) is not None:
                self._take(session)
                break
            pause = self._backoff.next()
        self._calm_since = time.monotonic()

    async def _pause(self, seconds: float) -> None:
        """Wait, unless there is news."""
        await asyncio.wait({self._await_news()}, timeout=seconds)

    async def _attempt(self) -> ProbeSession | None:
        """Try to connect. Returns None where that failed, or came to be unwanted."""
        old = self._current
        attempt = self._loop.create_task(
            self._dialer.dial(
                self.name, self._counts, self, avoid=None if old is None else old.address
            )
        )
        session = None
        try:
            while self._wanted.is_set() and not attempt.done():
                events: set[asyncio.Future[Any]] = {attempt, self._await_news()}
                await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
            if self._wanted.is_set():
                session = attempt.result()
        except DialError as error:
            self._dial_failed(error)
        finally:
            self._start_slots()
            if session is None:
                attempt.cancel()
                self._bid_farewell(self._end_attempt(attempt))
        return session

    async def _end_attempt(self, attempt: asyncio.Task[ProbeSession]) -> None:
        await asyncio.wait([attempt])
        # It may have succeeded in the same moment in which nobody wanted it any more.
        if not attempt.cancelled() and attempt.exception() is None:
            self._metrics.sessions_closed["closed"] += 1
            await attempt.result().close("closed")

    def _await_news(self) -> asyncio.Future[None]:
        """Done when there is something that ends a pause. Raises the fault of `fail`."""
        if self._failure is not None:
            raise self._failure
        if self._news.done():
            self._news = self._loop.create_future()
        return self._news

    def _dial_failed(self, error: DialError) -> None:
        self._connect_failure = str(error)
        told = self._failures.failed(self.name, error.result, time.monotonic())
        if told is not None:
            self._log.warning(
                "connect_failed", result=error.result, error=str(error), count=told.count
            )

    def _take(self, session: ProbeSession) -> None:
        """Probes go over this session from now on."""
        old, need = self._current, self._need
        self._wanted.clear()
        self._failures.succeeded(self.name, time.monotonic())
        self._connect_failure = ""
        self._current = session
        if old is not None:
            if need is not Need.DRAIN and old.open:
                # Nobody waits to see whether it would have answered yet.
                self._lost(self._cause)
            self._log.info(
                "session_moved", cause=self._cause, before=old.address, address=session.address
            )
            self._retire(old, "idle" if need is Need.SILENT else "error")
        if session.end_reason is not None:
            self.session_ended(session)
            return
        if session.is_draining:
            self.session_draining(session)
        session.send_first()

    def _retire(self, session: ProbeSession, reason: str) -> None:
        """Wait for what may still come, but not send any more."""
        follow = self._settings.timeout + (0 if session.is_draining else HORIZON)
        self._retiring[session] = _Retired(time.monotonic() + follow, reason)
        if len(self._retiring) > _MAX_RETIRING:
            self._leave(next(iter(self._retiring)))

    def _leave(self, session: ProbeSession) -> None:
        retired = self._retiring.pop(session, None)
        if session is self._current:
            self._current = None
        reason = "closed" if retired is None else retired.reason
        if session.end_reason is None:
            if session.is_draining:
                reason = "drain"
            self._metrics.sessions_closed[reason] += 1
        self._bid_farewell(session.close(reason))

    def _bid_farewell(self, farewell: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(farewell)
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)

    # `probe_session.SessionOwner`.

    def session_answered(self, session: ProbeSession, at_ns: int) -> None:
        """The target is up."""
        if self._current is None:
            return  # A late word of one that was replaced.
        recovered = self.availability.answered(at_ns)
        if recovered is not None:
            self._counts.is_up = True
            self._connect_failure = ""
            facts: dict[str, object] = {"address": session.address}
            if recovered.outage_ns is not None:
                seconds = recovered.outage_ns * 1e-9
                self._metrics.outages.observe(seconds)
                facts |= {"outage_seconds": round(seconds, 3), "cause": recovered.cause}
            self._log.info("target_up", **facts)
        if session is self._current and self._need.is_a_doubt and self._wanted.is_set():
            self._wanted.clear()
            self._tell()

    def session_draining(self, session: ProbeSession) -> None:
        """Another one first."""
        if session is self._current:
            self._want(Need.DRAIN, "the server wants the session to be left")
            self._tell()

    def session_refused(self, session: ProbeSession, cause: str) -> None:
        """Another one, in case it is true."""
        if session is self._current and not self._wanted.is_set():
            self._want(Need.REFUSED, cause)

    def session_ended(self, session: ProbeSession) -> None:
        """The end of a session: of the target too, where no other stands."""
        if session is self._current:
            self._lost(session.end_cause)
            if self._need is Need.DRAIN and self._wanted.is_set():
                # Those that refused were the server that left: its successor may stand already.
                self._backoff.reset()
                self._tell()
            self._want(Need.ENDED, session.end_cause)
        elif session not in self._retiring:
            return  # Not taken yet: whoever takes it will see.
        self._metrics.sessions_closed[session.end_reason or "error"] += 1
        self._leave(session)

    # Slots.

    def _start_slots(self) -> None:
        """From the first attempt's end on: what can't be sent counts as well."""
        if self._slots:
            return
        modes, interval = self._settings.modes, self._settings.interval
        now = time.monotonic()
        for index, mode in enumerate(modes):
            place = spread(self.name, index, len(modes))
            slots = _Slots(mode, Schedule(first_slot(now, interval, place), interval))
            self._slots.append(slots)
            self._await_slot(slots)

    def _await_slot(self, slots: _Slots) -> None:
        delay = max(slots.schedule.next - time.monotonic(), 0)
        slots.timer = self._loop.call_later(delay, self._send, slots)

    def _send(self, slots: _Slots) -> None:
        """The time of a slot has come."""
        schedule = slots.schedule
        skipped = schedule.skipped
        schedule.take(time.monotonic())
        self._metrics.skipped += schedule.skipped - skipped
        self._await_slot(slots)
        try:
            if self._current is None:
                self._counts.modes[slots.mode].completed["send_error"] += 1
            else:
                self._current.send(slots.mode)
        except Exception as error:
            self.fail(error)

    # The rest.

    def _doubt(self, need: Need, cause: str) -> None:
        self._lost(cause)
        if not self._wanted.is_set():
            self._want(need, cause)

    def _want(self, need: Need, cause: str) -> None:
        self._need = need
        self._cause = cause
        self._wanted.set()

    def _lost(self, cause: str) -> None:
        self._counts.is_up = False
        if self.availability.lost(cause, time.monotonic_ns()):
            self._log.warning("target_down", cause=cause)

    def _tell(self) -> None:
        if not self._news.done():
            self._news.set_result(None)
