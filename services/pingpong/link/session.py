"""One session with a target: its probes, its liveness, and its end."""

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
"""This side's idle timeout in seconds; the server's may be shorter."""
HORIZON = IDLE_TIMEOUT
"""Seconds after its timeout in which a probe can still be answered late; then it is lost.

After the idle timeout no answer can arrive.
"""
CLOSE_TIMEOUT = 0.5
"""Seconds that a close waits for the server."""
CLOSE_REASONS = ("drain", "closed", "idle", "error")

_KEEP_ALIVES = 3
"""Minimum packets that are sent within the idle timeout."""
_GONE_AFTER = 0.5
"""Seconds for which ICMP errors must repeat before the server counts as gone."""
PORT_CLOSED = "the server stopped: its UDP port is closed"
_NANOSECONDS = 1_000_000_000


class SessionOwner(Protocol):
    """Callbacks of an established session."""

    def session_answered(self, session: PingSession, answer: Answer, at_ns: int) -> None:
        """An answer arrived: in time, late, or a duplicate."""

    def session_draining(self, session: PingSession) -> None:
        """The server drains the session. It still answers probes."""

    def session_refused(self, session: PingSession, cause: str) -> None:
        """A packet indicates that the server is gone; it may be forged."""

    def session_ended(self, session: PingSession) -> None:
        """The session ended, but not by `close`; `end_reason` and `end_cause` say how."""


class PingSession(Pinger):
    """A session, on its own connection and socket, and its probes in all modes.

    `observer` gets answers at once, and losses when they are final: `HORIZON` after the probe's
    timeout, or when the session ends. `size` is the size of a probe in bytes, `timeout` the time
    limit of an answer in seconds.
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
        """The peer; set when the session is established."""
        self.end_reason: str | None = None
        """One of `CLOSE_REASONS`; None while the session is open."""
        self.end_cause = ""
        """Why the session ended, for display."""
        self.is_draining = False
        self.unresponsive_for = 0.0
        """Seconds without any packet, even an acknowledgement, after something was sent.

        While this machine refuses to send, packets that arrive do not count.

        Time in which this process was stopped or stalled does not count.
        """
        self.unanswered_in_a_row = 0
        """Probes that timed out since the last answer."""
        self.client = client
        self.dialed_at = 0.0
        """When its attempt to connect began, in seconds of the monotonic clock."""
        self._peer_reachable = False
        """Whether the server will probably receive a close."""
        self._owner = owner
        self._observer = observer
        self._has_answered = False
        """Whether an answer arrived since the last check."""
        self._first: dict[str, int] = {}
        """The first probe of each mode."""
        self._sent_at = 0.0
        self._keep_alive = 0.0
        """Seconds after which a keep-alive is sent."""
        self._awaits_packet = False
        """Whether something was sent since the last packet arrived."""
        self._last_received = 0
        """Packets of this connection, at the last check."""
        self._last_sent = (0, 0)
        """Packets that the socket accepted, and that it refused, at the last check."""
        self._is_blocked = False
        """Whether it accepted none since it refused one."""
        self._last_stray = 0
        """Packets from the server's address that did not belong to it, at the last check."""
        self._refused_since = 0.0
        """Since when the socket reports a closed port, without a packet in between.

        Such an ICMP error can be forged, but then packets of the server still arrive.
        """
        self._received_at_refusal: int | None = None
        """Packets of this connection at that time; None if there was no error."""
        self._socket_error = ""
        """The last error of the socket, for display."""

    @property
    def open(self) -> int:
        """The number of probes that may still be answered, in time or late."""
        return self.statistics.open

    def waits_since(self, at: float) -> bool:
        """Whether a probe that was sent before `at` is not answered and not timed out."""
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
        self._last_sent = client.sent_packets, client.unsent_packets

    def send(self, seq: int, mode: Mode) -> None:
        """Send a probe now. The observer is notified of success or failure."""
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
            # QUIC retransmits stream data.
            and mode == "datagram"
            and self.statistics.send_failed(seq)
        ):
            # The datagram is lost here, not in the network.
            self._observer.not_sent(seq, mode, self._socket_error or "the network is down")
            return
        self._sent_at = time.monotonic()
        self._observer.sent(seq, mode)

    def receive_pending(self) -> None:
        """Process the packets that are in the socket."""
        if self.end_reason is None:
            self.client.receive_backlog()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is awaited from the server: no answer, and no acknowledgement."""
        return not self._awaits_packet and not self.statistics.open

    def end_quiet(self) -> None:
        """Forget the stray packets that arrived while nothing was awaited."""
        self._last_stray = self.client.stray_packets

    def next_check(self) -> float:
        """When to call `check`, at the latest, in seconds."""
        keep_alive = self._sent_at + self._keep_alive
        deadline = self.statistics.deadline
        return keep_alive if deadline is None else min(keep_alive, deadline / _NANOSECONDS)

    def check(self, now: float, awake: float) -> None:
        """Check timeouts, liveness and losses. Call it several times a second, unless `is_quiet`.

        `awake` is the time since the last call in which this process was running, in seconds.
        """
        statistics = self.statistics
        now_ns = int(now * _NANOSECONDS)
        deadline = statistics.deadline
        if deadline is not None and deadline <= now_ns:
            # An answer in the socket is in time if it arrived in time.
            self.client.receive_backlog()
        if self.end_reason is not None:
            return
        overdue = statistics.expire(now_ns)
        for seq in overdue:
            self._observer.unanswered(seq, final=False)
        # Losses between two answers are not consecutive.
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
        """End the session: probes without an answer are lost. Call `close` after it."""
        if self.end_reason is None:
            self._peer_reachable = self.unresponsive_for == 0 and not self.is_refused
            self._finish(reason, "closed by this side")

    async def close(self) -> None:
        """Close the connection, and notify the server if it is reachable. Never raises."""
        await self.client.close(CLOSE_TIMEOUT if self._peer_reachable else 0)

    # `Pinger`.

    def flush(self) -> int:
        """Send queued packets now."""
        return self.client.flush()

    def answered(self, answer: Answer, size: int, at_ns: int) -> None:
        """Report an answer."""
        is_first = answer.status is not AnswerStatus.DUPLICATE and (
            self._first.get(answer.kind) == answer.seq
        )
        self._has_answered = True
        self._owner.session_answered(self, answer, at_ns)
        self._observer.answered(answer, size, is_first)

    def malformed(self, mode: Mode) -> None:
        """Report a malformed message; it counts as an answer for liveness."""
        self._has_answered = True
        self._observer.malformed(mode)

    def duplicated(self, count: int) -> None:
        """Report duplicated packets."""
        self._observer.duplicated(count)

    def drain_received(self) -> None:
        """The server drains the session."""
        if not self.is_draining:
            self.is_draining = True
            self._owner.session_draining(self)

    def session_ended(self, closed: SessionClosed) -> None:
        """Determine the reason for the end of the session."""
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
        """The host reports a closed port. If that continues, the session ends."""
        now = time.monotonic()
        if not self.is_refused:
            self._refused_since = now
            self._received_at_refusal = self._received
            self._owner.session_refused(self, PORT_CLOSED)
        elif now - self._refused_since >= _GONE_AFTER:
            self._end("error", PORT_CLOSED)

    @property
    def is_refused(self) -> bool:
        """Whether the host reported a closed port, and no packet has arrived since."""
        return self._received_at_refusal == self._received

    @property
    def _received(self) -> int:
        """Packets of this connection so far."""
        return self.client.received_packets - self.client.stray_packets

    def _socket_failed(self, error: OSError) -> None:
        self._socket_error = (error.strerror or str(error)).lower()
        # Other errors, as when the network is down, may be temporary.
        if error.errno == errno.ECONNREFUSED and self.end_reason is None:
            self.refused()

    def _end(self, reason: str, cause: str) -> None:
        if self.end_reason is None:
            self._finish(reason, cause)
            self._owner.session_ended(self)

    def _finish(self, reason: str, cause: str) -> None:
        self.end_reason = reason
        self.end_cause = cause
        # All probes time out now.
        for seq in self.statistics.expire(time.monotonic_ns() + self._timeout_ns):
            self._observer.unanswered(seq, final=True)
        self.statistics.give_up()
        self._report_losses(is_final=True)

    def _report_losses(self, is_final: bool = False) -> None:
        report = self.statistics.report_losses(is_final=is_final)
        if report is not None:
            self._observer.lost(report)

    def _check_received(self, awake: float) -> None:
        """Update the liveness from the packets that arrived."""
        stray = self.client.stray_packets
        sent = self.client.sent_packets, self.client.unsent_packets
        if sent != self._last_sent:
            self._is_blocked = sent[0] == self._last_sent[0]
            self._last_sent = sent
        has_received = self._received != self._last_received
        self._last_received = self._received
        # A server that gets no acknowledgement repeats its last packets for a while.
        if has_received and not self._is_blocked:
            self._awaits_packet = False
            self.unresponsive_for = 0.0
        elif self._awaits_packet:
            self.unresponsive_for += awake
            if stray != self._last_stray:
                # Such a packet may be the stateless reset of a restarted server with other keys
                # (RFC 9000, section 10.3), or a forgery.
                self._owner.session_refused(self, "the server no longer has the connection")
        self._last_stray = stray


def describe_end(closed: SessionClosed) -> str:
    """Why an established session ended, for display."""
    if closed.code is None or not closed.by_peer:
        return str(closed)
    code = f" (code {closed.code})" if closed.code else ""
    reason = f": {printable(closed.reason)}" if closed.reason else ""
    return f"the server closed the session{code}{reason}"
