"""The fast path through aioquic writes, and keeps, what aioquic's own does."""

from __future__ import annotations

import random
from typing import Any

import pytest
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.stream import QuicStream

from pingpong.webtransport.quic import connection as connections
from pingpong.webtransport.quic.aioquic import HookedConnection
from pingpong.webtransport.session import Session
from tests.webtransport.wire import Recorder, Wire

Frame = tuple[Any, ...]
NUMBERS = {0x00: 0, 0x01: 0, 0x04: 3, 0x05: 2, 0x10: 1, 0x11: 2, 0x12: 1, 0x13: 1, 0x24: 4}
"""The integers in a frame of these types."""


def frames(payload: bytes) -> list[Frame]:
    """The frames of a packet, sorted: streams of the same packet are in any order."""
    buffer = Buffer(data=payload)
    pull = buffer.pull_uint_var
    found: list[Frame] = []
    while not buffer.eof():
        kind = pull()
        if kind == 0x02:
            largest, _, count = pull(), pull(), pull()
            found.append((kind, largest, *(pull() for _ in range(2 * count + 1))))
        elif 0x08 <= kind <= 0x0F:
            stream_id, offset = pull(), pull() if kind & 4 else 0
            found.append((kind, stream_id, offset, buffer.pull_bytes(pull())))
        elif kind == 0x31:
            found.append((kind, buffer.pull_bytes(pull())))
        else:
            found.append((kind, *(pull() for _ in range(NUMBERS[kind]))))
    return sorted(found, key=repr)


class Recording:
    """A pair of sides, and the frames of each packet that they send."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.session, self.recorder, self.peer, self.peer_recorder = self.wire.pair()
        self.wire.run(1)
        self.sent: list[tuple[str, list[Frame]]] = []
        self.short_packets = 0
        for name, side in (("client", self.wire.client), ("server", self.wire.server)):
            quic = side.engine._quic
            # Handshakes differ by the few bytes of a signature, and packet numbers at random.
            quic._loss._cc.congestion_window = 15_000
            quic._loss._pacer.packet_time = None
            quic._packet_number = quic._skip_at = 1_000
            quic._skip_at = 1 << 40
            self._record(name, quic)

    def _record(self, name: str, quic: HookedConnection) -> None:
        encrypt, encrypt_short = quic._keys.encrypt_packet, quic._keys.encrypt_short

        def packet(plain_header: bytes, plain_payload: bytes, packet_number: int) -> bytes:
            self.sent.append((name, frames(plain_payload)))
            return bytes(encrypt(plain_header, plain_payload, packet_number))

        def short_packet(first: int, peer_id: bytes, number: int, payload: bytes) -> bytes:
            self.short_packets += 1
            self.sent.append((name, frames(payload)))
            return encrypt_short(first, peer_id, number, payload)

        write = quic.datagrams_to_send

        def write_in_order(now: float) -> list[tuple[bytes, Any]]:
            # aioquic leaves streams that were served in the order of a set.
            quic._streams_queue.sort(key=lambda stream: stream.stream_id or 0)
            return write(now)

        quic.datagrams_to_send = write_in_order  # type: ignore[method-assign]
        quic._keys.encrypt_packet = packet  # type: ignore[method-assign]
        quic._keys.encrypt_short = short_packet  # type: ignore[method-assign]

    def act(self, seed: int) -> list[object]:
        """Do what the seed says. Returns what can be seen of both sides after each step."""
        chance = random.Random(seed)
        loses = chance.random() < 0.5
        seen: list[object] = []
        self.wire.lose = lambda packet, to_server: loses and chance.random() < 0.1
        for _ in range(60):
            session = chance.choice((self.session, self.peer))
            for _ in range(chance.choice((1, 1, 1, 2, 5))):
                self._do_something(session, chance)
            if chance.random() < 0.8:
                self.wire.step()
            else:
                self.wire.run(chance.choice((0.001, 0.05, 0.5)))
            seen.append(self._state())
        self.wire.lose = lambda packet, to_server: False
        self.wire.run(30)
        return [*seen, self._state(), self.recorder.data, self.peer_recorder.data]

    def _do_something(self, session: Session, chance: random.Random) -> None:
        data = bytes(chance.choice((1, 4, 64, 64, 900, 3_000)))
        what = chance.random()
        if what < 0.3:
            if len(data) <= session.max_datagram_size:
                session.send_datagram(data)
            return
        recorder = session.handler
        assert isinstance(recorder, Recorder)
        streams = sorted((s for s in session.streams if s.send_open), key=lambda s: s.id)
        if what < 0.6 or not streams:
            stream = session.open_stream(recorder, unidirectional=chance.random() < 0.3)
        else:
            stream = chance.choice(streams)
        if what > 0.97:
            stream.reset(7)
        else:
            stream.send(data if chance.random() < 0.9 else b"", chance.random() < 0.5)

    def _state(self) -> list[object]:
        state: list[object] = []
        for side in (self.wire.client, self.wire.server):
            quic = side.engine._quic
            sender = {i: s.sender for i, s in quic._streams.items()}
            state.append(
                {
                    "timer": quic.get_timer(),
                    "in flight": quic._loss.bytes_in_flight,
                    "window": quic._loss.congestion_window,
                    "number": quic._packet_number,
                    "credit used": quic._remote_max_data_used,
                    "streams": {
                        i: (s._buffer_start, s._buffer_stop, s.highest_offset, s.is_finished)
                        for i, s in sender.items()
                    },
                }
            )
        return state


@pytest.mark.parametrize("seed", range(40))
def test_both_ways_send_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # So that the order in aioquic's sets of streams is the same each time.
    monkeypatch.setattr(QuicStream, "__hash__", lambda stream: stream.stream_id, raising=False)
    short = Recording()
    # Above what `OneRttConnection` overrides.
    monkeypatch.setattr(connections, "OneRttConnection", HookedConnection)
    long = Recording()
    states, expected = short.act(seed), long.act(seed)
    for packet, its in zip(short.sent, long.sent, strict=False):
        assert packet == its
    for state, its_state in zip(states, expected, strict=True):
        assert state == its_state
    assert len(short.sent) == len(long.sent)
    assert short.short_packets > len(short.sent) // 4
    assert not long.short_packets
