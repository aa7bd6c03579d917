"""One endpoint under attack, a healthy peer beside the hostile one, time as a number.

The hostile peer is an endpoint of ours as far as the keys go; from then on its packets are
made by hand (`Hostile.packet`), and what it is sent is only decrypted, so as to know what it
may acknowledge.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from aioquic import tls
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.crypto import CryptoError  # type: ignore[attr-defined]
from aioquic.quic.packet import push_ack_frame
from aioquic.quic.rangeset import RangeSet

from pingpong.link.pinger import Pinger, SendError
from pingpong.ping import PROTOCOL, Mode
from pingpong.server.sessions.counters import DATAGRAM, MALFORMED, MODES, TOO_LARGE, MessageCounters
from pingpong.server.sessions.handlers import Router
from pingpong.statistics import Answer
from pingpong.webtransport import ConnectionHandler
from pingpong.webtransport.connection import Connection
from pingpong.webtransport.errors import StateError
from pingpong.webtransport.events import ConnectionClosed, Request, SessionClosed
from pingpong.webtransport.http3.frames import encode_headers
from pingpong.webtransport.limits import Limits
from pingpong.webtransport.quic import engines
from pingpong.webtransport.quic.config import EndpointConfig, Engine, ServerIdentity
from pingpong.webtransport.quic.connection import AioquicConnection
from pingpong.webtransport.quic.connection_ids import CONNECTION_ID_SIZE
from pingpong.webtransport.quic.engine import QuicConnection, QuicEndpoint, QuicEvents
from pingpong.webtransport.session import Session
from pingpong.webtransport.states import State
from tests.webtransport.raw import CONNECT, Raw
from tests.webtransport.wire import certificate

VICTIM = ("192.0.2.1", 4433)
HOSTILE = ("198.51.100.7", 50_000)
ELSEWHERE = ("198.51.100.8", 50_001)
HEALTHY = ("203.0.113.9", 50_002)
LIMITS = Limits()
MAX_MESSAGE = 65_536
REQUEST = (*CONNECT[:4], (b":path", b"/ping"), (b"wt-available-protocols", b'"pingpong.v1"'))
RESPONSE = ((b":status", b"200"), (b"wt-protocol", b'"pingpong.v1"'))
_LOOP = asyncio.new_event_loop()
_ACK_ROOM = 1_000
_BUSY = 1_000
_FORGOTTEN = 600.0
"""Seconds after which nothing is left of a connection: thrice the probe timeout, which late
acknowledgements make long (RFC 9000, section 10.2)."""
_KEEP_ALIVE = 5.0
"""Seconds after which the healthy peer pings, so as not to idle out."""


class Finding(AssertionError):  # noqa: N818 - it is what is looked for
    """What a run is to find: the text begins with its kind."""


class PongLost(Finding):
    """A healthy peer's ping got no answer."""


def endpoint(
    engine: Engine, *, server: bool, accept: Callable[[QuicConnection], QuicEvents] | None = None
) -> QuicEndpoint:
    """An endpoint of ours; one that is a server gives each connection to `accept`."""
    config = EndpointConfig(certificate=certificate() if server else None, engine=engine)
    return engines.make_endpoint(config, lambda: None, accept if server else None)


class _Pinger(Pinger):
    def __init__(self, client: Client) -> None:
        super().__init__(64, 1_000_000_000)
        self._client = client

    def answered(self, answer: Answer, size: int, at_ns: int) -> None:
        self._client.answers += 1

    def session_ended(self, closed: SessionClosed) -> None:
        self._client.note_end(closed)


class Client(ConnectionHandler):
    """A client of ours: opens one session as soon as it can, and pings on it."""

    def __init__(self) -> None:
        asyncio._set_running_loop(_LOOP)  # a future is made, which nothing here waits for
        try:
            self.pinger = _Pinger(self)
        finally:
            asyncio._set_running_loop(None)
        self.answers = 0
        self.sent = 0
        self.connection: Connection
        self.session: Session | None = None
        self.session_closed: SessionClosed | None = None
        self.closed: ConnectionClosed | None = None

    def note_end(self, closed: SessionClosed) -> None:
        if self.session_closed is not None:
            raise Finding("agree: the session ended twice")
        self.session_closed = closed

    def attach(self, quic: QuicConnection) -> QuicEvents:
        self.connection = Connection(quic, self, LIMITS)
        return self.connection

    def connection_ready(self, connection: Connection) -> None:
        try:
            self.session = connection.open_session(
                Request("localhost", "/ping", protocols=(PROTOCOL,)), self.pinger
            )
        except StateError:
            pass  # The server's settings, or its limits, do not allow it.

    def connection_closed(self, connection: Connection, closed: ConnectionClosed) -> None:
        self.closed = closed

    @property
    def established(self) -> bool:
        return self.session is not None and self.session.state is State.ESTABLISHED

    def ping(self, mode: Mode = "datagram") -> None:
        self.sent += 1
        self.pinger.ping(self.sent, mode)

    def try_to_ping(self, mode: Mode) -> bool:
        """Ping, unless there is no session, or the peer does not allow it."""
        if not self.established:
            return False
        try:
            self.ping(mode)
        except SendError:
            return False
        return True

    def check(self) -> None:
        """Every ping is accounted for; to be called once it is over."""
        if not hasattr(self.pinger, "statistics"):
            return
        self.pinger.statistics.give_up()
        summary = self.pinger.statistics.summary(0)
        if summary.sent != summary.received + summary.lost:
            raise Finding(f"account: {summary}")


class Hostile:
    """A peer that has keys, and sends what it likes."""

    def __init__(self, quic: AioquicConnection) -> None:
        self.quic = quic._quic
        self.received = RangeSet()
        """Numbers of the 1-RTT packets that it was sent."""
        self.expected = 0
        self.cid = b""

    def packet(
        self,
        payload: bytes,
        *,
        epoch: tls.Epoch = tls.Epoch.ONE_RTT,
        number: int | None = None,
        bits: int = 0,
    ) -> bytes:
        """A packet with this payload; `bits` are set in its first byte."""
        quic = self.quic
        if number is None:
            number = quic._packet_number
            quic._packet_number += 1
        payload = payload.ljust(4, b"\0")
        cid = self.cid or quic._peer_cid.cid
        number_bytes = (number & 0xFFFF).to_bytes(2, "big")
        if epoch is tls.Epoch.ONE_RTT:
            pair = quic._cryptos[epoch]
            header = bytes((0x41 | pair.key_phase << 2 | bits,)) + cid + number_bytes
            return bytes(pair.encrypt_packet(header, payload, number))
        is_initial = epoch is tls.Epoch.INITIAL
        pair = quic._cryptos_initial[1] if is_initial else quic._cryptos[epoch]
        source = quic.host_cid
        if is_initial and quic._is_client:
            room = 1200 - 1 - 4 - 2 - len(cid) - len(source) - 1 - 4 - 2 - 16
            payload = payload.ljust(room, b"\0")
        header = (
            bytes((0xC1 | (0 if is_initial else 0x20) | bits,))
            + b"\0\0\0\1"
            + bytes((len(cid),))
            + cid
            + bytes((len(source),))
            + source
            + (b"\0" if is_initial else b"")
            + (0x8000_0000 | 2 + len(payload) + 16).to_bytes(4, "big")
            + number_bytes
        )
        return bytes(pair.encrypt_packet(header, payload, number))

    def take(self, packets: list[bytes]) -> None:
        """Note which packets came."""
        pair = self.quic._cryptos[tls.Epoch.ONE_RTT]
        for packet in packets:
            if packet[0] & 0x80:
                continue
            try:
                _, _, number = pair.decrypt_packet(packet, 1 + CONNECTION_ID_SIZE, self.expected)
            except CryptoError:
                continue
            self.received.add(number)
            self.expected = max(self.expected, number + 1)
            if len(self.received) > 32:
                self.received.shift()

    def honest_ack(self) -> bytes:
        """An ACK of all that it was sent."""
        if not len(self.received):
            return b""
        buffer = Buffer(capacity=_ACK_ROOM)
        buffer.push_uint_var(2)
        push_ack_frame(buffer, self.received, 0, _ACK_ROOM)
        return bytes(buffer.data)


class Arena:
    """A victim in a role, with a healthy connection; hostile ones come and go.

    `engine` is the victim's. Its peers are aioquic's, whose keys and streams can be got at.
    """

    def __init__(self, role: str, engine: Engine = "aioquic") -> None:
        self.role = role
        self.engine: Engine = engine
        self.now = self._checked_at = 1_000.0
        self.cpu = 0
        """Nanoseconds that the victim has worked."""
        self.router = Router(MAX_MESSAGE)
        self.healthy = Client()
        self.attacked: Connection | None = None
        """The victim's half of the hostile connection, once there is one."""
        self.client: Client | None = None
        """The one under attack, where it is a client."""
        self.raw = Raw()
        accept = self._accept
        self.victim = endpoint(engine, server=role == "server", accept=accept)
        is_server = role != "server"
        served = partial(_served, Router(MAX_MESSAGE))
        self.good = endpoint("aioquic", server=is_server, accept=served)
        self.evil = self._make_evil()
        client_end = self.good if role == "server" else self.victim
        server = VICTIM if role == "server" else HEALTHY
        identity = ServerIdentity("localhost", insecure=True)
        client_end.connect(server, identity, self.healthy.attach, self.now)
        self.settle()
        if not self.healthy.established:
            raise PongLost("others: no session to begin with")
        self.attacked = None

    def _accept(self, quic: QuicConnection) -> QuicEvents:
        self.attacked = connection = Connection(quic, self.router, LIMITS)
        return connection

    @property
    def closed(self) -> ConnectionClosed | None:
        """How the hostile connection has ended, if it has."""
        return None if self.attacked is None else self.attacked.closed

    def _make_evil(self) -> QuicEndpoint:
        return endpoint(
            "aioquic", server=self.role != "server", accept=lambda quic: self.raw.attach(quic)
        )

    # Time and packets.

    def receive(self, packet: bytes, address: object = HOSTILE) -> None:
        """Give the victim a packet, its work measured."""
        began = time.thread_time_ns()
        self.victim.receive(packet, address, self.now, int(self.now * 1e9))
        self.cpu += time.thread_time_ns() - began

    def transmit(self) -> dict[object, list[bytes]]:
        """What the victim sends, by address; the healthy peer has got its own."""
        began = time.thread_time_ns()
        groups = self.victim.transmit(self.now)
        self.cpu += time.thread_time_ns() - began
        packets: dict[object, list[bytes]] = {}
        for address, some in groups:
            if address == HEALTHY:
                for packet in some:
                    self.good.receive(packet, VICTIM, self.now, int(self.now * 1e9))
            else:
                packets.setdefault(address, []).extend(some)
        return packets

    def pass_time(self, seconds: float) -> None:
        """Let the victim's timers act; what is sent to the hostile peer is lost."""
        self.now += seconds
        if self.now - self._checked_at > _KEEP_ALIVE:
            self.check_others()
        self._handle_timers()
        self._transmit_healthy()

    def _handle_timers(self) -> bool:
        """Have timers act that are due, of pacing among others; whether there were any."""
        acted = False
        for one in (self.victim, self.good, self.evil):
            timer = one.next_timer()
            if timer is not None and timer <= self.now:
                began = time.thread_time_ns()
                one.handle_timers(self.now)
                if one is self.victim:
                    self.cpu += time.thread_time_ns() - began
                acted = True
        return acted

    def _transmit_healthy(self) -> bool:
        """Hand the victim what the healthy peer sends; whether that was anything."""
        packets = [packet for _, some in self.good.transmit(self.now) for packet in some]
        for packet in packets:
            self.victim.receive(packet, HEALTHY, self.now, int(self.now * 1e9))
        return bool(packets)

    def settle(self, *, evil: bool = False) -> None:
        """Exchange packets until there are none; with the hostile peer only where `evil`."""
        for _ in range(_BUSY):
            packets = [packet for some in self.transmit().values() for packet in some]
            moved = self._transmit_healthy()
            if evil:
                for packet in packets:
                    self.evil.receive(packet, VICTIM, self.now, int(self.now * 1e9))
                for _, some in self.evil.transmit(self.now):
                    for packet in some:
                        moved = True
                        self.victim.receive(packet, HOSTILE, self.now, int(self.now * 1e9))
            if not moved and not (evil and packets) and not self._handle_timers():
                return
            self.now += 0.000_5
        raise Finding("others: the two never come to rest")

    def check_others(self) -> None:
        """The healthy ping gets its pong, at once."""
        self._checked_at = self.now
        before = self.healthy.answers
        self.healthy.ping()
        self.settle()
        if self.healthy.answers != before + 1:
            raise PongLost(f"others: no pong, {self.healthy.closed}")

    # The hostile peer.

    def begin(self) -> QuicConnection:
        """Have the hostile connection begin; nothing is exchanged yet. Its client's half."""
        identity = ServerIdentity("localhost", insecure=True)
        self.raw = Raw()
        self.attacked = None
        if self.role == "server":
            return self.evil.connect(VICTIM, identity, self.raw.attach, self.now)
        client = self.client = Client()
        made = self.victim.connect(HOSTILE, identity, client.attach, self.now)
        self.attacked = client.connection
        return made

    def open(self, *, plain: bool = False) -> Hostile:
        """A hostile connection with a session on it, of `pingpong.v1` or `plain`."""
        self.begin()
        self.settle(evil=True)
        self.raw.send_settings()
        self.settle(evil=True)
        if self.role == "server":
            self.raw.request(REQUEST[:-1] if plain else REQUEST)
        else:
            self.raw.send(0, encode_headers(RESPONSE[:-1] if plain else RESPONSE))
        self.settle(evil=True)
        assert self.attacked is not None
        assert len(self.attacked.sessions) == 1
        return Hostile(self.raw.quic)

    def close(self) -> None:
        """Have the victim end the hostile connection, if there is one that has not ended."""
        if self.attacked is not None and self.attacked.closed is None:
            self.attacked.close()

    def forget(self) -> None:
        """End what is left of the hostile connection: nothing of it is to stay."""
        self.close()
        until = self.now + _FORGOTTEN
        while self.now < until:
            if len(self.victim) == 1:
                break
            self.pass_time(0.5)
            self.settle()
        else:
            raise Finding(f"state: {len(self.victim)} connections are left")
        if self.client is not None:
            self.client.check()
        self.evil = self._make_evil()


def check_accounts(counters: MessageCounters) -> None:
    """Each ping that a server received was answered, or dropped for a reason."""
    for mode in MODES:
        dropped = sum(
            count
            for (of, reason), count in counters.dropped.items()
            if of == mode and reason != MALFORMED and (reason != TOO_LARGE or of == DATAGRAM)
        )
        if counters.received[mode] != counters.answered[mode] + dropped:
            raise Finding(f"account: {mode} {counters}")


def _served(router: Router, quic: QuicConnection) -> QuicEvents:
    return Connection(quic, router, LIMITS)
