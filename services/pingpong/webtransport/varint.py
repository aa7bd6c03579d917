"""QUIC's variable-length integers (RFC 9000, section 16)."""

from __future__ import annotations

MAX = (1 << 62) - 1
"""The largest value."""

_ONE_BYTE = tuple(bytes((value,)) for value in range(0x40))


def encode(value: int) -> bytes:
    """Encode `value` in the fewest bytes: 1, 2, 4 or 8.

    Raises `ValueError` if the value is negative or above 2^62 - 1.
    """
    if value < 0x40:
        if value < 0:
            raise ValueError(f"a variable-length integer cannot be negative: {value}")
        return _ONE_BYTE[value]
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    if value < 0x4000_0000:
        return (value | 0x8000_0000).to_bytes(4, "big")
    if value <= MAX:
        return (value | 0xC000_0000_0000_0000).to_bytes(8, "big")
    raise ValueError(f"a variable-length integer is at most 2^62 - 1: {value}")


def decode(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[int, int] | None:
    """Decode the integer that begins at `offset`.

    Returns its value and the offset after it, or None if bytes are missing. Accepts all encodings,
    not only the shortest.
    """
    if offset >= len(data):
        return None
    first = data[offset]
    if first < 0x40:
        return first, offset + 1
    if first < 0x80:
        # The fast path: every WebTransport stream begins with one of these.
        end = offset + 2
        return None if end > len(data) else ((first & 0x3F) << 8 | data[offset + 1], end)
    end, mask = (offset + 4, 0x3FFF_FFFF) if first < 0xC0 else (offset + 8, MAX)
    if end > len(data):
        return None
    return int.from_bytes(data[offset:end], "big") & mask, end
