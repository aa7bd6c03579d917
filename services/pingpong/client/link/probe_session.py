"""One session with a target: its probes, what they say of the path, and its end."""

from __future__ import annotations

import errno
import time
from collections import Counter
from typing import Protocol

from ...ping import PROTOCOL
from ...settings import ProbeSettings
from ...statistics import Outcome, Statistics, Verdict
from ...webtransport import Headers, SessionClosed
from ...webtransport.asyncio import ClientConnection, establish
from ..probe.metrics import DIRECTIONS, TargetCounts
from .advice import describe_end
from .pinger import Pinger, SendError
from .presence import IDLE_TIMEOUT, KEEP_ALIVES, Refusals

HORIZON = IDLE_TIMEOUT
"""Seconds after its timeout in which a probe can still be answered late; then it is lost.

A session of which nothing is heard lives no longer: later, there is nobody to answer.
"""
GOODBYE = 0.5
"""Seconds that a server has to hear of our end, at most."""

_NOBODY = "nothing listens on the server's port any more"
_NANOSECONDS = 1_000_000_000


class SessionOwner(Protocol):
    """Who is told, by plain calls, what a session does from the moment it is established."""

    def session_answered(self, session: ProbeSession, at_ns: int) -> None:
        """An answer arrived, in time or late or again."""

    def session_draining(self, session: ProbeSession) -> None:
        """The server wants it to be left. Probes still get through."""

    def session_refused(self, session: ProbeSession, cause: str) -> None:
        """Somebody says that the server is not there any more; it may be forged."""

    def session_ended(self, session: ProbeSession) -> None:
        """It is over, not by this side's `close`; `end_reason` and `end_cause` say how."""


class ProbeSession:
    """A session, on a connection and a socket of its own, and the probes on it in all modes.

    What becomes of the probes goes to `counts`: answers at once; losses when they are for good,
    `HORIZON` after the probe's timeout, or when the session is over.
    """

    __slots__ = (
        "_asked",
        "_astray",
        "_client",
        "_counts",
        "_first",
        "_has_answered",
        "_heard",
        "_keep_alive",
        "_owner",
        "_pinger",
        "_published",
        "_refusals",
        "_sent_at",
        "_seq",
        "end_cause",
        "end_reason",
        "is_draining",
        "silent_for",
        "unanswered",
    )

    def __init__(
        self,
        client: ClientConnection,
        settings: ProbeSettings,
        counts: TargetCounts,
        owner: SessionOwner,
    ) -> None:
        self.end_reason: str | None = None
        """Once it is over: one of `metrics.CLOSE_REASONS`."""
        self.end_cause = ""
        """Why it is over, for people."""
        self.is_draining = False
        self.silent_for = 0.0
        """Seconds that nothing at all came, not even an acknowledgement, though it was asked for.

        Only those that this process was awake in.
        """
        self.unanswered = 0
        """Probes whose timeout passed in a time in which nothing was answered."""
        self._has_answered = False
        """Whether an answer came since stock was last taken."""
        self._client = client
        self._counts = counts
        self._owner = owner
        timeout = int(settings.timeout * _NANOSECONDS)
        self._pinger = Pinger(
            settings.modes[0],
            settings.size,
            lambda is_v1: Statistics(
                timeout,
                directions=is_v1,
                horizon_ns=int(HORIZON * _NANOSECONDS),
                keep_times=False,
            ),
            flush=client.endpoint.flush,
            answer=self._answered,
            closed=self._closed,
            draining=self._draining,
        )
        self._seq = 0
        self._first = len(settings.modes)
        """Probes up to this number are the first ones, one of each mode."""
        self._sent_at = 0.0
        self._keep_alive = IDLE_TIMEOUT / KEEP_ALIVES
        """Seconds after which something is to be sent."""
        self._asked = False
        """Whether something was sent since the last packet came."""
        self._heard = 0
        """Packets that were of this connection."""
        self._astray = 0
        """Packets from the server's address that were not."""
        self._refusals = Refusals()
        self._published: Counter[str] = Counter()
        """What has gone to `counts` by now: lost by mode, by direction, and malformed by mode."""

    @property
    def address(self) -> str:
        """The IP address of the server."""
        return str(self._client.address[0])

    @property
    def open(self) -> int:
        """How many probes may still be answered, in time or late."""
        return self._pinger.statistics.open

    async def establish(self, headers: Headers, timeout: float) -> None:
        """Open the session. Raises `ConnectError`."""
        client = self._client
        await establish(
            client, self._pinger, protocols=(PROTOCOL,), headers=headers, timeout=timeout
        )
        client.socket_error = self._socket_error
        self._keep_alive = client.connection.quic.idle_timeout / KEEP_ALIVES
        self._sent_at = time.monotonic()
        self._astray = client.endpoint.engine.counters.dropped_packets
        self._heard = client.endpoint.pump.received_packets - self._astray

    def send_first(self) -> None:
        """Send a probe in each mode, beside the schedule: they warm up what is made once."""
        for mode in self._counts.modes:
            self.send(mode)

    def send(self, mode: str) -> None:
        """Send a probe, now; one that cannot be sent is counted."""
        self._seq += 1
        counts = self._counts.modes[mode]
        pump = self._client.endpoint.pump
        dropped = pump.dropped_packets
        try:
            self._pinger.send(self._seq, mode)
        except SendError:
            counts.completed["send_error"] += 1
            return
        if (
            pump.dropped_packets != dropped
            # What is on a stream is sent again.
            and mode == "datagram"
            and self._pinger.statistics.send_failed(self._seq)
        ):
            counts.completed["send_error"] += 1
            # No answer can come: to the target that is the same silence.
            self._asked = True
            return
        counts.sent += 1
        self._asked = True
        self._sent_at = time.monotonic()

    def check(self, now: float, awake: float) -> None:
        """Take stock: timeouts, silence, losses. To be called several times a second.

        `awake` is how many seconds of the time since the last call this process was awake.
        """
        statistics = self._pinger.statistics
        now_ns = int(now * _NANOSECONDS)
        deadline = statistics.deadline
        if deadline is not None and deadline <= now_ns:
            # An answer may be in the socket already: it is in time if it arrived in time.
            self._client.endpoint.catch_up()
        if self.end_reason is not None:
            return
        overdue = len(statistics.expire(now_ns))
        # Where probes are many, those lost between two answers are no row of them.
        self.unanswered = 0 if self._has_answered else self.unanswered + overdue
        self._has_answered = False
        self._pinger.note_copies()
        self._publish()
        self._listen(awake)
        if now - self._sent_at >= self._keep_alive:
            self._client.connection.quic.ping()
            self._asked = True
            self._sent_at = now

    async def close(self, reason: str) -> None:
        """Leave: the server is told, where it is likely to hear of it. Never fails."""
        is_there = self.end_reason is None and self.silent_for == 0 and not self._refusals.doubtful
        self._finish(reason, "closed by this side")
        await self._client.close(GOODBYE if is_there else 0)

    # What happens.

    def _answered(self, outcome: Outcome, size: int) -> None:
        if outcome.verdict is not Verdict.DUPLICATE:
            counts = self._counts.modes[outcome.kind]
            counts.completed[outcome.verdict.value] += 1
            if outcome.reordered:
                counts.reordered += 1
            is_first = outcome.seq <= self._first
            assert outcome.rtt_ns is not None
            (counts.first_rtt if is_first else counts.rtt).observe(outcome.rtt_ns / _NANOSECONDS)
            if outcome.server_ns is not None:
                self._counts.server_time.observe(outcome.server_ns / _NANOSECONDS)
        self._has_answered = True
        self._refusals.answered()
        self._owner.session_answered(self, self._client.connection.quic.arrival)

    def _draining(self) -> None:
        self.is_draining = True
        self._owner.session_draining(self)

    def _closed(self, closed: SessionClosed) -> None:
        connection = self._client.connection.closed
        if self.is_draining:
            reason = "drain"
        elif closed.clean:
            reason = "closed"
        elif connection is not None and connection.timed_out:
            reason = "idle"
        else:
            reason = "error"
        self._end(reason, describe_end(closed))

    def _socket_error(self, error: OSError) -> None:
        if error.errno != errno.ECONNREFUSED or self.end_reason is not None:
            return  # A network that is down may come back, and the connection with it.
        is_first = not self._refusals.doubtful
        if self._refusals.refused(time.monotonic()):
            self._end("error", _NOBODY)
        elif is_first:
            self._owner.session_refused(self, _NOBODY)

    def _end(self, reason: str, cause: str) -> None:
        if self.end_reason is None:
            self._finish(reason, cause)
            self._owner.session_ended(self)

    def _finish(self, reason: str, cause: str) -> None:
        if self.end_reason is None:
            self.end_reason = reason
            self.end_cause = cause
            self._pinger.statistics.give_up()
            self._publish(is_final=True)

    def _listen(self, awake: float) -> None:
        """Take stock of what the socket has brought."""
        endpoint = self._client.endpoint
        astray = endpoint.engine.counters.dropped_packets
        heard = endpoint.pump.received_packets - astray
        if heard != self._heard:
            self._heard = heard
            self._asked = False
            self.silent_for = 0.0
        elif self._asked:
            self.silent_for += awake
            if astray != self._astray:
                # As a stateless reset looks of a server that has forgotten its keys (RFC 9000,
                # section 10.3), or anybody's packet.
                self._owner.session_refused(self, "the server does not know the session any more")
        self._astray = astray

    # What is known for good.

    def _publish(self, is_final: bool = False) -> None:
        statistics, counts, published = self._pinger.statistics, self._counts, self._published
        for mode, count in statistics.given_up_by_kind.items():
            counts.modes[mode].completed["lost"] += self._news(f"lost {mode}", count)
        left = statistics.given_up - sum(published[direction] for direction in DIRECTIONS)
        if left > 0:
            losses = statistics.losses()
            for direction, count in (("out", losses.out), ("back", losses.back)):
                # Whatever the server says, no more are lost than were given up.
                more = self._news(direction, min(count, published[direction] + left))
                counts.lost[direction] += more
                left -= more
            # As long as more answers may come, what is unknown may come to be known.
            if is_final or not self._pinger.is_v1:
                counts.lost["unknown"] += self._news("unknown", published["unknown"] + left)
        counts.duplicates += self._news("duplicates", statistics.duplicates)
        for mode, count in self._pinger.malformed_by_mode.items():
            # An answer in a mode that isn't probed is no better than the others.
            of_mode = counts.modes.get(mode) or next(iter(counts.modes.values()))
            of_mode.completed["malformed"] += self._news(f"malformed {mode}", count)

    def _news(self, name: str, count: int) -> int:
        """How much more it is than was published, which is thereby published."""
        more = max(count - self._published[name], 0)
        if more:
            self._published[name] = count
        return more
