"""One session with a target: its probes, what they say of the path, and its end."""

from __future__ import annotations

import errno
import time
from typing import Protocol

from ..ping import PROTOCOL, Mode
from ..statistics import Answer, AnswerStatus
from ..webtransport import Headers, SessionClosed, printable
from ..webtransport.asyncio import ClientConnection, establish
from .failures import not_after
from .observer import ConnectTimes, Observer, Peer
from .pinger import Pinger, SendError

IDLE_TIMEOUT = 15.0
"""Seconds that this side waits for any word of the server; its own timeout may be shorter."""
HORIZON = IDLE_TIMEOUT
"""Seconds after its timeout in which a probe can still be answered late; then it is lost.

A session of which nothing is received lives no longer: later, no answer can come.
"""
CLOSE_TIMEOUT = 0.5
"""Seconds that a close waits for the server, at most."""
CLOSE_REASONS = ("drain", "closed", "idle", "error")

_KEEP_ALIVES = 3
"""Packets that the server is sent in the time after which either side gives up, at least."""
_GONE_AFTER = 0.5
"""Seconds through which a "connection refused" must come back before it is believed."""
NOTHING_LISTENS = "the server is gone: nothing listens on its port any more"
_NANOSECONDS = 1_000_000_000


class SessionOwner(Protocol):
    """Called with what a session does from the moment it is established."""

    def session_answered(self, session: PingSession, answer: Answer, at_ns: int) -> None:
        """An answer arrived, in time or late or again."""

    def session_draining(self, session: PingSession) -> None:
        """The server wants it to be left. Probes still get through."""

    def session_refused(self, session: PingSession, cause: str) -> None:
        """A packet says that the server is not there any more; it may be forged."""

    def session_ended(self, session: PingSession) -> None:
        """It is over, not by this side's `close`; `end_reason` and `end_cause` say how."""


class PingSession(Pinger):
    """A session, on a connection and a socket of its own, and the probes on it in all modes.

    What becomes of the probes goes to `observer`: answers at once; losses when they are for good,
    `HORIZON` after the probe's timeout, or when the session is over. Probes have `size` bytes, and
    `timeout` seconds to be answered in time.
    """

    def __init__(
        self,
        client: ClientConnection,
        size: int,
        timeout: float,
        owner: SessionOwner,
        observer: Observer,
    ) -> None:
        self._timeout_ns = int(timeout * _NANOSECONDS)
        super().__init__(size, self._timeout_ns, int(HORIZON * _NANOSECONDS))
        self.peer: Peer
        """Who answers; there once it is established."""
        self.end_reason: str | None = None
        """Once it is over: one of `CLOSE_REASONS`."""
        self.end_cause = ""
        """Why it is over, for people."""
        self.is_draining = False
        self.unresponsive_for = 0.0
        """Seconds that nothing at all came, not even an acknowledgement, though it was asked for.

        Only those that this process was awake in.
        """
        self.unanswered_in_a_row = 0
        """Probes whose timeout passed in a time in which nothing was answered."""
        self.client = client
        self.dialed_at = 0.0
        """When the attempt began that made it, in seconds of the monotonic clock."""
        self._peer_reachable = False
        """Whether the server is likely to hear of this side's close."""
        self._owner = owner
        self._observer = observer
        self._has_answered = False
        """Whether an answer came since stock was last taken."""
        self._first: dict[str, int] = {}
        """The first probe of each mode."""
        self._sent_at = 0.0
        self._keep_alive = 0.0
        """Seconds after which something is to be sent."""
        self._awaits_packet = False
        """Whether something was sent since the last packet came."""
        self._last_received = 0
        """Packets that were of this connection, when stock was last taken."""
        self._last_stray = 0
        """Packets from the server's address that were not."""
        self._refused_since = 0.0
        """Since when the socket says that nothing listens, without a packet in between.

        That can be forged, but then the server answers, and nothing is sent again.
        """
        self._received_at_refusal: int | None = None
        """Packets that were of this connection by then; None while nothing was refused."""
        self._socket_error = ""
        """The last one, for people."""

    @property
    def open(self) -> int:
        """How many probes may still be answered, in time or late."""
        return self.statistics.open

    def waits_since(self, at: float) -> bool:
        """Whether a probe that was sent before then is waited for."""
        deadline = self.statistics.deadline
        return deadline is not None and deadline - self._timeout_ns <= at * _NANOSECONDS

    async def establish(self, headers: Headers, timeout: float) -> None:
        """Open the session. Raises `ConnectError`."""
        client = self.client
        session = await establish(
            client, self, protocols=(PROTOCOL,), headers=headers, timeout=timeout
        )
        timings = client.timings
        self.peer = Peer(
            str(client.address[0]),
            session.protocol,
            str(session.draft),
            ConnectTimes(timings.resolve, timings.handshake, timings.session),
            not_after(client.peer_certificate),
        )
        client.socket_error = self._socket_failed
        self._keep_alive = client.idle_timeout / _KEEP_ALIVES
        self._sent_at = time.monotonic()
        self._last_stray = client.stray_packets
        self._last_received = self._received

    def send(self, seq: int, mode: Mode) -> None:
        """Send a probe, now; the observer hears whether it could be sent."""
        unsent = self.client.unsent_packets
        if mode not in self._first:
            self._first[mode] = seq
        try:
            self.ping(seq, mode)
        except SendError as error:
            self._observer.not_sent(seq, mode, str(error))
            return
        self._awaits_packet = True
        if (
            self.client.unsent_packets != unsent
            # What is on a stream is sent again.
            and mode == "datagram"
            and self.statistics.send_failed(seq)
        ):
            # No answer can come: to the target that is the same silence.
            self._observer.not_sent(seq, mode, self._socket_error or "the network is down")
            return
        self._sent_at = time.monotonic()
        self._observer.sent(seq, mode)

    def receive_pending(self) -> None:
        """Take in what is in the socket already: it has arrived, whatever was quicker."""
        if self.end_reason is None:
            self.client.catch_up()

    def next_check(self) -> float:
        """When `check` has something to do, at the latest."""
        keep_alive = self._sent_at + self._keep_alive
        deadline = self.statistics.deadline
        return keep_alive if deadline is None else min(keep_alive, deadline / _NANOSECONDS)

    def check(self, now: float, awake: float) -> None:
        """Take stock: timeouts, silence, losses. To be called several times a second.

        `awake` is how many seconds of the time since the last call this process was awake.
        """
        statistics = self.statistics
        now_ns = int(now * _NANOSECONDS)
        deadline = statistics.deadline
        if deadline is not None and deadline <= now_ns:
            # An answer may be in the socket already: it is in time if it arrived in time.
            self.client.catch_up()
        if self.end_reason is not None:
            return
        overdue = statistics.expire(now_ns)
        for seq in overdue:
            self._observer.unanswered(seq, final=False)
        # Where probes are many, those lost between two answers are no row of them.
        self.unanswered_in_a_row = (
            0 if self._has_answered else self.unanswered_in_a_row + len(overdue)
        )
        self._has_answered = False
        self.count_duplicates()
        self._report_losses()
        self._check_received(awake)
        if now - self._sent_at >= self._keep_alive:
            self.client.ping()
            self._awaits_packet = True
            self._sent_at = now

    def finish(self, reason: str) -> None:
        """Expect nothing more: what was not answered is lost. `close` is to follow."""
        if self.end_reason is None:
            self._peer_reachable = self.unresponsive_for == 0 and not self.is_refused
            self._finish(reason, "closed by this side")

    async def close(self) -> None:
        """Tell the server, where it is likely to hear of it, and give up the socket. Never fails."""
        await self.client.close(CLOSE_TIMEOUT if self._peer_reachable else 0)

    # What happens.

    def flush(self) -> int:
        """Send what waits, now."""
        return self.client.flush()

    def answered(self, answer: Answer, size: int, at_ns: int) -> None:
        """An answer arrived."""
        is_first = answer.status is not AnswerStatus.DUPLICATE and (
            self._first.get(answer.kind) == answer.seq
        )
        self._has_answered = True
        self._owner.session_answered(self, answer, at_ns)
        self._observer.answered(answer, size, is_first)

    def malformed(self, mode: Mode) -> None:
        """Something came that is no answer; another session would bring the same."""
        self._has_answered = True
        self._observer.malformed(mode)

    def duplicated(self, count: int) -> None:
        """The network delivered packets again."""
        self._observer.duplicated(count)

    def drain_received(self) -> None:
        """The server wants it to be left."""
        if not self.is_draining:
            self.is_draining = True
            self._owner.session_draining(self)

    def over(self, closed: SessionClosed) -> None:
        """Note how the session ended, once it was established."""
        connection = self.client.connection.closed
        if self.is_draining:
            reason = "drain"
        elif closed.clean:
            reason = "closed"
        elif connection is not None and connection.timed_out:
            reason = "idle"
        else:
            reason = "error"
        self._end(reason, describe_end(closed))

    def refused(self) -> None:
        """A host says that nothing listens: believed where it goes on for long enough."""
        now = time.monotonic()
        if not self.is_refused:
            self._refused_since = now
            self._received_at_refusal = self._received
            self._owner.session_refused(self, NOTHING_LISTENS)
        elif now - self._refused_since >= _GONE_AFTER:
            self._end("error", NOTHING_LISTENS)

    @property
    def is_refused(self) -> bool:
        """Whether the host said that nothing listens, and nothing has come since."""
        return self._received_at_refusal == self._received

    @property
    def _received(self) -> int:
        """Packets that were of this connection, by now."""
        return self.client.received_packets - self.client.stray_packets

    def _socket_failed(self, error: OSError) -> None:
        self._socket_error = (error.strerror or str(error)).lower()
        # A network that is down may come back, and the connection with it.
        if error.errno == errno.ECONNREFUSED and self.end_reason is None:
            self.refused()

    def _end(self, reason: str, cause: str) -> None:
        if self.end_reason is None:
            self._finish(reason, cause)
            self._owner.session_ended(self)

    def _finish(self, reason: str, cause: str) -> None:
        self.end_reason = reason
        self.end_cause = cause
        # As if all timeouts had passed by now.
        for seq in self.statistics.expire(time.monotonic_ns() + self._timeout_ns):
            self._observer.unanswered(seq, final=True)
        self.statistics.give_up()
        self._report_losses(is_final=True)

    def _report_losses(self, is_final: bool = False) -> None:
        report = self.statistics.report_losses(is_final=is_final)
        if report is not None:
            self._observer.lost(report)

    def _check_received(self, awake: float) -> None:
        """Take stock of what the socket has brought."""
        stray = self.client.stray_packets
        received = self._received
        if received != self._last_received:
            self._last_received = received
            self._awaits_packet = False
            self.unresponsive_for = 0.0
        elif self._awaits_packet:
            self.unresponsive_for += awake
            if stray != self._last_stray:
                # As a stateless reset looks of a server that has forgotten its keys (RFC 9000,
                # section 10.3), or anybody's packet.
                self._owner.session_refused(self, "the server does not know the session any more")
        self._last_stray = stray


def describe_end(closed: SessionClosed) -> str:
    """Why a session that was established is over."""
    if closed.code is None or not closed.by_peer:
        return str(closed)
    code = f" (code {closed.code})" if closed.code else ""
    reason = f": {printable(closed.reason)}" if closed.reason else ""
    return f"the server closed the session{code}{reason}"
