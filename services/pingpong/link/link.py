"""A link to one target: always a session to send probes on, and what becomes of each probe."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..ping import DEFAULT_SIZE, Mode
from ..statistics import Answer, AnswerStatus, Summary, Totals
from ..webtransport import Address
from ..webtransport.asyncio import ClientConnection, ConnectError
from .availability import Availability
from .dial import Dialer, Lookup
from .failures import Failure, LinkError
from .observer import Observer, Peer
from .reconnect import Backoff, ReconnectPolicy, ReconnectReason, ReconnectRequest
from .schedule import Flood, Pace, Schedule, first_slot, spread
from .session import HORIZON, IDLE_TIMEOUT, NOTHING_LISTENS, PingSession

TICK = 0.25
"""Seconds from one stock-taking to the next, at most."""

_GRACE = 1.0
"""Seconds that a new target has to be connected to before its slots count."""
_SUSPECT_AFTER = 1.0
"""Seconds of silence, with QUIC's repetitions in it, after which another session is tried."""
_SHORTEST_DEAD = 2.0
_LONGEST_DEAD = IDLE_TIMEOUT / 3
"""Seconds of silence after which a path is taken for dead: three intervals within these bounds."""
_UNANSWERED = 10
"""Probes without an answer, in a row, after which a session is of no use, though it lives."""
_MAX_RETIRING = 4
"""Sessions that were replaced and may still bring answers, at most."""
_BETWEEN_ATTEMPTS = 0.15
"""Seconds of a pause before a session that count as an outage's: it is found out no more exactly."""
_STALLED_AFTER = 0.1
"""Seconds by which a timer is late in a process that was stopped, or held up."""


class Until(Enum):
    """What ends a link, besides its count."""

    STOPPED = "stopped"
    """Nothing: it goes on until it is cancelled."""
    NOT_CONNECTED = "not connected"
    """That the first session can't be made; others are made again and again."""
    SESSION_ENDED = "session ended"
    """The same, or that the first session is over."""


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """What a link does. Times are in seconds."""

    modes: tuple[Mode, ...] = ("datagram",)
    """How probes travel: datagram, stream, streams, uni."""
    size: int = DEFAULT_SIZE
    """Bytes of a probe and of its answer."""
    interval: float = 1.0
    """From one probe to the next, of each mode."""
    timeout: float = 1.0
    """To wait for an answer; one that comes later is late, and not lost."""
    count: int | None = None
    """Probes after which it ends, once nothing is waited for; None: never."""
    is_flood: bool = False
    """Send as soon as the answer is there, and not at an interval; each mode by itself."""
    offset: float = 0.0
    """From the first attempt's end to the first slot."""
    spread_by: str | None = None
    """What the place of the slots in each interval is drawn from; `offset` is ignored then."""
    warms_up: bool = False
    """Whether each session begins with a probe of each mode, beside the schedule."""
    until: Until = Until.STOPPED
    backoff: tuple[float, float] = (0.1, 10.0)
    """Longest pauses before another attempt to connect: after the first failure, and after many."""
    lookup_interval: float | None = None
    """After how long to look again whether the address in use is still one of the target's."""


class State(Enum):
    """Where a target stands."""

    CONNECTING = "connecting"
    """Never connected so far."""
    UP = "up"
    DOWN = "down"
    """Connected before, and to be again."""
    ENDED = "ended"
    """Nothing more is to come."""


@dataclass(eq=False, slots=True)
class _Slots:
    """When probes of one mode are sent."""

    mode: Mode
    pace: Pace
    timer: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class _Retired:
    """When a session that was replaced is left at the latest, and why it was replaced."""

    until: float
    reason: ReconnectReason


class Link:
    """Probes one target while `run` runs; `close` is to be awaited after that.

    `name` is what people call the target, `lookup` says where it is now. What happens goes to
    `observer`, by plain calls in the turn in which it happens.
    """

    def __init__(
        self,
        name: str,
        lookup: Lookup,
        dialer: Dialer,
        observer: Observer,
        options: LinkOptions | None = None,
    ) -> None:
        options = options or LinkOptions()
        now = time.monotonic()
        self.name = name
        self.availability = Availability(time.monotonic_ns())
        self.peer: Peer | None = None
        """Who is pinged, or was last."""
        self.connections = 0
        """Sessions that probes have gone over."""
        self.skipped = 0
        """Slots that passed without a probe, this process being stopped or held up."""
        self.has_ended = False
        """Whether nothing more is to come."""
        self._lookup = lookup
        self._dialer = dialer
        self._observer = observer
        self._options = options
        self._totals = Totals()
        self._reconnect = ReconnectPolicy(Backoff(*options.backoff), now)
        self._loop = asyncio.get_running_loop()
        timeout = options.timeout
        self._dead_after = max(timeout, _SHORTEST_DEAD, min(3 * options.interval, _LONGEST_DEAD))
        self._suspect_after = max(timeout, _SUSPECT_AFTER)
        self._current: PingSession | None = None
        """Where probes go."""
        self._retiring: dict[PingSession, _Retired] = {}
        """Sessions that were replaced, the oldest first."""
        self._latest_addresses: Sequence[Address] = ()
        """Where the name leads, if that was said since the last attempt began."""
        self._is_connected = False
        """Whether the observer takes it for connected."""
        self._idle_since: float | None = None
        """When the last session ended, or the last attempt failed, where none stands since."""
        self._attempt_began = now
        self._connect_failure = ""
        """Of the last attempt, for people; empty since the target is up."""
        self._slots: list[_Slots] = []
        self._seq = 0
        self._ticked_at = now
        self._tick_at = now
        self._timer: asyncio.TimerHandle | None = None
        self._changed: asyncio.Future[None] = self._loop.create_future()
        self._failure: BaseException | None = None
        self._background: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Keep a session and send, until `count` is reached or it is cancelled.

        Raises `LinkError` where `until` says so, and what a fault in here raised.
        """
        grace = None
        if self._options.until is Until.STOPPED:
            grace = self._loop.call_later(_GRACE, self._start_slots)
        looking = None
        if self._options.lookup_interval is not None:
            looking = self._loop.create_task(self._follow_name(self._options.lookup_interval))
        self._ticked_at = time.monotonic()
        self._plan_tick(self._ticked_at)
        try:
            while not self.has_ended:
                pause = self._reconnect.pause(time.monotonic())
                if pause == 0:
                    await self._attempt()
                else:
                    await asyncio.wait({self._await_change()}, timeout=pause)
        finally:
            for timer in (grace, looking):
                if timer is not None:
                    timer.cancel()
            self._stop()
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        """Leave all sessions; it takes `session.CLOSE_TIMEOUT` seconds at most."""
        self._stop()
        for session in self._sessions():
            self._close_session(session)
        # Shielded: where this is cancelled, what has not begun to close closes all the same.
        await asyncio.gather(*map(asyncio.shield, self._background), return_exceptions=True)

    def addresses_changed(self, addresses: Sequence[Address]) -> None:
        """The name leads to these addresses now, and to no other one.

        Once the one in use is gone, another session is made first, and then that one is left.
        """
        if addresses:
            self._latest_addresses = addresses
            self._check_address()

    def _check_address(self) -> None:
        current, addresses = self._current, self._latest_addresses
        if current is None or not addresses:
            return
        if current.client.address not in addresses:
            self._request_session(
                ReconnectReason.ADDRESS_CHANGED,
                f"the name does not lead to {current.peer.address} any more",
            )
        elif self._has_requested(ReconnectReason.ADDRESS_CHANGED):
            self._reconnect.satisfied(time.monotonic())
            self._notify()

    def connect_now(self) -> None:
        """Do not wait before the next attempt: something has changed."""
        self._reconnect.retry_now(time.monotonic())
        self._notify()

    def receive_pending(self) -> None:
        """Take in what is in the sockets already."""
        for session in self._sessions():
            session.receive_pending()

    # How it is.

    @property
    def state(self) -> State:
        """Where the target stands; `reason` says why it is not up."""
        if self.has_ended:
            return State.ENDED
        if self.availability.is_up or (self._current is not None and not self.availability.was_up):
            return State.UP
        return State.DOWN if self.connections else State.CONNECTING

    @property
    def reason(self) -> str:
        """Why the target is down, for people; empty where it is up."""
        if self.availability.is_up:
            return ""
        if not self._connect_failure or self._connect_failure == self.availability.cause:
            return self.availability.cause
        return f"{self.availability.cause}; {self._connect_failure}"

    def summary(self, now_ns: int) -> Summary:
        """What became of the probes so far, without times."""
        return self._totals.summary(now_ns)

    def _sessions(self) -> list[PingSession]:
        return [*self._retiring, *([] if self._current is None else [self._current])]

    # Connecting.

    async def _attempt(self) -> None:
        """Try to make the session that is pending; it may come to be unwanted."""
        avoid = None if self._current is None else self._current.client.address
        self._attempt_began = time.monotonic()
        # The attempt looks the name up itself.
        self._latest_addresses = ()
        dial = self._loop.create_task(
            self._dialer.dial(
                self.name,
                self._lookup,
                self._make,
                avoid=avoid,
                retry_delay=self._reconnect.retry_delay,
            )
        )
        is_needed = False
        try:
            while self._wants_session and not dial.done():
                events: set[asyncio.Future[Any]] = {dial, self._await_change()}
                await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
            is_needed = self._wants_session
            if is_needed:
                self._end_attempt(dial)
        finally:
            if not is_needed:
                dial.cancel()
                self._run_in_background(self._drop_attempt(dial))
            self._start_slots()

    @property
    def _wants_session(self) -> bool:
        return self._reconnect.pending is not None and not self.has_ended

    def _has_requested(self, reason: ReconnectReason) -> bool:
        pending = self._reconnect.pending
        return pending is not None and pending.reason is reason

    def _make(self, client: ClientConnection) -> PingSession:
        options = self._options
        return PingSession(client, options.size, options.timeout, self, self._observer)

    def _end_attempt(self, dial: asyncio.Task[PingSession]) -> None:
        try:
            session = dial.result()
        except LinkError as error:
            self._attempt_failed(error)
        else:
            self._use(session)

    async def _drop_attempt(self, dial: asyncio.Task[PingSession]) -> None:
        """End an attempt that is unwanted; it may have ended in the same turn."""
        await asyncio.wait([dial])
        if dial.cancelled():
            return
        try:
            session = dial.result()
        except LinkError as error:
            self._observer.connect_failed(error)
        except Exception as error:
            if not self.has_ended:
                self._fail(error)
        else:
            try:
                self._observer.dialed(session.peer)
                session.finish("closed")
                assert session.end_reason is not None
                self._observer.closed(session.end_reason)
            finally:
                await session.close()

    def _attempt_failed(self, error: LinkError) -> None:
        now = time.monotonic()
        self._reconnect.failed(error.failure, now, now - self._attempt_began)
        self._connect_failure = str(error)
        current = self._current
        if current is None:
            self._idle_since = now
        elif (
            error.failure is Failure.REFUSED
            and self._has_requested(ReconnectReason.REFUSED)
            and current.client.address in error.tried
        ):
            # A host says so a limited number of times, to any of this side's sockets.
            current.refused()
        self._observer.connect_failed(error)
        if not self.connections and self._options.until is not Until.STOPPED:
            self._end(error)

    def _use(self, session: PingSession) -> None:
        """Probes go over this session from now on."""
        old, pending = self._current, self._reconnect.pending
        assert pending is not None
        self._reconnect.satisfied(time.monotonic())
        self._connect_failure = ""
        self._current = session
        self._totals.begin(session.statistics)
        lost = None
        if old is not None:
            lost = self._why_lost(old, pending, session.dialed_at)
            self._retire(old, pending.reason)
        # From here on `close` finds both, also where the observer fails.
        self._observer.dialed(session.peer)
        self.peer = session.peer
        self.connections += 1
        if old is not None:
            if lost is not None:
                self._lost(lost)
            self._observer.moved(old.peer, session.peer, pending.cause)
        else:
            if self._idle_since is not None:
                pause = session.dialed_at - self._idle_since
                self._exclude(max(pause - _BETWEEN_ATTEMPTS, 0.0))
                self._idle_since = None
            self._observer.connected(session.peer)
        self._is_connected = True
        if session.end_reason is not None:
            self.session_ended(session)
            return
        if session.is_draining:
            self.session_draining(session)
        # The name may have come to lead elsewhere during the attempt.
        self._check_address()
        if self._options.warms_up:
            for mode in self._options.modes:
                self._send(mode)

    def _why_lost(
        self, old: PingSession, pending: ReconnectRequest, dialed_at: float
    ) -> str | None:
        """Why the target was lost on a session that is replaced; None: it was not.

        Whether the old session would still have answered is not waited for.
        """
        if old.waits_since(dialed_at):
            if pending.reason is ReconnectReason.REFUSED:
                return pending.cause
            if old.is_refused:
                return NOTHING_LISTENS
        if not old.open:
            return None
        if pending.reason in (ReconnectReason.UNRESPONSIVE, ReconnectReason.UNANSWERED):
            return pending.cause
        # Also where it is replaced for another reason, as when the server asks to leave.
        if old.unresponsive_for >= self._suspect_after:
            return _silence(self._suspect_after)
        return _no_answers() if old.unanswered_in_a_row >= _UNANSWERED else None

    def _retire(self, session: PingSession, reason: ReconnectReason) -> None:
        """Wait for what may still come, but not send any more."""
        is_well = session.is_draining or reason is ReconnectReason.ADDRESS_CHANGED
        follow = self._options.timeout + (0 if is_well else HORIZON)
        self._retiring[session] = _Retired(time.monotonic() + follow, reason)
        if len(self._retiring) > _MAX_RETIRING:
            self._close_session(next(iter(self._retiring)))

    def _close_session(self, session: PingSession) -> None:
        retired = self._retiring.pop(session, None)
        if session is self._current:
            self._current = None
        if session.end_reason is None:
            reason = "closed" if retired is None else retired.reason.close_reason
            if session.is_draining:
                reason = "drain"
            session.finish(reason)
        assert session.end_reason is not None
        self._observer.closed(session.end_reason)
        self._totals.end(session.statistics, time.monotonic_ns())
        self._run_in_background(session.close())
        self._check_count()

    def _run_in_background(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _follow_name(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                found = await self._lookup()
            except ConnectError:
                continue  # What was known before still holds.
            except Exception as error:
                self._fail(error)
                return
            self.addresses_changed([address for _, address in found.addresses])

    # `session.SessionOwner`.

    def session_answered(self, session: PingSession, answer: Answer, at_ns: int) -> None:
        """Note an answer: the target is up, and a doubt about its session is satisfied."""
        if self._current is None:
            # From one that was replaced: nothing shows that another one can be made.
            self.availability.noted(at_ns)
            self._idle_since = time.monotonic()
            return
        was_up = self.availability.is_up
        outage = self.availability.answered(at_ns)
        if not was_up:
            self._connect_failure = ""
            self._is_connected = True
            self._observer.up(session.peer, outage)
        pending = self._reconnect.pending
        if pending is not None and pending.reason.is_suspicion and session is self._current:
            self._reconnect.satisfied(time.monotonic())
            self._notify()
        if self._options.is_flood and answer.status is not AnswerStatus.DUPLICATE:
            now = time.monotonic()
            for slots in self._slots:
                if slots.mode == answer.kind and slots.pace.answered(now):
                    self._plan_slot(slots, now)
        self._check_count()

    def session_draining(self, session: PingSession) -> None:
        """Have another session made, before this one is left."""
        if session is self._current and self._may_reconnect:
            self._observer.draining()
            self._request_session(ReconnectReason.DRAIN, "the server wants the session to be left")

    def session_refused(self, session: PingSession, cause: str) -> None:
        """Have another session made, in case it is true."""
        if session is self._current:
            self._request_session(ReconnectReason.REFUSED, cause)

    def session_ended(self, session: PingSession) -> None:
        """Leave a session that is over: the target is lost, where no other one stands."""
        if session is self._current:
            self._idle_since = time.monotonic()
            self._lost(session.end_cause)
            if self._may_reconnect:
                self._request_session(ReconnectReason.ENDED, session.end_cause)
            else:
                self._end(LinkError("refused", session.end_cause))
        elif session not in self._retiring:
            return  # Not taken yet: `_use` will see.
        self._close_session(session)

    # Slots.

    def _start_slots(self) -> None:
        """From the first attempt's end on: what can't be sent counts as well."""
        if self._slots or self.has_ended:
            return
        options, now = self._options, time.monotonic()
        modes = options.modes
        for index, mode in enumerate(modes):
            pace: Pace
            if options.is_flood:
                pace = Flood(now + options.offset)
            elif options.spread_by is None:
                pace = Schedule(now + options.offset, options.interval)
            else:
                place = spread(options.spread_by, index, len(modes))
                pace = Schedule(first_slot(now, options.interval, place), options.interval)
            slots = _Slots(mode, pace)
            self._slots.append(slots)
            self._plan_slot(slots, now)

    def _plan_slot(self, slots: _Slots, now: float) -> None:
        if slots.timer is not None:
            slots.timer.cancel()
        if not self._has_sent_all and not self.has_ended:
            delay = max(slots.pace.next - now, 0)
            slots.timer = self._loop.call_later(delay, self._take_slot, slots)

    @property
    def _has_sent_all(self) -> bool:
        count = self._options.count
        return count is not None and self._seq >= count

    def _take_slot(self, slots: _Slots) -> None:
        """The time of a slot has come."""
        pace = slots.pace
        skipped = pace.skipped
        pace.take(time.monotonic())
        if pace.skipped != skipped:
            self.skipped += pace.skipped - skipped
            self._observer.skipped(pace.skipped - skipped)
        try:
            self._send(slots.mode)
        except Exception as error:
            self._fail(error)
        self._plan_slot(slots, time.monotonic())
        self._check_count()

    def _send(self, mode: Mode) -> None:
        self._seq += 1
        if self._current is None:
            self._totals.unconnected += 1
            self._observer.unconnected(self._seq, mode)
        else:
            self._current.send(self._seq, mode)

    def _check_count(self) -> None:
        if self._has_sent_all and self._totals.deadline is None:
            self.has_ended = True
            self._notify()

    # Taking stock.

    def _plan_tick(self, now: float) -> None:
        # Never later than a probe's timeout: what is sent from now on has until then at least.
        at = now + min(TICK, self._options.timeout)
        for session in self._sessions():
            at = min(at, session.next_check())
        self._tick_at = max(at, now)
        self._timer = self._loop.call_later(self._tick_at - now, self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        # The time in which this process was stopped, or held up, is no silence of the target's.
        late = now - self._tick_at
        stalled = late if late > _STALLED_AFTER else 0.0
        awake = now - self._ticked_at - stalled
        self._ticked_at = now
        try:
            if stalled:
                self._exclude(stalled)
                self._extend_pause(stalled, now)
            for session, retired in list(self._retiring.items()):
                session.check(now, awake)
                if session in self._retiring and (now >= retired.until or not session.open):
                    self._close_session(session)
            if self._current is not None:
                self._check(self._current, now, awake)
            self._check_count()
        except Exception as error:
            self._fail(error)
        self._plan_tick(time.monotonic())

    def _extend_pause(self, stalled: float, now: float) -> None:
        """This process was held up until now: that is no part of its pause before an attempt."""
        began = self._attempt_began
        # An attempt that was under way before has ended the pause already.
        if self._idle_since is not None and not self._idle_since < began < self._tick_at:
            self._idle_since = min(self._idle_since + stalled, now)

    def _check(self, current: PingSession, now: float, awake: float) -> None:
        current.check(now, awake)
        if current is not self._current:
            return
        if current.unresponsive_for >= self._dead_after:
            self._suspect(ReconnectReason.UNRESPONSIVE, _silence(self._dead_after))
        elif current.unanswered_in_a_row >= _UNANSWERED:
            self._suspect(ReconnectReason.UNANSWERED, _no_answers())
        elif current.unresponsive_for >= self._suspect_after:
            self._request_session(ReconnectReason.UNRESPONSIVE, _silence(self._suspect_after))

    def _exclude(self, seconds: float) -> None:
        """This is no part of an outage."""
        self.availability.exclude(int(seconds * 1e9), time.monotonic_ns())

    # The rest.

    @property
    def _may_reconnect(self) -> bool:
        return self._options.until is not Until.SESSION_ENDED

    def _suspect(self, reason: ReconnectReason, cause: str) -> None:
        self._lost(cause)
        self._request_session(reason, cause)

    def _request_session(self, reason: ReconnectReason, cause: str) -> None:
        if self._may_reconnect:
            self._reconnect.request(reason, cause, time.monotonic())
            self._notify()

    def _lost(self, cause: str) -> None:
        if self.availability.lost(cause, time.monotonic_ns()) or self._is_connected:
            self._is_connected = False
            self._observer.down(cause)

    def _end(self, error: LinkError) -> None:
        self.has_ended = True
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Have `run` raise this."""
        self._failure = self._failure or error
        self._notify()

    def _stop(self) -> None:
        self.has_ended = True
        for slots in self._slots:
            if slots.timer is not None:
                slots.timer.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def _await_change(self) -> asyncio.Future[None]:
        """Done when there is something that ends a pause. Raises the fault of `_fail`."""
        if self._failure is not None:
            raise self._failure
        if self._changed.done():
            self._changed = self._loop.create_future()
        return self._changed

    def _notify(self) -> None:
        if not self._changed.done():
            self._changed.set_result(None)


def _silence(seconds: float) -> str:
    return f"nothing was received of it for {seconds:g} s"


def _no_answers() -> str:
    return f"{_UNANSWERED} probes in a row were not answered"
