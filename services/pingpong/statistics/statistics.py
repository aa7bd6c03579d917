"""Tracks the probes of a session: answered, late, lost, and where they were lost.

A probe that was sent ends in one of these states:

- *answered in time*: its answer arrived within the timeout, by the packet's arrival time;
- *late*: its answer arrived after the timeout but within the horizon. Late is not lost;
- *lost*: no answer arrived. After the timeout a probe counts as lost, until a late answer. After
  the horizon the loss is final, and the probe is forgotten: it is *given up*.

A probe that could not be sent is a send error, and not counted as sent.

If the server counts the pings that it received, a loss has a direction. The server's highest count,
less the answers received, is the number of answers lost on the way back; the other missing answers
up to the last answered probe were lost on the way out. While probes are waiting, only losses that
the counts prove have a direction. The rest is unknown, as are losses after the last answer.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from itertools import chain

from .records import Answer, AnswerStatus, Losses, LossReport, Summary

_U32 = 0xFFFF_FFFF
_HALF = 0x8000_0000

HORIZON_NS = 60_000_000_000
"""The default time after its timeout in which a probe can be answered late."""

CAPACITY = 65_536
"""The default maximum of remembered probes."""


class _State(Enum):
    WAITING = 1
    OVERDUE = 2
    ANSWERED = 3
    FAILED = 4


class _Probe:
    __slots__ = ("kind", "ordinal", "received", "seq", "state", "t1")

    def __init__(self, seq: int, kind: str, ordinal: int, t1: int) -> None:
        self.seq = seq
        self.kind = kind
        # Its position among the probes that were sent, from 1.
        self.ordinal = ordinal
        self.t1 = t1
        self.state = _State.WAITING
        # The server's count in the last answer.
        self.received: int | None = None


class Statistics:
    """Tracks the probes of one session.

    Times are in nanoseconds of the caller's clock. `seq` may be any number, but is compared modulo
    2^32, as on the wire. One object per session, because the server counts per session.
    `directions` is for servers that count (`pingpong.v1`). Probes may have several kinds:
    reordering is detected within a kind, but the server counts all kinds together.

    At most `capacity` probes are remembered, for at most `horizon_ns` after their timeout. Call
    `expire` at least as often as probes time out.
    """

    __slots__ = (
        "_answered",
        "_capacity",
        "_directions",
        "_dropped",
        "_duplicates",
        "_expired",
        "_extra",
        "_first_t1",
        "_given_up",
        "_highest",
        "_highest_of",
        "_horizon",
        "_late",
        "_probes",
        "_received",
        "_reordered",
        "_reported_back",
        "_reported_out",
        "_send_errors",
        "_sent",
        "_timeout",
        "_undirected",
        "_unknown",
        "_unreported",
        "_waiting",
    )

    def __init__(
        self,
        timeout_ns: int,
        *,
        directions: bool = True,
        horizon_ns: int = HORIZON_NS,
        capacity: int = CAPACITY,
    ) -> None:
        self._timeout = timeout_ns
        self._directions = directions
        self._horizon = horizon_ns
        self._capacity = capacity
        # Each remembered probe is in `_probes`, and in one of two queues, in order of sending:
        # `_waiting` from the first probe that is waiting, `_expired` before it. Queues, because
        # finding the oldest key of a dict skips all deleted ones. Probes that failed are removed
        # from the dict, but stay in their queue until they reach its head.
        self._probes: dict[int, _Probe] = {}
        self._waiting: deque[_Probe] = deque()
        self._expired: deque[_Probe] = deque()
        # Dropped before their timeout; the next `expire` returns them.
        self._dropped: list[int] = []
        self._first_t1: int | None = None
        self._sent = 0
        self._answered = 0
        self._late = 0
        self._given_up = 0
        # Of the final losses: those that `report_losses` has not reported, by kind; those whose
        # direction it has not reported; and the reported ones of each direction.
        self._unreported: dict[str, int] = {}
        self._undirected = 0
        self._reported_out = 0
        self._reported_back = 0
        self._duplicates = 0
        self._reordered = 0
        self._send_errors = 0
        self._unknown = 0
        # The highest answered ordinal, of all and by kind; the server's highest count (not modulo
        # 2^32), and how many of those were duplicates of a ping.
        self._highest = 0
        self._highest_of: dict[str, int] = {}
        self._received = 0
        self._extra = 0

    @property
    def open(self) -> int:
        """The number of probes that may still be answered, in time or late."""
        return self._sent - self._answered - self._given_up

    @property
    def deadline(self) -> int | None:
        """When the next probe times out; None if none is waiting."""
        waiting = self._waiting
        while waiting and waiting[0].state is not _State.WAITING:
            self._expired.append(waiting.popleft())
        return waiting[0].t1 + self._timeout if waiting else None

    def sent(self, seq: int, t1_ns: int, kind: str = "") -> None:
        """Record that a probe is sent. Call it in order of sending.

        Raises `ValueError` if a probe of this number is remembered.
        """
        key = seq & _U32
        if key in self._probes:
            raise ValueError(f"a probe with sequence number {seq} is still remembered")
        self._sent += 1
        if self._first_t1 is None:
            self._first_t1 = t1_ns
        probe = self._probes[key] = _Probe(seq, kind, self._sent, t1_ns)
        self._waiting.append(probe)
        if len(self._waiting) + len(self._expired) > self._capacity:
            oldest = (self._expired or self._waiting).popleft()
            if oldest.state is _State.WAITING:
                oldest.state = _State.OVERDUE
                self._dropped.append(oldest.seq)
            self._forget(oldest)

    def departed(self, seq: int, t1_ns: int) -> None:
        """Correct a probe's send time, once it is known."""
        probe = self._probes.get(seq & _U32)
        if probe is not None:
            probe.t1 = t1_ns

    def send_failed(self, seq: int) -> bool:
        """Record that a probe was not sent after all. Its number may be used again.

        Returns False, and does nothing, if the probe is unknown or was answered.
        """
        probe = self._probes.get(seq & _U32)
        if probe is None or probe.state is _State.ANSWERED:
            return False
        del self._probes[seq & _U32]
        probe.state = _State.FAILED
        # Keep ordinals without gaps. Usually the last probe fails, and no other changes.
        for later in chain(reversed(self._waiting), reversed(self._expired)):
            if later is probe:
                break
            later.ordinal -= 1
        if probe.ordinal < self._highest:
            self._highest -= 1
        for kind, highest in self._highest_of.items():
            if probe.ordinal < highest:
                self._highest_of[kind] = highest - 1
        self._sent -= 1
        self._send_errors += 1
        while self._waiting and self._waiting[-1].state is _State.FAILED:
            self._waiting.pop()
        return True

    def duplicated(self, count: int) -> None:
        """Count packets that the network duplicated. QUIC discards them."""
        self._duplicates += count

    def answered(
        self,
        seq: int,
        t4_ns: int,
        server_ns: int | None = None,
        received: int | None = None,
    ) -> Answer:
        """Record an answer that arrived at `t4_ns`, and return it with its status.

        `server_ns` is t3 − t2, the server's processing time, and `received` its count of pings
        modulo 2^32, if it reports them.
        """
        probe = self._probes.get(seq & _U32)
        if probe is None:
            self._unknown += 1
            return Answer(seq, AnswerStatus.UNKNOWN, False, None, None)
        # Clocks differ (the kernel's, this program's, the server's), and the peer may report
        # anything. So clamp: no answer arrives before its probe was sent, and the server's time is
        # at most the elapsed time.
        elapsed = max(t4_ns - probe.t1, 0)
        rtt = elapsed
        if server_ns is not None:
            server_ns = min(max(server_ns, 0), elapsed)
            rtt -= server_ns
        if received is not None:
            # The distance from the highest count so far, at most 2^31 either way.
            self._received += max(((received - self._received + _HALF) & _U32) - _HALF, 0)
        if probe.state is _State.ANSWERED:
            self._duplicates += 1
            if received != probe.received:
                # The server answered twice: the ping was duplicated on the way out.
                self._extra += 1
                probe.received = received
            return Answer(probe.seq, AnswerStatus.DUPLICATE, False, rtt, server_ns, probe.kind)
        probe.state = _State.ANSWERED
        probe.received = received
        self._answered += 1
        self._highest = max(self._highest, probe.ordinal)
        reordered = probe.ordinal < self._highest_of.get(probe.kind, 0)
        if reordered:
            self._reordered += 1
        else:
            self._highest_of[probe.kind] = probe.ordinal
        if elapsed < self._timeout:
            return Answer(probe.seq, AnswerStatus.OK, reordered, rtt, server_ns, probe.kind)
        self._late += 1
        return Answer(probe.seq, AnswerStatus.LATE, reordered, rtt, server_ns, probe.kind)

    def expire(self, now_ns: int) -> list[int]:
        """Return the probes that timed out since the last call.

        They may still be answered late, until the horizon. Then they are forgotten.
        """
        lost, self._dropped = self._dropped, []
        waiting, expired = self._waiting, self._expired
        limit = now_ns - self._timeout
        while waiting:
            probe = waiting[0]
            if probe.state is _State.WAITING:
                if probe.t1 > limit:
                    break
                probe.state = _State.OVERDUE
                lost.append(probe.seq)
            expired.append(waiting.popleft())
        limit -= self._horizon
        while expired and expired[0].t1 <= limit:
            self._forget(expired.popleft())
        return lost

    def give_up(self) -> None:
        """The session ended: all probes without an answer are lost now."""
        for probe in chain(self._expired, self._waiting):
            if probe.state is _State.WAITING:
                probe.state = _State.OVERDUE
            self._forget(probe)
        self._expired.clear()
        self._waiting.clear()

    def losses(self) -> Losses:
        """The final losses by direction.

        Only what is proven, whether or not other probes are still answered: a direction is never
        overstated, but may be understated for a while.
        """
        before = 0
        if self.open:
            before = sum(
                probe.state is not _State.ANSWERED and probe.ordinal < self._highest
                for probe in self._probes.values()
            )
        out, back = self._lost_by_direction(before)
        return Losses(out, back, max(self._given_up - out - back, 0))

    def report_losses(self, *, is_final: bool = False) -> LossReport | None:
        """The final losses, and their directions, that are new since the last call; None if none.

        A direction is reported once it is proven. A loss is reported as unknown when the session
        has ended (`is_final`), since more answers could prove its direction, or if the server does
        not count.
        """
        by_kind, self._unreported = self._unreported, {}
        self._undirected += sum(by_kind.values())
        if not self._undirected:
            return None
        losses = self.losses()
        # The server's count is not trusted: not more than the final losses.
        out = min(max(losses.out - self._reported_out, 0), self._undirected)
        back = min(max(losses.back - self._reported_back, 0), self._undirected - out)
        self._reported_out += out
        self._reported_back += back
        self._undirected -= out + back
        unknown = self._undirected if is_final or not self._directions else 0
        self._undirected -= unknown
        return (
            LossReport(by_kind, out, back, unknown) if by_kind or out or back or unknown else None
        )

    def summary(self, now_ns: int) -> Summary:
        """The counts at `now_ns`. Probes that have timed out are lost, even before `expire`."""
        limit = now_ns - self._timeout
        waited_for = [
            probe.ordinal
            for probe in self._waiting
            if probe.state is _State.WAITING and probe.t1 > limit
        ]
        waiting = len(waited_for)
        lost = self._sent - self._answered - waiting
        out, back = self._lost_by_direction(sum(n < self._highest for n in waited_for))
        return Summary(
            sent=self._sent,
            received=self._answered,
            late=self._late,
            lost=lost,
            lost_out=out if self._directions else None,
            lost_back=back if self._directions else None,
            lost_unknown=lost - out - back,
            waiting=waiting,
            duplicates=self._duplicates,
            reordered=self._reordered,
            send_errors=self._send_errors,
            unknown=self._unknown,
            elapsed_ns=max(now_ns - self._first_t1, 0) if self._first_t1 is not None else 0,
        )

    def _lost_by_direction(self, waiting: int) -> tuple[int, int]:
        """The proven losses on the way out and on the way back.

        `waiting` is the number of waiting probes that were sent before an answered one.
        """
        if not self._directions:
            return 0, 0
        missing = self._highest - self._answered
        # Clamped, because the count is not trusted, the answer to a duplicate may be lost, and the
        # server may have counted a ping after the last answered one.
        missing_back = min(max(self._received - self._extra - self._answered, 0), missing)
        # Each waiting probe may be among the missing ones of either direction.
        out = max(missing - missing_back - waiting, 0)
        back = max(missing_back - waiting, 0)
        return out, back

    def _forget(self, probe: _Probe) -> None:
        if probe.state is _State.FAILED:
            return
        if probe.state is _State.OVERDUE:
            self._given_up += 1
            self._unreported[probe.kind] = self._unreported.get(probe.kind, 0) + 1
        del self._probes[probe.seq & _U32]
