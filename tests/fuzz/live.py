"""Packets into a live connection: before its handshake is complete and after.

Many inputs go to one connection, until it closes or has had its share; a finding is the
inputs that the connection has had, in their order.
"""

from __future__ import annotations

from aioquic import tls

from pingpong.ping import Mode
from pingpong.webtransport import varint
from pingpong.webtransport.quic.config import Engine
from pingpong.webtransport.quic.connection import AioquicConnection
from tests.fuzz import content, frames
from tests.fuzz.arena import ELSEWHERE, HOSTILE, VICTIM, Arena, Client, Hostile, check_accounts
from tests.fuzz.source import Source

_CALM = 8
"""How much rarer errors are than in inputs that stand alone."""
_SHARE = 400
"""Inputs that one connection gets at most."""
_OTHERS_EVERY = 16
"""Inputs between two pings of the healthy peer."""
PINGS: tuple[Mode, ...] = ("datagram", "stream", "streams", "uni")
_STREAMS = {"server": [0, 2, 4, 6, 8, 10], "client": [0, 3, 1, 5, 7, 11]}
"""Those that a peer can send on, the session's own and the control stream first."""


class Live:
    """Packets of a hostile peer to a victim in some role: `server` or `client`.

    `stage` says how far the hostile connection is: `initial` (nothing has come that is
    genuine), `handshake` (keys are there, nothing is complete), `open` (a session).
    """

    def __init__(self, role: str, stage: str, engine: Engine = "aioquic") -> None:
        self.role = role
        self.engine: Engine = engine
        self.stage = stage
        self.history: list[bytes] = []
        self.records: dict[str, int] = {}
        self._arena: Arena | None = None
        self._hostile: Hostile | None = None
        self.received = 0
        """Bytes that the victim was sent by the hostile peer."""
        self._view: frames.View
        self._genuine: dict[tls.Epoch, bytes]
        self._uses = 0

    @property
    def cpu(self) -> int:
        """Nanoseconds that the victim has worked."""
        return 0 if self._arena is None else self._arena.cpu

    def reset(self) -> None:
        """Forget everything, as before the first input."""
        self._arena = self._hostile = None
        self.history = []

    def run(self, data: bytes) -> None:
        """Give the victim what this input makes. Raises whatever is a finding."""
        arena = self._arena
        if arena is None:
            arena = self._arena = Arena(self.role, self.engine)
        if self._hostile is None:
            self.history = []
            self._uses = 0
            self._hostile = self._begin(arena)
        self.history.append(data)
        self._uses += 1
        self._attack(arena, self._hostile, Source(data, _CALM))
        if self._uses % _OTHERS_EVERY == 0:
            arena.check_others()
        if self._is_over(arena) or self._uses >= _SHARE:
            self.finish()

    def finish(self) -> None:
        """End the hostile connection and look at what it leaves."""
        arena = self._arena
        if arena is None or self._hostile is None:
            return
        closed = arena.closed
        name = "open" if closed is None else f"{closed.code:#x} {closed.reason}"
        self.records[name] = self.records.get(name, 0) + 1
        arena.forget()
        check_accounts(arena.router.counters)
        arena.check_others()
        self._hostile = None

    def _is_over(self, arena: Arena) -> bool:
        return arena.closed is not None

    def _begin(self, arena: Arena) -> Hostile:
        self._view = view = frames.View(self.role == "server", application=self._application)
        hostile, self._genuine = begin(arena, self.stage)
        if self.stage == "open":
            streams = _STREAMS[self.role]
            for stream_id in streams:
                stream = hostile.quic._streams.get(stream_id)
                view.offsets[stream_id] = stream.sender.highest_offset if stream else 0
            view.critical = (streams[1],)
        return hostile

    # The attack.

    def _application(self, source: Source, view: frames.View, stream_id: int) -> bytes:
        response = not view.is_client
        if stream_id < 0:
            session_id = source.integer() if source.chance(16) else 0
            return source.varint(session_id) + content.message(source)
        uni = bool(stream_id & 2)
        if view.offsets.get(stream_id, 0) == 0 and not source.chance(8):
            if response and not uni and stream_id & 1:
                return content.stream_header(source, uni=False) + content.messages(source)
            return content.beginning(source, uni=uni, response=response)
        if stream_id == 0:
            return content.request_frame(source, response=response)
        if stream_id == _STREAMS[self.role][1]:
            return content.control_frame(source)
        return content.following(source, uni=uni, response=response)

    def _attack(self, arena: Arena, hostile: Hostile, source: Source) -> None:
        view = self._view
        attacked = None if arena.attacked is None else arena.attacked.quic
        view.sent = hostile.expected
        # Of another engine the first is used throughout, and not retired.
        if isinstance(attacked, AioquicConnection):
            view.issued = attacked._quic._host_cid_seq
            cid = hostile.cid or hostile.quic._peer_cid.cid
            for issued in attacked._quic._host_cids:
                if issued.cid == cid:
                    view.in_use = issued.sequence_number
        if self.stage == "open" and arena.client is not None and source.chance(4):
            self._ping(arena.client, source.pick(PINGS))
        acknowledged = (
            hostile.honest_ack() if self.stage == "open" and not source.chance(4) else b""
        )
        for packet in self._packets(hostile, source, acknowledged):
            address = ELSEWHERE if source.chance(64) and self.role == "server" else HOSTILE
            self.received += len(packet)
            arena.receive(packet, address)
        sent = arena.transmit()
        if self.stage == "open":
            for packets in sent.values():
                hostile.take(packets)
            if isinstance(attacked, AioquicConnection):
                ids = attacked.connection_ids
                if ids and hostile.quic._peer_cid.cid not in ids:
                    hostile.cid = ids[0]
        arena.pass_time(0.000_5 if not source.chance(64) else source.pick((0.03, 0.3, 3.0)))
        sent = arena.transmit()
        if self.stage == "open":
            for packets in sent.values():
                hostile.take(packets)

    def _ping(self, client: Client, mode: Mode) -> None:
        """Have the victim send a ping, if it can."""
        if client.try_to_ping(mode) and client.session is not None:
            for stream in client.session.streams:
                if stream.is_local and not stream.id & 2:
                    self._view.offsets.setdefault(stream.id, 0)

    def _packets(self, hostile: Hostile, source: Source, begin: bytes) -> list[bytes]:
        """UDP payloads: one for the most part, or two, or one that is not as it should be."""
        view = self._view
        epoch = tls.Epoch.ONE_RTT
        if self.stage != "open":
            epoch = tls.Epoch.INITIAL
            if self.stage == "handshake" and not source.chance(3):
                epoch = tls.Epoch.HANDSHAKE
            view.crypto = self._genuine.get(epoch, b"")
        handshake = self.stage != "open"
        payload = frames.payload(source, view, handshake=handshake)
        number = None
        bits = 0
        if source.chance(24):
            kind = source.byte() % 5 if source.error(2) else source.pick((0, 1, 3))
            if kind == 0:
                hostile.quic._packet_number += 1 + source.below(1_000)
            elif kind == 1:
                number = source.below(hostile.quic._packet_number + 1)
            elif kind == 2:
                bits = source.pick((0x08, 0x10, 0x04, 0x20))
            elif kind == 3 and epoch is tls.Epoch.ONE_RTT:
                hostile.quic._cryptos[epoch].update_key()
        packet = hostile.packet(begin + payload, epoch=epoch, number=number, bits=bits)
        if not source.chance(24):
            return [packet]
        kind = source.byte() % 5
        if kind == 0:
            return [packet, packet]
        if kind == 1:
            return [source.damaged(packet)]
        if kind == 2:
            return [packet + source.take(64)]
        if kind == 3:
            return [packet, packet[:40] + source.take(200)]
        return [packet + packet, packet[: source.below(len(packet))]]


def begin(
    arena: Arena, stage: str, *, plain: bool = False
) -> tuple[Hostile, dict[tls.Epoch, bytes]]:
    """A hostile connection at a stage, and the genuine handshake messages that it has sent.

    `plain`: its session, if it has one, speaks plain ping-pong.
    """
    if stage == "open":
        return arena.open(plain=plain), {}
    made = arena.begin()
    if arena.role == "server":
        assert isinstance(made, AioquicConnection)
        first = [packet for _, packets in arena.evil.transmit(arena.now) for packet in packets]
        genuine = _handshake_messages(made)
        if stage == "initial":
            # The server is to know of the connection, but of nothing that it could act on.
            arena.receive(Hostile(made).packet(b"\x06\x40\xff\x01\0", epoch=tls.Epoch.INITIAL))
        else:
            for packet in first:
                arena.receive(packet)
            for packet in arena.transmit().get(HOSTILE, []):
                arena.evil.receive(packet, VICTIM, arena.now, 0)
            genuine |= _handshake_messages(made)
        return Hostile(made), genuine
    for packet in arena.transmit().get(HOSTILE, []):
        arena.evil.receive(packet, VICTIM, arena.now, 0)
    flight = [packet for _, packets in arena.evil.transmit(arena.now) for packet in packets]
    made = arena.raw.quic
    if stage == "handshake":
        arena.receive(split(flight[0])[0])
    return Hostile(made), _handshake_messages(made)


def _handshake_messages(made: AioquicConnection) -> dict[tls.Epoch, bytes]:
    messages = {}
    for epoch in (tls.Epoch.INITIAL, tls.Epoch.HANDSHAKE):
        stream = made._quic._crypto_streams.get(epoch)
        if stream is not None and len(stream.sender._buffer):
            messages[epoch] = bytes(stream.sender._buffer)
    return messages


def split(datagram: bytes) -> list[bytes]:
    """The packets that a UDP payload holds; behind those with a long header is the rest."""
    packets = []
    while len(datagram) > 40 and datagram[0] & 0x80:
        position = 6 + datagram[5]
        position += 1 + datagram[position]
        if not datagram[0] & 0x30:
            size, position = varint.decode(datagram, position) or (0, position)
            position += size
        length, position = varint.decode(datagram, position) or (0, position)
        packets.append(datagram[: position + length])
        datagram = datagram[position + length :]
    return [*packets, datagram] if datagram else packets
