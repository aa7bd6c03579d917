"""What must be flat at the end, and what must add up: figures in, sentences out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

MIB = 1 << 20


@dataclass(frozen=True)
class Allowance:
    """By how much a figure may be above its beginning. With none it is to be exactly the same."""

    share: float = 0.0
    more: float = 0.0

    def limit(self, begin: float) -> float:
        """The most that is allowed at the end."""
        return begin * (1 + self.share) + self.more


EXACT = Allowance()
ALLOWANCES = {
    # These two are what is in use, and gaps between. An arena of Python's allocator is 1 MiB, and a
    # single object in it keeps all of it; the C library keeps some that is free, too.
    "rss": Allowance(0.02, 2 * MIB),
    "kept": Allowance(0.02, 1 * MIB),
    # These are in use, whatever gaps there are: what grows here leaks.
    # A little comes and goes with each ping, each scrape, each ping of the server to itself.
    "malloc": Allowance(0.02, 256 << 10),
    "blocks": Allowance(0.02, 2000),
    "objects": Allowance(0.02, 500),
    "fds": EXACT,
    "threads": EXACT,
    "tasks": EXACT,
    "connections": EXACT,
    "sessions": EXACT,
}
"""Figures of a process by their names. Memory is in bytes:

- rss: resident, as the kernel counts it, before anything is collected for the count
- kept: resident after a collection, when what is free has been given back
- malloc: bytes in use of what the C library gave, to Python for all above 512 bytes, too
- blocks: pieces of memory in use of at most 512 bytes, that Python's own allocator gave
- objects: those that Python's collector knows, after a collection
- connections, sessions: objects of QUIC connections and of sessions among them
"""
_MEMORY = ("rss", "kept", "malloc")


@dataclass(frozen=True)
class Reading:
    """Figures of one process at rest; `types` is how many objects there are of each type."""

    figures: Mapping[str, float]
    types: Mapping[str, int] = field(default_factory=dict)


def shown(figure: str, value: float) -> str:
    """A figure for people."""
    return f"{value / MIB:.1f}M" if figure in _MEMORY else f"{value:.0f}"


def not_flat(name: str, begin: Reading, end: Reading) -> Iterator[str]:
    """A sentence for each figure that is not flat: begin, end, allowed."""
    for figure, before in begin.figures.items():
        after = end.figures[figure]
        allowance = ALLOWANCES[figure]
        limit = allowance.limit(before)
        if after > limit or (allowance is EXACT and after != before):
            most = f"{'exactly ' if allowance is EXACT else ''}{shown(figure, limit)} allowed"
            text = f"{name}: {figure} {shown(figure, before)} → {shown(figure, after)}, {most}"
            if figure == "objects":
                text += f"; most of them {_grown(begin.types, end.types)}"
            yield text


def _grown(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    more = Counter(after)
    more.subtract(before)
    return ", ".join(f"{count:+} {name}" for name, count in more.most_common(5))


def not_same_series(
    name: str, begin: set[tuple[str, ...]], end: set[tuple[str, ...]]
) -> Iterator[str]:
    """A sentence where the time series of a service are not the same ones."""
    if begin != end:
        some = sorted(begin ^ end)[:3]
        text = f"{name}: {len(begin)} → {len(end)} series, exactly the same ones allowed"
        yield f"{text}; only in one of both: {'; '.join(' '.join(one) for one in some)}"


# Pings.


@dataclass(frozen=True)
class Pings:
    """What became of the pings of a target in a mode.

    `attempted` is the client's slots; `send_error` are those of them that were not sent, and
    `malformed` are answers that belong to no ping. Both are beside `sent`, as the README says.
    """

    sent: int = 0
    ok: int = 0
    late: int = 0
    lost: int = 0
    malformed: int = 0
    send_error: int = 0

    @property
    def waiting(self) -> int:
        """Sent, and nothing became of them yet."""
        return self.sent - self.ok - self.late - self.lost

    def __add__(self, other: Pings) -> Pings:
        return Pings(
            self.sent + other.sent,
            self.ok + other.ok,
            self.late + other.late,
            self.lost + other.lost,
            self.malformed + other.malformed,
            self.send_error + other.send_error,
        )

    def __str__(self) -> str:
        return (
            f"sent {self.sent} = ok {self.ok} + late {self.late} + lost {self.lost}"
            f" + waiting {self.waiting}; malformed {self.malformed}, send_error {self.send_error}"
        )


def unaccounted(name: str, pings: Pings, *, at_rest: bool = True) -> Iterator[str]:
    """A sentence where pings do not add up; those that are waited for are allowed before the rest.

    No server of a soak sends answers that belong to no ping.
    """
    if pings.waiting < 0 or (at_rest and pings.waiting):
        yield f"{name}: {pings}: does not add up"
    if pings.malformed:
        yield f"{name}: {pings}: no answer was malformed"


def slots_missing(
    name: str, *, slots: float, counted: int, sessions: int, schedules: int
) -> Iterator[str]:
    """A sentence where the pings that were sent, not sent or skipped are not one for each slot.

    `slots` is time divided by interval, of all `schedules` together; each of them begins and ends
    somewhere in an interval. `sessions` is how many pings were sent beside the schedule at most,
    one in each mode with each new session.
    """
    if not slots - schedules <= counted <= slots + schedules + sessions:
        yield (
            f"{name}: {counted} pings were sent, not sent or skipped, in {slots:.0f} slots and"
            f" with at most {sessions} beside them, {schedules} more or less allowed"
        )


# A server.

_RECEIVED_AND_DROPPED = ("rate", "queue_full", "unread", "closed")


def messages_missing(
    name: str, mode: str, received: int, answered: int, dropped: Mapping[str, int]
) -> Iterator[str]:
    """A sentence where a server's messages of a mode are neither answered nor dropped.

    `dropped` is by reason. One that is malformed was never received, nor is one on a stream that
    is too large.
    """
    counted = sum(dropped.get(reason, 0) for reason in _RECEIVED_AND_DROPPED)
    if mode == "datagram":
        counted += dropped.get("too_large", 0)
    if received != answered + counted:
        yield (
            f"{name}: {received} messages of mode {mode} were received, {answered} answered and"
            f" {counted} dropped ({dict(dropped)}): does not add up"
        )
