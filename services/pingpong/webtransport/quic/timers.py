"""When each of many wants to be called: a heap that forgets those that are gone."""

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
        """None: it was removed, or an earlier one has taken its place."""

    def __lt__(self, other: _Entry[T]) -> bool:
        return self.when < other.when


class Timers(Generic[T]):
    """One timer an owner, kept at the earliest time that was asked for.

    To move a timer whenever a packet comes or goes would cost more than to let it fire early: then
    its owner is asked anew. Times are seconds of one clock.
    """

    __slots__ = ("_entries", "_heap")

    def __init__(self) -> None:
        self._heap: list[_Entry[T]] = []
        self._entries: dict[T, _Entry[T]] = {}

    def __len__(self) -> int:
        """Entries that are kept, also of removed timers; at most twice as many as owners, and 2."""
        return len(self._heap)

    def set(self, owner: T, when: float) -> None:
        """Have the owner's timer fire at `when`, or earlier where it is set already."""
        entry = self._entries.get(owner)
        if entry is not None:
            if entry.when <= when:
                return
            entry.owner = None
        entry = self._entries[owner] = _Entry(when, owner)
        heapq.heappush(self._heap, entry)
        self._shrink()

    def remove(self, owner: T) -> None:
        """Forget an owner, and refer to it no more."""
        entry = self._entries.pop(owner, None)
        if entry is not None:
            entry.owner = None
            self._shrink()

    def next(self) -> float | None:
        """When the first of them fires."""
        heap = self._heap
        while heap and heap[0].owner is None:
            heapq.heappop(heap)
        return heap[0].when if heap else None

    def take(self, due: float) -> T | None:
        """The owner of the first timer, which is removed; None where none fires until `due`."""
        first = self.next()
        if first is None or first > due:
            return None
        owner = heapq.heappop(self._heap).owner
        assert owner is not None
        del self._entries[owner]
        self._shrink()
        return owner

    def clear(self) -> None:
        """Remove all."""
        self._heap.clear()
        self._entries.clear()

    def _shrink(self) -> None:
        if len(self._heap) > 2 * len(self._entries) + 2:
            self._heap = [entry for entry in self._heap if entry.owner is not None]
            heapq.heapify(self._heap)
