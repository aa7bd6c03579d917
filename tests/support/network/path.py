"""What a path does to packets, decided without a clock or a socket: one direction of a link."""

from __future__ import annotations

import random
from collections.abc import Hashable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

NANOSECONDS = 1_000_000_000


class Verdict(IntEnum):
    """What became of a packet."""

    DELIVERED = 0
    LOST = 1
    """By chance, as `Impairment.loss` has it."""
    BLACKHOLED = 2
    OVERFLOWED = 3
    """There was no room in the queue before the rate limit."""
    TOO_BIG = 4
    UNMAPPED = 5
    """Sent to an address that the client has no more."""
    REFUSED = 6
    """The receiving kernel did not take it."""


@dataclass(frozen=True, slots=True)
class Impairment:
    """What one direction does to its packets. Times in seconds, likelihoods from 0 to 1."""

    delay: float = 0.0
    jitter: float = 0.0
    """At most this much more or less than `delay`, all values alike.

    Drawn so that of each 16 packets of a flow one has its value in each sixteenth of the
    range: flows beside each other have the same mean after a few dozen packets.
    """
    keep_order: bool = False
    """Hold a packet back rather than let it overtake another."""
    loss: float = 0.0
    duplicate: float = 0.0
    """Packets of which a copy follows at once."""
    reorder: float = 0.0
    """Packets that are held back by `hold` more, evenly spread as jitter is."""
    hold: float = 0.0
    rate: float | None = None
    """Bits a second, of whole IP packets."""
    burst: int = 1500
    """Bytes that may go at once after a pause: a token bucket's size."""
    queue: int = 64_000
    """Bytes that may wait for the rate limit."""
    mtu: int | None = None
    """Larger packets are dropped; their senders are told by ICMP, unless `silent_mtu`."""
    silent_mtu: bool = False
    blackhole: bool = False


class Fate(NamedTuple):
    """What is to become of one packet."""

    verdict: Verdict
    due: int
    """When it is to be delivered, in the nanoseconds of the `now` it was decided by."""
    copies: int
    """How many more times it is delivered then."""


class EvenDraws:
    """Numbers in [0, 1), of which each run of 16 has one in each sixteenth."""

    STRATA = 16

    def __init__(self, source: random.Random) -> None:
        self._random = source
        self._strata: list[int] = []

    def draw(self) -> float:
        """The next number."""
        if not self._strata:
            self._strata = list(range(self.STRATA))
            self._random.shuffle(self._strata)
        return (self._strata.pop() + self._random.random()) / self.STRATA


class _Draws:
    """The luck of one flow: the same for each run with one seed, whatever other flows do."""

    def __init__(self, seed: str) -> None:
        self.chance = random.Random(seed)
        self.jitter = EvenDraws(random.Random(f"{seed}/jitter"))
        self.reorder = EvenDraws(random.Random(f"{seed}/reorder"))


class Path:
    """One direction of a link, whose `impairment` may be changed at any time."""

    def __init__(self, seed: str) -> None:
        self.impairment = Impairment()
        self._seed = seed
        self._flows: dict[Hashable, _Draws] = {}
        self._busy_until = -NANOSECONDS << 20
        """When the rate limit has sent all that it was given, were its burst spent.

        In the beginning it has never sent anything.
        """
        self._last_due = 0

    def decide(self, now: int, size: int, flow: Hashable) -> Fate:
        """Say what is to become of a packet of `size` bytes that comes at `now`."""
        what = self.impairment
        draws = self._flows.get(flow)
        if draws is None:
            draws = self._flows[flow] = _Draws(f"{self._seed}/{len(self._flows)}")
        # All are drawn for each packet, so that none depends on what happened to the others.
        is_lost = draws.chance.random() < what.loss
        copies = int(draws.chance.random() < what.duplicate)
        jitter = (2 * draws.jitter.draw() - 1) * what.jitter
        is_held = draws.reorder.draw() < what.reorder
        if what.mtu is not None and size > what.mtu:
            return Fate(Verdict.TOO_BIG, now, 0)
        if what.blackhole:
            return Fate(Verdict.BLACKHOLED, now, 0)
        if is_lost:
            return Fate(Verdict.LOST, now, 0)
        departure = now
        if what.rate is not None:
            free = max(self._busy_until, now - int(what.burst * 8 / what.rate * NANOSECONDS))
            if (free - now) * what.rate / 8 / NANOSECONDS + size > what.queue:
                return Fate(Verdict.OVERFLOWED, now, 0)
            self._busy_until = free + int(size * 8 / what.rate * NANOSECONDS)
            departure = max(now, self._busy_until)
        due = departure + int(max(what.delay + jitter, 0.0) * NANOSECONDS)
        if is_held:
            return Fate(Verdict.DELIVERED, due + int(what.hold * NANOSECONDS), copies)
        if what.keep_order:
            due = max(due, self._last_due)
        self._last_due = max(due, self._last_due)
        return Fate(Verdict.DELIVERED, due, copies)
