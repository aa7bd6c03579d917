"""What became of every probe, and how long the answers took.

A probe that was sent ends as one of these:

- *answered in time*: its answer came within the timeout, by the packet's time of arrival, even
  where the client looked at it only later;
- *late*: its answer came after the timeout but within the horizon. Late is not lost;
- *lost*: no answer came. After the timeout it counts as lost, until a late answer takes that
  back; after the horizon it is forgotten and stays lost: it is *given up*.

A probe that could not be sent is a send error, and not among those sent.

Loss has a direction where the server counts the pings that it received. Its highest count, less
the answers that came, is how many answers went missing on the way back; whatever else is missing
below the last answered probe went missing on the way out. As long as missing answers may belong
to probes that are still waited for, only what the counts prove is given a direction, and the rest
is unknown; so is what was lost after the last answer, about which nothing is known.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from itertools import chain

from .records import Answer, AnswerStatus, Losses, LossReport, Summary

_U32 = 0xFFFF_FFFF
_HALF = 0x8000_0000

HORIZON_NS = 60_000_000_000
"""How long after its timeout a probe can still be answered late, by default."""

CAPACITY = 65_536
"""How many probes are remembered at once, by default."""


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
        # Its place among those that were really sent, from 1.
        self.ordinal = ordinal
        self.t1 = t1
        self.state = _State.WAITING
        # The server's count in the answer that came last.
        self.received: int | None = None


class Statistics:
    """Follows the probes of one session from their sending to their end.

    All times are nanoseconds of one clock, the caller's. `seq` may be any number, but is compared
    modulo 2^32, as it is on the wire. One session only, because the server's count begins anew in
    each. A server that counts (`pingpong.v1`) has `directions` on. Probes may be of several kinds,
    which travel in different ways: only one of the same kind can be overtaken, but the server
    counts them all.

    At most `capacity` probes are remembered, and none longer than `horizon_ns` after its timeout;
    `expire` is to be called at least as often as probes time out.
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
        # Every remembered probe is in `_probes`, and in one of two queues, in the order of
        # sending: `_waiting` from the first one that is still waited for, `_expired` before it.
        # Queues, because finding a dict's oldest key means stepping over all deleted ones. Those
        # that failed are in no dict any more, but stay in their queue until it is their turn.
        self._probes: dict[int, _Probe] = {}
        self._waiting: deque[_Probe] = deque()
        self._expired: deque[_Probe] = deque()
        # Forgotten before their timeout; the next `expire` returns them.
        self._dropped: list[int] = []
        self._first_t1: int | None = None
        self._sent = 0
        self._answered = 0
        self._late = 0
        self._given_up = 0
        # Of those that were given up: the ones that `report_losses` has not reported, by kind; those
        # whose direction it has not reported; and how many of each direction it has.
        self._unreported: dict[str, int] = {}
        self._undirected = 0
        self._reported_out = 0
        self._reported_back = 0
        self._duplicates = 0
        self._reordered = 0
        self._send_errors = 0
        self._unknown = 0
        # The highest ordinal answered, of all and of each kind, the server's highest count (not
        # modulo), and how many of those it counted were copies of a ping that the network made.
        self._highest = 0
        self._highest_of: dict[str, int] = {}
        self._received = 0
        self._extra = 0

    @property
    def open(self) -> int:
        """How many probes may still be answered, in time or late."""
        return self._sent - self._answered - self._given_up

    @property
    def deadline(self) -> int | None:
        """When `expire` has something to do, at the earliest; None while nothing is waited for."""
        waiting = self._waiting
        while waiting and waiting[0].state is not _State.WAITING:
            self._expired.append(waiting.popleft())
        return waiting[0].t1 + self._timeout if waiting else None

    def sent(self, seq: int, t1_ns: int, kind: str = "") -> None:
        """Note that a probe is sent. Probes are noted in the order of sending.

        Raises `ValueError` when a probe of this number is remembered.
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
        """Correct a probe's time of sending, once it is known when it left."""
        probe = self._probes.get(seq & _U32)
        if probe is not None:
            probe.t1 = t1_ns

    def send_failed(self, seq: int) -> bool:
        """Note that a probe was not sent after all; its number may be used again.

        Returns False, and changes nothing, when the probe is unknown or has been answered.
        """
        probe = self._probes.get(seq & _U32)
        if probe is None or probe.state is _State.ANSWERED:
            return False
        del self._probes[seq & _U32]
        probe.state = _State.FAILED
        # Ordinals stay without gaps. Usually the last one fails, and no other has to move.
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
        """Note `count` answers that the network delivered again: QUIC lets none of them pass."""
        self._duplicates += count

    def answered(
        self,
        seq: int,
        t4_ns: int,
        server_ns: int | None = None,
        received: int | None = None,
    ) -> Answer:
        """Note an answer that arrived at `t4_ns`, and say what it means.

        `server_ns` is t3 − t2, the server's own time, and `received` its count of pings, modulo
        2^32, where it reports them.
        """
        probe = self._probes.get(seq & _U32)
        if probe is None:
            self._unknown += 1
            return Answer(seq, AnswerStatus.UNKNOWN, False, None, None)
        # The times of one packet may come from different clocks (the kernel's and the program's,
        # and the server's runs at a rate of its own), and the peer may say anything. So: nothing
        # arrives before it was sent, and the server has at most the time there was.
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
                # Answered twice by the server: the ping was copied on its way out.
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
        """Return the probes whose timeout passed without an answer since the last call.

        They may still be answered late, until the horizon; then they are forgotten.
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
        """No answer can come any more, the session being over: what has none is lost, now."""
        for probe in chain(self._expired, self._waiting):
            if probe.state is _State.WAITING:
                probe.state = _State.OVERDUE
            self._forget(probe)
        self._expired.clear()
        self._waiting.clear()

    def losses(self) -> Losses:
        """Say where the probes that were given up got lost.

        Only what is proven, whatever becomes of those that may still be answered: none of the
        directions is ever said to be more than it is, but it may be said to be less for a while.
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
        """Say what came to be known since the last call of those that were given up; None: nothing.

        A direction is said once it is proven. That it is unknown is said when the session `is_final`,
        since until then more answers may prove it, or where the server doesn't count.
        """
        by_kind, self._unreported = self._unreported, {}
        self._undirected += sum(by_kind.values())
        if not self._undirected:
            return None
        losses = self.losses()
        # Whatever the server says, no more are lost than were given up.
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
        """Sum up. What is overdue at `now_ns` counts as lost, whether `expire` has returned it or not."""
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
        """Say how many are lost for certain on the way out and on the way back.

        `waiting` is how many are waited for among those sent before an answered one.
        """
        if not self._directions:
            return 0, 0
        missing = self._highest - self._answered
        # Clamped, because the count is the peer's word, a copy's answer may itself be lost,
        # and a ping behind the last answered one may have been counted already.
        missing_back = min(max(self._received - self._extra - self._answered, 0), missing)
        # Any of those that are waited for may be among the missing of either direction.
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
