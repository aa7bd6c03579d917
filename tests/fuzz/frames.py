"""QUIC frames as a hostile peer makes them (RFC 9000, section 19; RFC 9221).

Most values are plausible in the state of the connection, so that the frames reach what is
behind the first checks; some are at an edge, and a few packets are damaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pingpong.webtransport import varint
from tests.fuzz.source import Source


@dataclass
class View:
    """What a peer knows of the connection that it attacks."""

    is_client: bool
    """The peer's role."""
    sent: int = 0
    """Packets that the other side has sent in this packet number space, about."""
    issued: int = 8
    """Connection ids that the other side has issued."""
    in_use: int = 0
    """The sequence number of the one that the peer uses."""
    critical: tuple[int, ...] = ()
    """Streams whose end is the connection's."""
    next_id: int = 8
    """The sequence number of the peer's next connection id."""
    offsets: dict[int, int] = field(default_factory=dict)
    """What was sent so far on each stream that the peer can send on."""
    crypto: bytes = b""
    """The genuine handshake messages of this space."""
    application: Callable[[Source, View, int], bytes] = lambda source, view, stream_id: b"ping"
    """Makes what a stream of some id is to carry next."""

    def stream(self, source: Source, *, sends: bool, ends: bool = False) -> int:
        """A stream to send on or (not `sends`) to be sent on: one that is known, or a new one.

        `ends`: it is to end, which the critical ones may not.
        """
        if source.error(16):
            return source.integer() if source.chance(2) else source.below(640)
        kind = source.byte()
        if not sends and not ends and kind < 64:
            return 3 if self.is_client else 2  # the control stream
        known = [
            stream_id
            for stream_id in self.offsets
            if (sends or not stream_id & 2) and not (ends and stream_id in self.critical)
        ]
        if kind < 192 and known:
            return known[kind % len(known)]
        uni = kind & 1 if sends else 0
        return source.below(128) << 2 | uni << 1 | (not self.is_client)


def v(value: int) -> bytes:
    return varint.encode(value)


def padding(source: Source, view: View) -> bytes:
    return bytes(1 + source.below(1200))


def ping(source: Source, view: View) -> bytes:
    return b"\x01"


def ack(source: Source, view: View) -> bytes:
    """Ranges down from what was sent; rarely of what was not, or below zero."""
    largest = source.below(view.sent) if view.sent else 0
    if source.error(48):
        largest = source.integer()
    first = source.below(largest + 1) if source.chance(2) else largest
    ranges, left = [], largest - first
    for _ in range(source.below(64) if source.chance(4) else 0):
        if left < 4 and not source.error(64):
            break
        gap, length = source.below(3), source.below(3)
        ranges.append((gap, length))
        left -= gap + length + 2
    kind = 3 if source.chance(4) else 2
    count = source.integer() if source.error(64) else len(ranges)
    frame = bytes((kind,)) + v(largest) + v(source.integer() & 0xFFFF) + v(count) + v(first)
    frame += b"".join(v(gap) + v(length) for gap, length in ranges)
    return frame + (v(0) + v(1) + source.varint() if kind == 3 else b"")


def reset_stream(source: Source, view: View) -> bytes:
    stream_id = view.stream(source, sends=True, ends=True)
    return b"\x04" + v(stream_id) + source.varint() + v(_final_size(source, view, stream_id))


def reset_stream_at(source: Source, view: View) -> bytes:
    stream_id = view.stream(source, sends=True, ends=True)
    final = _final_size(source, view, stream_id)
    reliable = source.integer() if source.error(16) else source.below(final + 1)
    return b"\x24" + v(stream_id) + source.varint() + v(final) + v(reliable)


def _final_size(source: Source, view: View, stream_id: int) -> int:
    if source.error(8):
        return source.integer()
    return view.offsets.pop(stream_id, 0) + 4096


def stop_sending(source: Source, view: View) -> bytes:
    return b"\x05" + v(view.stream(source, sends=False, ends=True)) + source.varint()


def crypto(source: Source, view: View) -> bytes:
    """A piece of the genuine messages, of chance, or far away."""
    if view.crypto and not source.chance(8):
        start = source.below(len(view.crypto))
        data = view.crypto[start : start + 1 + source.below(400)]
        if source.error(16):
            data = source.damaged(data)
    else:
        start = source.integer() if source.error(4) else source.below(16_384)
        data = source.take(64)
    return b"\x06" + v(start) + v(len(data)) + data


def new_token(source: Source, view: View) -> bytes:
    token = source.take(64)
    return b"\x07" + v(len(token)) + token


def stream(source: Source, view: View) -> bytes:
    """In order for the most part, or with gaps, overlaps, another final size."""
    stream_id = view.stream(source, sends=True)
    offset = view.offsets.get(stream_id, 0)
    data = view.application(source, view, stream_id)[:1000]
    flags = 1 if source.chance(12) and stream_id not in view.critical else 0
    at = offset
    if source.chance(6):
        at = source.pick((offset + source.below(4096), max(0, offset - source.below(64))))
        if source.error(8):
            at = source.integer()
    if at == offset and stream_id in view.offsets:
        view.offsets[stream_id] = offset + len(data)
    elif at == offset == 0 and len(view.offsets) < 64 and stream_id < 4096:
        view.offsets[stream_id] = len(data)
    flags |= 2 | (4 if at or source.chance(2) else 0)
    if flags & 1:
        view.offsets.pop(stream_id, None)
    size = source.integer() if source.error(64) else len(data)
    head = bytes((0x08 | flags,)) + v(stream_id) + (v(at) if flags & 4 else b"") + v(size)
    return head + data


def limits(source: Source, view: View) -> bytes:
    """MAX_DATA, MAX_STREAM_DATA, MAX_STREAMS, and what says that they are reached."""
    kind = source.pick((0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17))
    head = bytes((kind,))
    if kind in (0x11, 0x15):
        head += v(view.stream(source, sends=kind == 0x15))
    limit = source.integer()
    if kind in (0x12, 0x13, 0x16, 0x17) and limit > 1 << 60 and not source.error(2):
        limit &= (1 << 59) - 1
    return head + v(limit)


def new_connection_id(source: Source, view: View) -> bytes:
    sequence = view.next_id
    if source.chance(3):
        sequence = source.integer() if source.error(8) else source.below(view.next_id + 2)
    else:
        view.next_id += 1
    prior = sequence - source.below(8) if source.chance(2) else max(0, sequence - 7)
    if source.error(64):
        prior = source.integer()
    size = source.below(256) if source.error(32) else 8
    return (
        b"\x18" + v(sequence) + v(max(0, prior)) + bytes((size,)) + v(sequence).rjust(size, b"\1")
        + b"\x07" * 16
    )  # fmt: skip


def retire_connection_id(source: Source, view: View) -> bytes:
    sequence = source.below(view.issued)
    if source.error(32):
        sequence = source.integer()
    elif sequence == view.in_use:
        sequence = view.in_use - 1 if view.in_use else view.issued - 1
    return b"\x19" + v(sequence)


def path_challenge(source: Source, view: View) -> bytes:
    return b"\x1a" + source.take(8).ljust(8, b"\0")


def path_response(source: Source, view: View) -> bytes:
    return b"\x1b" + source.take(8).ljust(8, b"\0")


def close(source: Source, view: View) -> bytes:
    reason = source.take(64)
    size = source.integer() if source.error(8) else len(reason)
    if source.chance(2):
        return b"\x1c" + source.varint() + source.varint() + v(size) + reason
    return b"\x1d" + source.varint() + v(size) + reason


def handshake_done(source: Source, view: View) -> bytes:
    return b"\x1e"


def datagram(source: Source, view: View) -> bytes:
    data = view.application(source, view, -1)[:1000]
    if source.chance(16):
        return b"\x30" + data
    size = source.integer() if source.error(64) else len(data)
    return b"\x31" + v(size) + data


def unknown(source: Source, view: View) -> bytes:
    return source.varint() + source.take(16)


COMMON = (
    *(stream,) * 8,
    *(datagram,) * 5,
    *(ack,) * 4,
    *(new_connection_id,) * 2,
    *(retire_connection_id,) * 2,
    *(limits,) * 3,
    *(reset_stream, reset_stream_at, stop_sending) * 2,
    *(padding, ping, crypto, path_challenge, path_response) * 2,
)
"""Frames of an open connection, the frequent ones several times."""
RARE = (new_token, handshake_done, close, unknown)
HANDSHAKE = (*(crypto,) * 6, ack, ping, padding)
"""Those that may come before the handshake is complete (RFC 9000, section 12.4)."""


def payload(source: Source, view: View, *, handshake: bool = False) -> bytes:
    """What a packet carries: some frames, one many times over, or a damaged packet."""
    frames: list[bytes] = []
    size = 0
    for _ in range(1 + source.below(8)):
        if source.error(48):
            make = source.pick(RARE)
        elif handshake:
            make = source.pick(COMMON if source.error(24) else HANDSHAKE)
        else:
            make = source.pick(COMMON)
        for _ in range(1 + (source.below(64) if source.chance(16) else 0)):
            frame = make(source, view)
            if size + len(frame) > 1300 and frames:
                break
            frames.append(frame)
            size += len(frame)
        if not source.left:
            break
    data = b"".join(frames)
    if source.error(24):
        data = source.damaged(data)
    return data[:1400] if not source.chance(64) else data.ljust(20_000, b"\0")[:20_000]
