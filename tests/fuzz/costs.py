"""What hostile packets cost: CPU a byte beside that of honest pings, and memory a connection.

Of each kind some hundred packets go into a connection of its own. The work of the victim
alone is measured, in time of this thread; a kind's cost is the least of several runs, in
which honest traffic takes turns with it, so that a busy machine does not decide.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

from aioquic import tls

from pingpong.ping import encode_ping, frame
from pingpong.webtransport import varint
from pingpong.webtransport.capsules import CapsuleType, encode_limit
from pingpong.webtransport.http3.frames import encode_headers
from pingpong.webtransport.quic.config import Engine, Windows
from tests.fuzz.arena import HOSTILE, Arena, Hostile
from tests.fuzz.content import http_frame
from tests.fuzz.live import begin
from tests.webtransport.raw import CONNECT

MAX_RATIO = 7.0
"""How many times the CPU of an honest byte a hostile one may take: honest packets have a fast path
through QUIC, and a full one has few frames."""
SCALES: dict[Engine, float] = {"aioquic": 1.0, "quinn": 2.0}
"""What is above QUIC costs as much with each engine, an honest byte with quinn less than half."""
MAX_GROWTH = 128 << 10
"""Bytes that a hostile connection may make the victim keep."""
PACKETS = 100
RUNS = 3
_FULL = 1150
_UNI = b"\x40\x54\x00"
_BLOCK = 40
_WINDOW = Windows().stream
_ENOUGH = 100_000_000
"""Nanoseconds after which it is known that a kind is slow."""


def v(value: int) -> bytes:
    return varint.encode(value)


def full(frame_of: Callable[[int], bytes]) -> Payloads:
    """Packets full of frames, which are numbered through."""
    counter = iter(range(1 << 60))

    def make(_: int) -> bytes:
        frames: list[bytes] = []
        size = 0
        while size < _FULL:
            one = frame_of(next(counter))
            if size + len(one) > _FULL and frames:
                break
            frames.append(one)
            size += len(one)
        return b"".join(frames)

    return make


def crypto(offset: int, data: bytes) -> bytes:
    return b"\x06" + v(offset) + v(len(data)) + data


def stream(stream_id: int, offset: int, data: bytes, fin: bool = False) -> bytes:
    return bytes((0x0E | fin,)) + v(stream_id) + v(offset) + v(len(data)) + data


def new_id(sequence: int, prior: int) -> bytes:
    return b"\x18" + v(sequence) + v(prior) + b"\x08" + os.urandom(24)


def ack(largest: int, ranges: int, first: int = 0) -> bytes:
    return b"\x02" + v(largest) + v(0) + v(ranges) + v(first) + b"\0\0" * ranges


def v1(number: int) -> bytes:
    return encode_ping(number, 0, 64)


@dataclass(frozen=True)
class Peer:
    """The hostile peer's role, and what streams it can send on."""

    is_client: bool
    offsets: dict[int, int]
    """What was sent on those that have begun."""

    def stream(self, number: int) -> int:
        """One that it begins: a server's are unidirectional, since others mean nothing."""
        return 4 * number if self.is_client else 4 * number + 3

    def both(self, number: int) -> int:
        """One that both can send on."""
        return 4 * number if self.is_client else 4

    @property
    def header(self) -> bytes:
        """What a stream of the session begins with: three bytes."""
        return b"\x40\x41\x00" if self.is_client else _UNI

    @property
    def pings(self) -> tuple[int, bytes]:
        """A stream that both can send on, and what this peer's half begins with."""
        return (4, self.header) if self.is_client else (4, b"")


Payloads = Callable[[int], bytes]
"""Makes a packet's payload of its number."""


@dataclass(frozen=True)
class Kind:
    """One kind of packet. `make` is called anew for each connection."""

    name: str
    make: Callable[[Peer], Payloads]
    honest: bool = False
    plain: bool = False
    """Whether the session speaks plain ping-pong."""
    packet: Callable[[Hostile, bytes, tls.Epoch], bytes] | None = None
    """Makes the packet itself, where that is what is hostile."""
    ratio: float = MAX_RATIO
    growth: int = MAX_GROWTH
    """Where the bounds are other than everybody's, with the reason beside the kind."""


def _garbage(hostile: Hostile, payload: bytes, epoch: tls.Epoch) -> bytes:
    """A packet that only looks right: what follows the sample for its number is of chance."""
    packet = hostile.packet(payload, epoch=epoch)
    return packet[:60] + os.urandom(len(packet) - 60)


def _other_phase(hostile: Hostile, payload: bytes, epoch: tls.Epoch) -> bytes:
    packet = hostile.packet(payload, epoch=epoch, bits=0x04)
    return packet[:60] + os.urandom(len(packet) - 60)


def _gaps(hostile: Hostile, payload: bytes, epoch: tls.Epoch) -> bytes:
    hostile.quic._packet_number += 1
    return hostile.packet(payload, epoch=epoch)


def _old(hostile: Hostile, payload: bytes, epoch: tls.Epoch) -> bytes:
    return hostile.packet(payload, epoch=epoch, number=0)


def in_order(peer: Peer, stream_id: int, header: bytes) -> Payloads:
    """A stream's bytes in order, one a frame."""
    position = peer.offsets.get(stream_id, 0)

    def one(number: int) -> bytes:
        nonlocal position
        data = header if number == 0 and header else b"\0"
        position += len(data)
        return stream(stream_id, position - len(data), data)

    return full(one)


def stream_of(peer: Peer, stream_id: int, header: bytes, data: bytes) -> Payloads:
    """Full packets of a stream's bytes: the same again and again, behind what it begins with."""
    position = peer.offsets.get(stream_id, 0)

    def make(number: int) -> bytes:
        nonlocal position
        sent = (header if number == 0 else b"") + data
        position += len(sent)
        return stream(stream_id, position - len(sent), sent)

    return make


def behind_gaps(peer: Peer, data: bytes) -> Payloads:
    """A stream's bytes of which the first of each block come last, so that many fit at once."""
    stream_id, header = peer.pings
    begin = peer.offsets.get(stream_id, 0)

    def make(number: int) -> bytes:
        if number == 0:
            return stream(stream_id, begin, header)
        block, place = divmod(number - 1, _BLOCK)
        piece = block * _BLOCK + (place + 1) % _BLOCK
        return stream(stream_id, begin + len(header) + piece * len(data), data)

    return make


def _always(make: Payloads) -> Callable[[Peer], Payloads]:
    return lambda peer: make


def _full(frame_of: Payloads) -> Callable[[Peer], Payloads]:
    return lambda peer: full(frame_of)


def _streams(frame_of: Callable[[Peer, int], bytes]) -> Callable[[Peer], Payloads]:
    return lambda peer: full(lambda i: frame_of(peer, i))


HONEST = (
    Kind("honest: a ping a packet", lambda p: lambda i: b"\x31\x40\x41\x00" + v1(i), honest=True),
    Kind(
        "honest: pings in full packets",
        lambda p: full(lambda i: b"\x31" + v(1 + 64) + b"\x00" + v1(i)),
        honest=True,
    ),
    Kind(
        "honest: full packets of a stream of pings",
        lambda p: lambda i: stream(
            4, i * 16 * 66 + 3 * bool(i), (b"" if i else b"\x40\x41\0") + b"".join(frame(v1(k)) for k in range(16))
        ),
        honest=True,
    ),
    Kind("honest: the end of a connection", _always(lambda i: b"\x1d\0\0"), honest=True),
)  # fmt: skip


ANY_TIME = (
    Kind("PING, one", _always(lambda i: b"\x01")),
    Kind("PING", _full(lambda i: b"\x01")),
    Kind("PADDING", _always(lambda i: bytes(_FULL))),
    Kind("PADDING and PING by turns", _full(lambda i: b"\0\x01")),
    Kind("PADDING and PING by turns, 60 kB a packet", _always(lambda i: b"\0\x01" * 30_000)),
    Kind("CRYPTO, single bytes with gaps", _full(lambda i: crypto(4_000 + 2 * i, b"x"))),
    Kind("CRYPTO, single bytes with gaps, backwards", _full(lambda i: crypto(16_000 - 2 * (i % 6_000), b"x"))),
    Kind("CRYPTO, single bytes with gaps, one frame", _always(lambda i: crypto(4_000 + 2 * i, b"x"))),
    Kind("CRYPTO, one byte far away", _always(lambda i: crypto(500_000 - i, b"x"))),
    Kind("CRYPTO, the same byte", _full(lambda i: crypto(4_000, b"x"))),
    Kind("CRYPTO, empty", _full(lambda i: crypto(4_000, b""))),
    Kind("ACK of nothing sent", _full(lambda i: ack(0, 0))),
    Kind("ACK, many ranges", _always(lambda i: ack(1_200, 550))),
    Kind("ACK, far ahead", _always(lambda i: ack(1 << 40, 0, 1 << 39))),
    Kind("garbage", _always(lambda i: bytes(_FULL)), packet=_garbage),
    Kind("gaps in packet numbers", _always(lambda i: b"\x01"), packet=_gaps),
    Kind("the same packet number", _always(lambda i: b"\x01"), packet=_old),
)  # fmt: skip

OPEN = (
    *ANY_TIME,
    Kind("garbage of the other key phase", _always(lambda i: bytes(_FULL)), packet=_other_phase),
    Kind("STREAM, single bytes with gaps", _streams(lambda p, i: stream(p.stream(1), 3 + 2 * i, b"x"))),
    Kind("STREAM, single bytes with gaps, backwards", _streams(lambda p, i: stream(p.stream(1), 200_000 - 2 * i, b"x"))),
    Kind("STREAM, single bytes with gaps, on many streams", _streams(lambda p, i: stream(p.stream(1 + i % 100), 3 + 2 * (i // 100), b"x"))),
    Kind("STREAM, one byte at the window's end", _streams(lambda p, i: stream(p.stream(1 + i % 100), _WINDOW - 1, b"x"))),
    Kind("STREAM, single bytes in order", lambda p: in_order(p, p.stream(1), p.header)),
    Kind("STREAM, CONNECT stream, single bytes in order", lambda p: in_order(p, 0, b"")),
    Kind("STREAM, empty", _streams(lambda p, i: stream(p.stream(1), 0, b""))),
    Kind("STREAM, the same byte", _streams(lambda p, i: stream(p.stream(1), 0, p.header[:1]))),
    Kind("STREAM, new ones, nothing but FIN", _streams(lambda p, i: stream(p.stream(1 + i % 100), 0, b"", fin=True))),
    # A stream that is open takes a kilobyte and a half, and a hundred of them are.
    Kind("STREAM, new ones of a session, one byte each", _streams(lambda p, i: stream(p.stream(1 + i % 100), 0, p.header + b"x")), growth=160 << 10),
    Kind("STREAM, unidirectional of no session", _streams(lambda p, i: stream(p.stream(1 + i % 100) | 2, 0, b"\x40\x54\x04x"))),
    Kind("RESET_STREAM, new ones", _streams(lambda p, i: b"\x04" + v(p.stream(1 + i % 100)) + v(0) + v(0))),
    Kind("RESET_STREAM_AT, waiting", _streams(lambda p, i: b"\x24" + v(p.stream(1 + i % 100)) + v(0) + v(99) + v(98))),
    Kind("RESET_STREAM_AT, one stream", _streams(lambda p, i: b"\x24" + v(p.stream(1)) + b"\0\x40\x63\x40\x62")),
    Kind("STOP_SENDING, one stream", _streams(lambda p, i: b"\x05" + v(p.both(1)) + b"\0")),
    Kind("STOP_SENDING, many streams", _streams(lambda p, i: b"\x05" + v(p.both(1 + i % 100)) + v(0))),
    Kind("MAX_DATA, the same", _full(lambda i: b"\x10\x00")),
    Kind("MAX_DATA, rising", _full(lambda i: b"\x10" + v((1 << 31) + i))),
    Kind("MAX_STREAM_DATA, many streams", _streams(lambda p, i: b"\x11" + v(p.both(1 + i % 100)) + v(i))),
    Kind("MAX_STREAMS, rising", _full(lambda i: b"\x12" + v((1 << 31) + i))),
    Kind("DATA_BLOCKED", _full(lambda i: b"\x14\x00")),
    Kind("STREAM_DATA_BLOCKED, many streams", _streams(lambda p, i: b"\x15" + v(p.stream(1 + i % 100)) + v(i))),
    Kind("STREAMS_BLOCKED", _full(lambda i: b"\x16\x00")),
    Kind("NEW_CONNECTION_ID, all before it retired", _full(lambda i: new_id(9 + i, 9 + i))),
    Kind("NEW_CONNECTION_ID, all before it retired, one", _always(lambda i: new_id(9 + i, 9 + i))),
    Kind("NEW_CONNECTION_ID, the same", _full(lambda i: b"\x18\x01\x00\x08" + bytes(24))),
    Kind("RETIRE_CONNECTION_ID, rising", _always(lambda i: b"\x19" + v(i))),
    Kind("RETIRE_CONNECTION_ID, the same", _full(lambda i: b"\x19\x01")),
    Kind("PATH_CHALLENGE", _full(lambda i: b"\x1a" + os.urandom(8))),
    Kind("PATH_CHALLENGE, one", _always(lambda i: b"\x1a" + os.urandom(8))),
    Kind("PATH_RESPONSE", _full(lambda i: b"\x1b" + os.urandom(8))),
    Kind("DATAGRAM, empty", _full(lambda i: b"\x31\x00")),
    Kind("DATAGRAM of no session", _full(lambda i: b"\x31\x02\x01x")),
    Kind("DATAGRAM of a session, no ping", _full(lambda i: b"\x31\x02\x00x")),
    Kind("DATAGRAM of a session, a short ping each", _full(lambda i: b"\x31\x25\x00" + encode_ping(i, 0, 36))),
    Kind("messages of no bytes", lambda p: stream_of(p, p.stream(1), p.header, b"\0" * _FULL)),
    Kind("messages of one byte", lambda p: stream_of(p, p.stream(1), p.header, b"\1x" * (_FULL // 2))),
    Kind("a message in single bytes", lambda p: in_order(p, p.stream(1), p.header + b"\x80\0\xff\0")),
    Kind("messages behind gaps", lambda p: behind_gaps(p, (b"\x24" + encode_ping(1, 0, 36)) * 30)),
    Kind("plain pings", lambda p: stream_of(p, *p.pings, b"ping" * (_FULL // 4)), plain=True),
    Kind("plain pings behind gaps", lambda p: behind_gaps(p, b"ping" * (_FULL // 4)), plain=True),
    Kind("plain, no pings", lambda p: stream_of(p, *p.pings, b"pinp" * (_FULL // 4)), plain=True),
    Kind("a plain message in single bytes", lambda p: in_order(p, p.stream(1) | 2, _UNI), plain=True),
    Kind("capsules of no bytes", lambda p: stream_of(p, 0, b"", http_frame(0, b"\x21\0" * 500))),
    Kind("capsules of credit", lambda p: stream_of(p, 0, b"", http_frame(0, encode_limit(CapsuleType.WT_MAX_DATA, 1) * 150))),
    Kind("DATA frames of no bytes", lambda p: stream_of(p, 0, b"", b"\0\0" * (_FULL // 2))),
    Kind("DATA frames of one byte", lambda p: stream_of(p, 0, b"", b"\0\2\x21\0" * (_FULL // 4))),
    Kind("unknown frames of no bytes", lambda p: stream_of(p, 0, b"", b"\x21\0" * (_FULL // 2))),
    Kind("unknown frames on the control stream", lambda p: stream_of(p, 2 + (not p.is_client), b"", b"\x21\0" * (_FULL // 2))),
    Kind("GOAWAY on the control stream", lambda p: stream_of(p, 2 + (not p.is_client), b"", b"\7\1\0" * (_FULL // 3))),
    Kind("QPACK decoder stream", lambda p: stream_of(p, p.stream(2) | 2, b"\3", b"\x41" * _FULL)),
    Kind("QPACK encoder stream", lambda p: stream_of(p, p.stream(2) | 2, b"\2", b"\x20" * _FULL)),
    # A dozen bytes that ask for a stream, a field section, a decision and an answer: 20 us each, the
    # most that bytes can ask for. What a connection asks of them takes its own share of time only.
    Kind("requests, no session", _streams(lambda p, i: stream(4 * (1 + i), 0, encode_headers(((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/"))), fin=True) if p.is_client else b"\1"), ratio=18.0),
    Kind("requests for sessions", _streams(lambda p, i: stream(4 * (1 + i), 0, encode_headers(CONNECT)) if p.is_client else b"\1"), ratio=18.0),
    Kind("NEW_TOKEN", _full(lambda i: b"\x07\x01x")),
    Kind("HANDSHAKE_DONE", _full(lambda i: b"\x1e")),
)  # fmt: skip


GROWS_WITH_QUINN = {"STREAM, single bytes with gaps, on many streams": 1 << 20}
"""Bytes that it keeps of some kinds, where aioquic's connection is closed: pieces by the thousand.
What all connections keep together is bounded (`max_buffered`)."""


@dataclass
class Cost:
    """What packets of a kind cost the victim."""

    kind: Kind
    nanoseconds: float = float("inf")
    size: int = 0
    """Bytes of all packets, of those up to the close where the connection was closed."""
    packets: int = 0
    growth: int = 0
    closed: str = ""

    @property
    def per_byte(self) -> float:
        return self.nanoseconds / self.size


class _MallocInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks"),
            *("uordblks", "fordblks", "keepcost"),
        )
    ]


_mallinfo2 = ctypes.CDLL(None).mallinfo2
_mallinfo2.restype = _MallocInfo


def _kept(engine: Engine) -> int:
    """Bytes that are kept: Python's, or for an engine that is not in Python, malloc's."""
    if engine == "aioquic":
        return tracemalloc.get_traced_memory()[0]
    info = _mallinfo2()
    return int(info.uordblks) + int(info.hblkhd)


def attack(arena: Arena, cost: Cost, stage: str, packets: int) -> None:
    """Send packets of a kind on a connection of their own, and note what they cost."""
    kind = cost.kind
    hostile, _ = begin(arena, stage, plain=kind.plain)
    if stage == "open" and arena.client is not None:
        arena.client.ping("stream")  # has the peer a stream to answer on
        hostile.take(arena.transmit().get(HOSTILE, []))
    epoch = {"initial": tls.Epoch.INITIAL, "handshake": tls.Epoch.HANDSHAKE}.get(stage)
    used = epoch or tls.Epoch.ONE_RTT
    begun = {one: stream.sender.highest_offset for one, stream in hostile.quic._streams.items()}
    make, send = kind.make(Peer(arena.role == "server", begun)), kind.packet
    cost.size = cost.packets = 0
    cost.closed = ""
    gc.collect()
    growing = tracemalloc.is_tracing()
    before = _kept(arena.engine)
    arena.cpu = 0
    while cost.packets < packets and not cost.closed and arena.cpu < _ENOUGH:
        payload = make(cost.packets)
        if stage == "open" and cost.packets % 2:
            payload = hostile.honest_ack() + payload
        packet = send(hostile, payload, used) if send else hostile.packet(payload, epoch=used)
        arena.receive(packet)
        cost.size += len(packet)
        cost.packets += 1
        sent = arena.transmit()
        if stage == "open":
            hostile.take(sent.get(HOSTILE, []))
        arena.pass_time(0.000_2)
        if (closed := arena.closed) is not None:
            cost.closed = f"{closed.code:#x} {closed.reason}"
    if growing:
        payload = packet = b""
        gc.collect()
        cost.growth = max(cost.growth, _kept(arena.engine) - before)
    else:
        cost.nanoseconds = min(cost.nanoseconds, arena.cpu)
    arena.forget()


def measure(
    role: str, stage: str, *, engine: Engine = "aioquic", packets: int, runs: int, only: str = ""
) -> list[Cost]:
    """Measure all kinds of which the name has `only` in it; those of honest traffic come first."""
    kinds = OPEN if stage == "open" else ANY_TIME
    honest = [Cost(kind) for kind in HONEST]
    costs = [Cost(kind) for kind in kinds if only in kind.name]
    server, victim = Arena("server", engine), Arena(role, engine)
    gc.collect()
    gc.disable()
    try:
        for _ in range(runs):
            for cost in honest:
                attack(server, cost, "open", packets)
            for cost in costs:
                attack(victim, cost, stage, packets)
        tracemalloc.start(1)
        for cost in costs:
            attack(victim, cost, stage, packets)
    finally:
        tracemalloc.stop()
        gc.enable()
    return honest + costs


def too_slow(honest: list[Cost], cost: Cost, engine: Engine) -> float:
    """How many times the CPU that a kind may take it takes: above 1 it is too slow."""
    return cost.nanoseconds / (cost.kind.ratio * SCALES[engine] * allowed(honest, cost))


def grows(cost: Cost, engine: Engine) -> bool:
    """Whether it makes the victim keep more than it may."""
    most = GROWS_WITH_QUINN.get(cost.kind.name, 0) if engine == "quinn" else 0
    return cost.growth > max(cost.kind.growth, most)


def allowed(honest: list[Cost], cost: Cost) -> float:
    """The CPU in nanoseconds that honest packets of the same size would take.

    Each packet has its cost, and each byte: both are known from small and from full ones.
    """
    small, *full_packets, end = honest
    big = max(full_packets, key=lambda one: one.per_byte)
    per_packet = small.nanoseconds / small.packets
    nanoseconds = max(
        big.per_byte * cost.size, min(per_packet * cost.packets, small.per_byte * cost.size)
    )
    # A connection ends once; to have it end again takes another handshake.
    return nanoseconds + (end.nanoseconds if cost.closed else 0)


def main(arguments: list[str] | None = None) -> int:
    """Print a table; the exit status is 1 where a kind is above a bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packets", type=int, default=PACKETS)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--only", default="", help="a part of the kinds' names")
    parser.add_argument("--engine", default="aioquic", choices=["aioquic", "quinn"])
    options = parser.parse_args(arguments)
    above = 0
    for role in ("server", "client"):
        for stage in ("initial", "handshake", "open"):
            costs = measure(
                *(role, stage),
                engine=options.engine,
                packets=options.packets,
                runs=options.runs,
                only=options.only,
            )
            honest = costs[: len(HONEST)]
            print(f"\n{role}, {stage}")
            for cost in costs:
                ratio = cost.nanoseconds / allowed(honest, cost)
                bad = not cost.kind.honest and too_slow(honest, cost, options.engine) > 1
                kept = grows(cost, options.engine)
                above += bad or kept
                print(
                    f"  {cost.kind.name:50} {cost.nanoseconds / cost.packets / 1e3:9.1f} us/packet"
                    f" {cost.per_byte:8.1f} ns/byte {ratio:7.2f} x {cost.growth >> 10:6} KiB"
                    f" {'SLOW' if bad else '    '} {'GROWS' if kept else '     '} {cost.closed}",
                    flush=True,
                )
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
