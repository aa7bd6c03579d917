"""What really became of each ping, by the records of the link it went over."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.network.link import Direction, Verdict
from tests.support.network.packets import ICMP, UDP
from tests.support.network.records import Record

SIZE = 200
"""Of pings, in bytes: more than all else in a packet, so that they can be counted by its size."""
_AROUND = 3
"""Bytes of a DATAGRAM frame beside a ping: type, length, and the session's number."""
_HEADERS = 40
"""Bytes of a packet beside its frames, at least: IP, UDP, QUIC."""
_PADDED = 1200
"""Bytes of UDP of the packets that begin a connection or validate an address, at least."""


@dataclass(frozen=True)
class Ping:
    """One ping on the link."""

    number: int
    """Its place, from 0."""
    out: Record
    back: Record | None
    """Of its answer; None where there was none."""
    turn: int = 0
    """Of its answer among the answers, as they were sent."""

    @property
    def is_answered(self) -> bool:
        """Whether its answer came all the way."""
        return self.back is not None and self.back.verdict is Verdict.DELIVERED

    @property
    def rtt(self) -> float:
        """Seconds that it and its answer were on the link."""
        assert self.back is not None
        return self.out.delay + self.back.delay

    @property
    def returned(self) -> tuple[int, int]:
        """When its answer left the link, in nanoseconds, and where in the packet it was."""
        assert self.back is not None
        return self.back.sent, self.turn


class Truth:
    """All datagram pings of `SIZE` bytes of one session on a link, in the order of sending.

    A server answers in the order in which pings come to it: so answers are told apart.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        pings = _pings(records)
        out = [r for r in pings if r.direction is Direction.OUT and not r.is_copy]
        back = [r for r in pings if r.direction is Direction.BACK and not r.is_copy]
        asked = sorted(
            (ping for ping in enumerate(out) if ping[1].verdict is Verdict.DELIVERED),
            key=lambda ping: ping[1].sent,
        )
        assert len(asked) >= len(back)
        self.unanswered = len(asked) - len(back)
        """Those that reached the server, and were not answered: the last ones."""
        assert all(a.sent < b.received for (_, a), b in zip(asked, back, strict=False))
        answers = {
            number: (b, turn)
            for turn, ((number, _), b) in enumerate(zip(asked, back, strict=False))
        }
        self.pings = [Ping(n, record, *answers.get(n, (None,))) for n, record in enumerate(out)]
        self.copies_back = sum(r.is_copy for r in pings if r.direction is Direction.BACK)

    @property
    def answered(self) -> list[Ping]:
        """Those that were answered."""
        return [ping for ping in self.pings if ping.is_answered]

    def slower_than(self, seconds: float) -> set[int]:
        """Those of the answered that were on the link for longer: their numbers."""
        return {ping.number for ping in self.answered if ping.rtt > seconds}

    @property
    def in_order_of_return(self) -> list[Ping]:
        """Those that were answered, in the order in which the answers left the link."""
        return sorted(self.answered, key=lambda ping: ping.returned)

    @property
    def lost_out(self) -> int:
        """Those that did not reach the server."""
        return sum(ping.out.verdict is not Verdict.DELIVERED for ping in self.pings)

    @property
    def lost_back(self) -> int:
        """Those whose answer was lost."""
        return sum(ping.back is not None and not ping.is_answered for ping in self.pings)

    @property
    def lost_after_last(self) -> int:
        """Those sent after the last one that was answered: nobody can know which way they went."""
        count = 0
        for ping in reversed(self.pings):
            if ping.is_answered:
                break
            count += 1
        return count

    @property
    def reordered(self) -> int:
        """Those whose answer came after one to a later ping."""
        highest = count = 0
        for ping in self.in_order_of_return:
            count += ping.number < highest
            highest = max(highest, ping.number)
        return count

    @property
    def mean_rtt(self) -> float:
        """Seconds on the link of those that were answered, the mean."""
        return statistics.mean(ping.rtt for ping in self.answered)


def icmp_rtts(records: Sequence[Record]) -> list[float]:
    """Seconds on the link of what ping(8) tells of: all answers, copies as well."""
    asked: dict[tuple[int, int], int] = {}
    answers = []
    for record in (r for r in records if r.protocol == ICMP and r.source):
        identity = record.source, record.destination
        if record.direction is Direction.OUT:
            asked.setdefault(identity, record.received)
        elif record.verdict is Verdict.DELIVERED:
            answers.append((record.sent, (record.sent - asked[identity]) / 1e9))
    return [rtt for _, rtt in sorted(answers)]


def _pings(records: Sequence[Record]) -> list[Record]:
    """One record for each ping and each answer; one for each of several in a packet."""
    single = range(_HEADERS + SIZE, _HEADERS + SIZE + SIZE // 2)
    packets = [r for r in records if r.protocol == UDP and r.size < _PADDED]
    first = next(
        n for n, r in enumerate(packets) if r.direction is Direction.OUT and r.size in single
    )
    # Of other connections that the client makes: answers too, wherever they are sent to.
    others = {r.source for r in packets if r.direction is Direction.OUT}
    others.remove(packets[first].source)
    return [
        r
        for r in packets[first:]
        if (r.source if r.direction is Direction.OUT else r.destination) not in others
        for _ in range((r.size - _HEADERS) // (SIZE + _AROUND))
    ]


def is_likely(count: float, of: float, likelihood: float) -> bool:
    """Whether so many of so many are within the 99.9 % confidence interval (normal, two-sided)."""
    return abs(count - of * likelihood) < 3.29 * math.sqrt(of * likelihood * (1 - likelihood))
