"""A link to one target: keeps a session open, sends probes on it, and tracks their answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..ping import DEFAULT_SIZE, Mode
from ..statistics import Answer, AnswerStatus, Summary, Totals
from ..webtransport import Address, PathStatistics
from ..webtransport.asyncio import ClientConnection, ConnectError
from .availability import Availability
from .dial import Dialer, Lookup
from .failures import Failure, LinkError
from .observer import Observer, Peer
from .reconnect import Backoff, ReconnectPolicy, ReconnectReason, ReconnectRequest
from .schedule import Flood, Pace, Schedule, first_slot, spread
from .session import HORIZON, IDLE_TIMEOUT, PORT_CLOSED, PingSession

TICK = 0.25
"""Seconds between periodic checks, at most, unless nothing is awaited from the server."""

_GRACE = 1.0
"""Seconds in which a new target may connect before its slots count."""
_SUSPECT_AFTER = 1.0
"""Seconds without packets, despite QUIC's retransmissions, after which to try another session."""
_SHORTEST_DEAD = 2.0
_LONGEST_DEAD = IDLE_TIMEOUT / 3
"""Seconds without packets after which the target is down: three intervals within these bounds."""
_UNANSWERED = 10
"""Consecutive probes without an answer after which the target is down, though packets arrive."""
_MAX_RETIRING = 4
"""Replaced sessions that stay open for late answers, at most."""
_BETWEEN_ATTEMPTS = 0.15
"""Seconds of a pause before an attempt that count as an outage: the precision of detection."""
_STALLED_AFTER = 0.1
"""Seconds that a timer is late if this process was stopped, or its event loop stalled."""


class Until(Enum):
    """When a link ends, besides its count."""

    STOPPED = "stopped"
    """Only when it is cancelled."""
    NOT_CONNECTED = "not connected"
    """If the first session cannot be opened. Later ones are retried."""
    SESSION_ENDED = "session ended"
    """Also when the first session ends."""


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """The options of a link. Times are in seconds."""

    modes: tuple[Mode, ...] = ("datagram",)
    """How probes are sent: datagram, stream, streams, uni."""
    size: int = DEFAULT_SIZE
    """Size of a probe and of its answer, in bytes."""
    interval: float = 1.0
    """Time between probes, in each mode."""
    timeout: float = 1.0
    """Time to wait for an answer. A later answer is late, not lost."""
    count: int | None = None
    """Number of probes, after which the link ends; None: no limit."""
    is_flood: bool = False
    """Send the next probe as soon as an answer arrives, in each mode, instead of at an
    interval."""
    offset: float = 0.0
    """Time from the end of the first attempt to the first slot."""
    spread_by: str | None = None
    """If set, its hash is the phase of the slots in the interval, and `offset` is ignored."""
    warms_up: bool = False
    """Whether each session begins with an extra probe in each mode."""
    until: Until = Until.STOPPED
    backoff: tuple[float, float] = (0.1, 10.0)
    """The bounds of the backoff between attempts: after the first failure, and the maximum."""
    lookup_interval: float | None = None
    """Time between lookups that check whether the target still has the address in use."""


class State(Enum):
    """The state of a target."""

    CONNECTING = "connecting"
    """Never connected."""
    UP = "up"
    DOWN = "down"
    """Connected before; reconnecting."""
    ENDED = "ended"
    """Stopped."""


@dataclass(eq=False, slots=True)
class _Slots:
    """The schedule of probes in one mode."""

    mode: Mode
    pace: Pace
    timer: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class _Retired:
    """A replaced session: when to close it at the latest, and why it was replaced."""

    until: float
    reason: ReconnectReason


class Link:
    """Probes one target while `run` runs. Await `close` after that.

    `name` is the target's name for display, `lookup` resolves it. `observer` gets all events, as
    plain calls in the same turn of the event loop.
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
        """The current or last peer."""
        self.connections = 0
        """Sessions that were used for probes."""
        self.skipped = 0
        """Slots without a probe, because this process was stopped or stalled."""
        self.has_ended = False
        """Whether the link has ended."""
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
        """The session for new probes."""
        self._retiring: dict[PingSession, _Retired] = {}
        """Replaced sessions, the oldest first."""
        self._latest_addresses: Sequence[Address] = ()
        """The addresses of the name, if they were updated since the last attempt began."""
        self._is_connected = False
        """Whether the observer was told that the target is connected."""
        self._path_before: PathStatistics | None = None
        """The path of the last session that ended, and lost packets of all that ended."""
        self._idle_since: float | None = None
        """When the last session ended or attempt failed, if there is no session since."""
        self._attempt_began = now
        self._connect_failure = ""
        """The error of the last attempt, for display; empty when the target is up."""
        self._slots: list[_Slots] = []
        self._seq = 0
        self._awake_at = now
        """When this process was last seen running: at a check, or at the end of a quiet time."""
        self._tick_at = now
        self._is_quiet = False
        """Whether the next check is only that of the keep-alive: a thousand targets that are pinged
        once a minute cost little."""
        self._timer: asyncio.TimerHandle | None = None
        self._changed: asyncio.Future[None] = self._loop.create_future()
        self._failure: BaseException | None = None
        self._background: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Keep a session and send probes, until `count` is reached or it is cancelled.

        Raises `LinkError` as `until` says, and unexpected exceptions of callbacks.
        """
        grace = None
        if self._options.until is Until.STOPPED:
            grace = self._loop.call_later(_GRACE, self._start_slots)
        looking = None
        if self._options.lookup_interval is not None:
            looking = self._loop.create_task(self._follow_name(self._options.lookup_interval))
        self._awake_at = time.monotonic()
        self._plan_tick(self._awake_at)
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
        """Close all sessions, in at most `session.CLOSE_TIMEOUT` seconds."""
        self._stop()
        for session in self._sessions():
            self._close_session(session)
        # Shielded: if this is cancelled, all sessions are closed all the same.
        await asyncio.gather(*map(asyncio.shield, self._background), return_exceptions=True)

    def addresses_changed(self, addresses: Sequence[Address]) -> None:
        """The name resolves to exactly these addresses now.

        If the address in use is not among them, another session is opened, and then the old one is
        closed.
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
                f"the name no longer resolves to {current.peer.address}",
            )
        elif self._has_requested(ReconnectReason.ADDRESS_CHANGED):
            self._reconnect.satisfied(time.monotonic())
            self._notify()

    def connect_now(self) -> None:
        """Make the next attempt now: something has changed."""
        self._reconnect.retry_now(time.monotonic())
        self._notify()

    def receive_pending(self) -> None:
        """Process the packets that are in the sockets."""
        for session in self._sessions():
            session.receive_pending()

    # State.

    @property
    def state(self) -> State:
        """The state of the target; `reason` says why it is not up."""
        if self.has_ended:
            return State.ENDED
        if self.availability.is_up or (self._current is not None and not self.availability.was_up):
            return State.UP
        return State.DOWN if self.connections else State.CONNECTING

    @property
    def reason(self) -> str:
        """Why the target is down, for display; empty if it is up."""
        if self.availability.is_up:
            return ""
        if not self._connect_failure or self._connect_failure == self.availability.cause:
            return self.availability.cause
        return f"{self.availability.cause}; {self._connect_failure}"

    def summary(self, now_ns: int) -> Summary:
        """The counts of all probes so far, without times."""
        return self._totals.summary(now_ns)

    def path_statistics(self) -> PathStatistics | None:
        """QUIC's statistics of the path: of the current or last session; lost packets of all."""
        path = self._path_before
        for session in self._sessions():
            path = _joined(path, session.path_statistics)
        return path

    def _sessions(self) -> list[PingSession]:
        return [*self._retiring, *([] if self._current is None else [self._current])]

    # Connecting.

    async def _attempt(self) -> None:
        """Try to open a session, until it is no longer needed."""
        avoid = None if self._current is None else self._current.client.address
        self._attempt_began = time.monotonic()
        # The attempt does its own lookup.
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
        """End an attempt that is no longer needed. It may have ended in the same turn."""
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
            # ICMP errors are rate-limited, so one for another of our sockets counts too.
            current.refused()
        self._observer.connect_failed(error)
        if not self.connections and self._options.until is not Until.STOPPED:
            self._end(error)

    def _use(self, session: PingSession) -> None:
        """Use this session for probes from now on."""
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
        # From here on `close` closes both, also if the observer raises.
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
        # The addresses may have changed during the attempt.
        self._check_address()
        if self._options.warms_up:
            for mode in self._options.modes:
                self._send(mode)

    def _why_lost(
        self, old: PingSession, pending: ReconnectRequest, dialed_at: float
    ) -> str | None:
        """Why the target was down on a session that is replaced; None if it was not.

        It does not wait for late answers on the old session.
        """
        if old.waits_since(dialed_at):
            if pending.reason is ReconnectReason.REFUSED:
                return pending.cause
            if old.is_refused:
                return PORT_CLOSED
        if not old.open:
            return None
        if pending.reason in (ReconnectReason.UNRESPONSIVE, ReconnectReason.UNANSWERED):
            return pending.cause
        # Also if it is replaced for another reason, such as a drain.
        if old.unresponsive_for >= self._suspect_after:
            return _silence(self._suspect_after)
        return _no_answers() if old.unanswered_in_a_row >= _UNANSWERED else None

    def _retire(self, session: PingSession, reason: ReconnectReason) -> None:
        """Wait for late answers on a session, and send no more probes on it."""
        is_well = session.is_draining or reason is ReconnectReason.ADDRESS_CHANGED
        follow = self._options.timeout + (0 if is_well else HORIZON)
        self._retiring[session] = _Retired(time.monotonic() + follow, reason)
        self._end_quiet(time.monotonic())
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
        self._path_before = _joined(self._path_before, session.path_statistics)
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
                continue  # The addresses found before stay valid.
            except Exception as error:
                self._fail(error)
                return
            self.addresses_changed([address for _, address in found.addresses])

    # `session.SessionOwner`.

    def session_answered(self, session: PingSession, answer: Answer, at_ns: int) -> None:
        """An answer arrived: the target is up, and a suspicion about its session is refuted."""
        if self._current is None:
            # On a replaced session: it does not show that another session can be opened.
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
        """The server drains the session: open another one before it is closed."""
        if session is self._current and self._may_reconnect:
            self._observer.draining()
            self._request_session(ReconnectReason.DRAIN, "the server is draining the session")

    def session_refused(self, session: PingSession, cause: str) -> None:
        """A packet says that the server is gone. It may be forged, so try another session."""
        if session is self._current:
            self._request_session(ReconnectReason.REFUSED, cause)

    def session_ended(self, session: PingSession) -> None:
        """A session ended. If it was the current one, the target is down."""
        if session is self._current:
            self._idle_since = time.monotonic()
            self._lost(session.end_cause)
            if self._may_reconnect:
                self._request_session(ReconnectReason.ENDED, session.end_cause)
            else:
                self._end(LinkError("refused", session.end_cause))
        elif session not in self._retiring:
            return  # Not in use yet: `_use` handles it.
        self._close_session(session)

    # Slots.

    def _start_slots(self) -> None:
        """Start the schedules after the first attempt; slots without a session count as well."""
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
        """Send the probe of a slot."""
        pace, now = slots.pace, time.monotonic()
        if self._exclude_stall(pace.next, now):
            self._awake_at = now
        if self._is_quiet:
            self._end_quiet(now)
        skipped = pace.skipped
        pace.take(now)
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

    # Periodic checks.

    def _plan_tick(self, now: float) -> None:
        current = self._current
        self._is_quiet = current is not None and current.is_quiet and not self._retiring
        if current is not None and self._is_quiet:
            at = current.next_check()
        else:
            # At least once per timeout, for probes that are sent from now on.
            at = now + min(TICK, self._options.timeout)
            for session in self._sessions():
                at = min(at, session.next_check())
        self._tick_at = max(at, now)
        self._timer = self._loop.call_later(self._tick_at - now, self._tick)

    def _end_quiet(self, now: float) -> None:
        """Check several times a second from now on."""
        if self._is_quiet and self._timer is not None and not self.has_ended:
            self._is_quiet = False
            # What ends it may come before the probe that was due first.
            due = min([self._tick_at, *(one.pace.next for one in self._slots)])
            self._exclude_stall(due, now)
            self._awake_at = now
            if self._current is not None:
                self._current.end_quiet()
            self._timer.cancel()
            self._tick_at = now + min(TICK, self._options.timeout)
            self._timer = self._loop.call_later(self._tick_at - now, self._tick)

    def _exclude_stall(self, due: float, now: float) -> float:
        """Exclude the time in which this process was stopped or stalled, if what was due at `due`
        runs now. Returns it, in seconds."""
        late = now - due
        if late <= _STALLED_AFTER:
            return 0.0
        stalled = min(late, now - self._awake_at)
        self._exclude(stalled)
        self._extend_pause(stalled, due, now)
        return stalled

    def _tick(self) -> None:
        now = time.monotonic()
        self._is_quiet = False  # the next check is planned below, and only there
        try:
            stalled = self._exclude_stall(self._tick_at, now)
            awake = now - self._awake_at - stalled
            self._awake_at = now
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

    def _extend_pause(self, stalled: float, due: float, now: float) -> None:
        """Exclude a stall from the pause before an attempt."""
        began = self._attempt_began
        # If an attempt was running, the pause had ended before.
        if self._idle_since is not None and not self._idle_since < began < due:
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
        """Exclude the last `seconds` from an outage."""
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
        """Make `run` raise this error."""
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
        """A future that is done when something changes. Raises the error of `_fail`."""
        if self._failure is not None:
            raise self._failure
        if self._changed.done():
            self._changed = self._loop.create_future()
        return self._changed

    def _notify(self) -> None:
        self._end_quiet(time.monotonic())
        if not self._changed.done():
            self._changed.set_result(None)


def _joined(before: PathStatistics | None, path: PathStatistics | None) -> PathStatistics | None:
    """The later one, with the lost packets of both."""
    if before is None or path is None:
        return path or before
    return path._replace(lost_packets=before.lost_packets + path.lost_packets)


def _silence(seconds: float) -> str:
    return f"no packets received for {seconds:g} s"


def _no_answers() -> str:
    return f"no answer to {_UNANSWERED} consecutive probes"
