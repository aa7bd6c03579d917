"""Bytes as decisions: what a generator makes is a function of the input's bytes.

So any input is valid, whoever made it: a seeded generator, a coverage-guided fuzzer that
flips bytes, or a file with a finding. Where the bytes end every decision is 0, for which a
generator has its simplest choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

from pingpong.webtransport import varint

T = TypeVar("T")

EDGES = (
    *(0, 1, 2, 3, 4, 7, 8, 63, 64, 127, 128, 255, 256, 1_000, 16_383, 16_384),
    *(65_535, 65_536, 1 << 20, (1 << 30) - 1, 1 << 30, (1 << 32) - 1, 1 << 32),
    *((1 << 60) - 1, 1 << 60, (1 << 60) + 1, (1 << 62) - 2, (1 << 62) - 1),
)
"""Integers at which encodings and limits change."""

_LARGE = 16_384
"""Bytes that a repeated piece can come to: what is quadratic shows there."""


class Source:
    """Reads decisions from bytes."""

    __slots__ = ("_calm", "_data", "_position")

    def __init__(self, data: bytes, calm: int = 1) -> None:
        """`calm` makes errors rarer by a factor: one may end what further inputs are for."""
        self._calm = calm
        self._data = data
        self._position = 0

    @property
    def left(self) -> int:
        """How many bytes are not yet used."""
        return len(self._data) - self._position

    def byte(self) -> int:
        position = self._position
        if position >= len(self._data):
            return 0
        self._position = position + 1
        return self._data[position]

    def below(self, limit: int) -> int:
        """An integer from 0 to less than `limit`."""
        if limit <= 256:
            return self.byte() % limit
        size = (limit.bit_length() + 7) // 8
        data = self._data[self._position : self._position + size]
        self._position += len(data)
        return int.from_bytes(data, "big") % limit

    def chance(self, one_in: int) -> bool:
        """True once in so many times; false where the bytes have ended."""
        return self.byte() % one_in == one_in - 1

    def error(self, one_in: int) -> bool:
        """As `chance`, of what a peer may not do."""
        return self.byte() % one_in == one_in - 1 and (
            self._calm == 1 or self.byte() % self._calm == self._calm - 1
        )

    def pick(self, options: Sequence[T]) -> T:
        return options[self.byte() % len(options)]

    def take(self, limit: int) -> bytes:
        """At most so many bytes, as they are."""
        size = self.below(limit + 1)
        data = self._data[self._position : self._position + size]
        self._position += len(data)
        return data

    def integer(self) -> int:
        """An integer that fits in a QUIC varint: at an edge, near one, or any."""
        kind = self.byte()
        if kind < 128:
            return EDGES[kind % len(EDGES)]
        if kind < 192:
            return kind - 128
        if kind < 224:
            return max(0, min(EDGES[-1], EDGES[self.byte() % len(EDGES)] + kind - 208))
        return self.below(1 << 62)

    def varint(self, value: int | None = None) -> bytes:
        """A varint of a value, rarely longer than needed."""
        if value is None:
            value = self.integer()
        if not self.chance(32):
            return varint.encode(value)
        return overlong(value, self.byte() & 3)

    def several(self, limit: int, make: Callable[[Source], T]) -> list[T]:
        """One to `limit` things."""
        return [make(self) for _ in range(1 + self.below(limit))]

    def damaged(self, data: bytes) -> bytes:
        """Bytes with an error or two: a changed, lost or doubled piece, or an early end."""
        for _ in range(1 + self.below(3)):
            at = self.below(len(data) + 1)
            kind = self.byte() % 7
            if kind == 0:
                data = data[:at]
            elif kind == 1:
                data = data[:at] + bytes((self.byte(),)) + data[at + 1 :]
            elif kind == 2:
                data = data[:at] + data[at + self.below(9) :]
            elif kind == 3:
                data = data[:at] + self.take(16) + data[at:]
            elif kind == 4:
                data = data[:at] + self.varint() + data[at:]
            elif kind == 5:
                size = self.below(64)
                data = data[: at + size] + data[at:]
            else:
                piece = data[at : at + 1 + self.below(8)]
                data = data[:at] + piece * (self.below(_LARGE) // (len(piece) or 1)) + data[at:]
        return data

    def pieces(self, data: bytes) -> list[bytes]:
        """Bytes as a stream may bring them: whole, in a few pieces, or one by one."""
        kind = self.byte() % 8
        if kind < 4 or len(data) < 2:
            return [data]
        if kind == 4:
            return [data[i : i + 1] for i in range(len(data))]
        cuts = sorted({self.below(len(data)) for _ in range(kind - 4)} | {0, len(data)})
        return [data[start:stop] for start, stop in pairwise(cuts)]


def overlong(value: int, size_bits: int) -> bytes:
    """A varint of 1, 2, 4 or 8 bytes (0 to 3), or of as many as it needs, if more."""
    shortest = varint.encode(value)
    size = max(len(shortest), 1 << size_bits)
    return (value | ((size.bit_length() - 1) << (8 * size - 2))).to_bytes(size, "big")
