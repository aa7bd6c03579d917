"""A timer queue: a heap with lazy deletion."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class _Entry(Generic[T]):
    __slots__ = ("owner", "when")

    def __init__(self, when: float, owner: T) -> None:
        self.when = when
        self.owner: T | None = owner
        """None: it was removed, or replaced by an earlier one."""

    def __lt__(self, other: _Entry[T]) -> bool:
        return self.when < other.when


class Timers(Generic[T]):
    """One timer for each owner, at the earliest time that was requested.

    Timers are not moved to a later time, which would cost more with each packet than to fire
    early: then the owner is asked for its next time. Times are in seconds of one clock.
    """

    __slots__ = ("_entries", "_heap")

    def __init__(self) -> None:
        self._heap: list[_Entry[T]] = []
        self._entries: dict[T, _Entry[T]] = {}

    def __len__(self) -> int:
        """Entries in the heap, also of removed timers: at most twice the number of owners, plus
        2."""
        return len(self._heap)

    def set(self, owner: T, when: float) -> None:
        """Set the owner's timer to `when`; an earlier one stays."""
        entry = self._entries.get(owner)
        if entry is not None:
            if entry.when <= when:
                return
            entry.owner = None
        entry = self._entries[owner] = _Entry(when, owner)
        heapq.heappush(self._heap, entry)
        self._shrink()

    def remove(self, owner: T) -> None:
        """Remove an owner's timer, and the reference to the owner."""
        entry = self._entries.pop(owner, None)
        if entry is not None:
            entry.owner = None
            self._shrink()

    def next(self) -> float | None:
        """When the first timer fires, or None."""
        heap = self._heap
        while heap and heap[0].owner is None:
            heapq.heappop(heap)
        return heap[0].when if heap else None

    def take(self, due: float) -> T | None:
        """Remove the first timer, and return its owner; None if none fires until `due`."""
        first = self.next()
        if first is None or first > due:
            return None
        owner = heapq.heappop(self._heap).owner
        assert owner is not None
        del self._entries[owner]
        self._shrink()
        return owner

    def clear(self) -> None:
        """Remove all timers."""
        self._heap.clear()
        self._entries.clear()

    def _shrink(self) -> None:
        if len(self._heap) > 2 * len(self._entries) + 2:
            self._heap = [entry for entry in self._heap if entry.owner is not None]
            heapq.heapify(self._heap)
