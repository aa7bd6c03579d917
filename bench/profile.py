"""Prints where the CPU time of a ping goes on the server, layer by layer.

`python bench/profile.py` runs it in a minute; `--help` shows its options. Server and client are in
one process, on a socket each over loopback, and take turns without an event loop, so that nothing
is measured but the server's work from a packet to its answer. The clock is read where one layer
calls another. The same work is measured without these clocks too; what they take is the difference,
and is subtracted, the same for each call from layer to layer.

A sample is the time of 8 pings, one at a time, with the acknowledgements that the client sends
between them, if it does: mostly they come with the next ping. The table is the mean of the cheapest
quarter of the samples. The turn of the event loop is measured apart.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import fcntl
import json
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.append(str(Path(__file__).resolve().parent.parent / "services"))

import uvloop

from pingpong.lifecycle import collect_garbage_seldom
from pingpong.ping import DEFAULT_SIZE, PROTOCOL, encode_ping, frame
from pingpong.server.sessions.counters import MessageCounters
from pingpong.server.sessions.handlers import PingSession, PingStream, Router
from pingpong.server.sessions.messages import PausingStream
from pingpong.webtransport import (
    Connection,
    ConnectionHandler,
    Request,
    Session,
    SessionHandler,
    Stream,
    StreamHandler,
)
from pingpong.webtransport.asyncio import EndpointConfig, Limits, listen
from pingpong.webtransport.asyncio.endpoint import UdpEndpoint
from pingpong.webtransport.certificates import Certificate, make_certificate
from pingpong.webtransport.quic.config import Engine, ServerIdentity, Windows
from pingpong.webtransport.quic.connection import AioquicConnection
from pingpong.webtransport.quic.endpoint import AioquicEndpoint
from pingpong.webtransport.quic.engines import is_installed, make_endpoint
from pingpong.webtransport.quic.keys import PacketKeys
from pingpong.webtransport.udp.pump import Pump

HOST = "127.0.0.1"
MODES = ("datagram", "stream", "streams")
ENGINES: tuple[Engine, ...] = ("aioquic", "quinn")
PLAIN_SIZE = 32
"""Bytes of a plain ping in a datagram; on a stream it is `ping`."""
SAMPLE = 8
"""Pings of a sample."""
WARM_UP = 30
"""Samples that are not counted: caches fill, windows widen."""
TURNS = 4
"""New servers with clocks, and as many without, by turns."""

RECV, SEND, OTHER_CALL = "system call: in", "system call: out", "system call: other"
SOCKET_IN, SOCKET_OUT = "socket in", "socket out"
QUIC_IN, QUIC_OUT, CRYPTO = "QUIC in", "QUIC out", "QUIC: encryption"
SESSION, PING, ENDPOINT = "HTTP/3, session", "ping", "endpoint, timers"
LAYERS = (
    *(RECV, OTHER_CALL, SOCKET_IN, QUIC_IN, CRYPTO, SESSION, PING, QUIC_OUT),
    *(ENDPOINT, SOCKET_OUT, SEND),
)
SYSTEM_CALLS = (RECV, SEND, OTHER_CALL)
ENGINE_LAYERS = (QUIC_IN, QUIC_OUT, CRYPTO)
OTHER_LAYERS = tuple(each for each in LAYERS if each not in ENGINE_LAYERS + SYSTEM_CALLS)
_OUTSIDE = "outside"
_OWN_SHARE = 0.4
"""The part of a clock's cost that counts as time of the layer that is called."""


class Meter:
    """Adds up the nanoseconds in each layer, without those in the layers that it calls."""

    def __init__(self) -> None:
        self.spent: dict[str, int] = dict.fromkeys((*LAYERS, _OUTSIDE), 0)
        self.clocks: dict[str, float] = dict.fromkeys((*LAYERS, _OUTSIDE), 0.0)
        """Clocks that count as time of a layer, in parts of a call from one layer to another."""
        self.is_on = False
        self._layer = _OUTSIDE
        self._since = 0

    def clocked(self, function: Callable[..., Any], layer: str) -> Callable[..., Any]:
        """The function, whose time counts as that of `layer`."""
        spent, clocks = self.spent, self.clocks
        clock = time.perf_counter_ns

        def clocked(*args: Any, **kwargs: Any) -> Any:
            caller = self._layer
            if caller == layer or not self.is_on:
                return function(*args, **kwargs)
            now = clock()
            spent[caller] += now - self._since
            clocks[caller] += 1 - _OWN_SHARE
            clocks[layer] += _OWN_SHARE
            self._layer = layer
            self._since = clock()
            try:
                return function(*args, **kwargs)
            finally:
                now = clock()
                spent[layer] += now - self._since
                self._layer = caller
                self._since = clock()

        return clocked

    def reset(self) -> None:
        """Begin again."""
        for layer in self.spent:
            self.spent[layer] = 0
            self.clocks[layer] = 0.0
        self._since = time.perf_counter_ns()


@dataclass(frozen=True, slots=True)
class Sample:
    """What `SAMPLE` pings took, in nanoseconds."""

    total: int
    spent: dict[str, int]
    clocks: dict[str, float]


def _boundaries(engine: Engine) -> list[tuple[Any, str, str]]:
    """Where a layer is entered: the class (or module), its method, and the layer."""
    endpoint: type[Any] = AioquicEndpoint
    connection: type[Any] = AioquicConnection
    if engine == "quinn":
        from pingpong.webtransport.quic import quinn

        endpoint, connection = quinn.QuinnEndpoint, quinn.QuinnConnection
    return [
        (Pump, "receive_pending", SOCKET_IN),
        (Pump, "send", SOCKET_OUT),
        (fcntl, "ioctl", OTHER_CALL),
        (UdpEndpoint, "flush", ENDPOINT),
        (endpoint, "receive", QUIC_IN),
        (endpoint, "transmit", QUIC_OUT),
        (connection, "send_datagram", QUIC_OUT),
        (connection, "send_stream", QUIC_OUT),
        (connection, "buffered", QUIC_OUT),
        (PacketKeys, "decrypt_packet", CRYPTO),
        (PacketKeys, "encrypt_packet", CRYPTO),
        (PacketKeys, "encrypt_short", CRYPTO),
        (Connection, "datagram_received", SESSION),
        (Connection, "stream_data_received", SESSION),
        (Session, "send_datagram", SESSION),
        (Stream, "send", SESSION),
        (Stream, "__init__", SESSION),
        (PingSession, "datagram_received", PING),
        (PingSession, "stream_opened", PING),
        (PingStream, "stream_data_received", PING),
        (PausingStream, "stream_writable", PING),
    ]


@contextlib.contextmanager
def clocks(meter: Meter, engine: Engine) -> Iterator[None]:
    """Measure the layers of servers that begin in this context."""
    with contextlib.ExitStack() as stack:
        for owner, name, layer in _boundaries(engine):
            original = getattr(owner, name)
            inherited = isinstance(owner, type) and name not in vars(owner)
            setattr(owner, name, meter.clocked(original, layer))
            if inherited:
                stack.callback(delattr, owner, name)
            else:
                stack.callback(setattr, owner, name, original)
        yield


def server_socket(meter: Meter | None) -> socket.socket:
    """A bound socket, whose system calls are measured."""

    class Measured(socket.socket):
        pass

    if meter is not None:
        for name, layer in (
            *(("recvmsg", RECV), ("recvmsg_into", RECV), ("recvfrom", RECV)),
            *(("send", SEND), ("sendto", SEND), ("sendmsg", SEND)),
        ):
            setattr(Measured, name, meter.clocked(getattr(socket.socket, name), layer))
    sock = Measured(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((HOST, 0))
    return sock


class Client(ConnectionHandler, SessionHandler, StreamHandler):
    """A client that sends one ping at a time, and acknowledges before it sends the next."""

    def __init__(self, server: socket.socket, engine: Engine, mode: str, *, is_v1: bool) -> None:
        self.answered = 0
        self._mode = mode
        self._message = encode_ping(1, 1, DEFAULT_SIZE) if is_v1 else b"ping".ljust(PLAIN_SIZE)
        self._on_stream = frame(self._message) if is_v1 else b"ping"
        self._request = Request(HOST, "/ping", protocols=(PROTOCOL,) if is_v1 else ())
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.connect(server.getsockname())
        self._sock.setblocking(False)
        self._server = server.getsockname()
        self._session: Session | None = None
        self._stream: Stream | None = None
        self._engine = make_endpoint(
            EndpointConfig(engine=engine, windows=Windows(streams_uni=1024)), lambda: None
        )
        self._engine.connect(
            self._server,
            ServerIdentity(HOST, insecure=True),
            lambda quic: Connection(quic, self, Limits()),
            time.monotonic(),
        )
        self.transmit()

    def connection_ready(self, connection: Connection) -> None:
        self._session = connection.open_session(self._request, self)

    def datagram_received(self, session: Session, data: bytes, arrival: int) -> None:
        self.answered += 1

    def stream_data_received(
        self, stream: Stream, data: bytes, end_stream: bool, arrival: int
    ) -> None:
        self.answered += bool(data)

    @property
    def is_ready(self) -> bool:
        """Whether the session is established."""
        return self._session is not None and self._session.max_datagram_size > 0 and self._up

    _up = False

    def session_established(self, session: Session) -> None:
        self._up = True

    def ping(self) -> None:
        """Send a ping."""
        session = self._session
        assert session is not None
        if self._mode == "datagram":
            session.send_datagram(self._message)
        elif self._mode == "stream":
            if self._stream is None:
                self._stream = session.open_stream(self)
            self._stream.send(self._on_stream)
        else:
            session.open_stream(self).send(self._on_stream, True)
        self.transmit()

    def transmit(self) -> bool:
        """Send the packets that are due. Returns whether there were any."""
        groups = self._engine.transmit(time.monotonic())
        for _, packets in groups:
            for packet in packets:
                self._sock.send(packet)
        return bool(groups)

    def receive(self) -> None:
        """Process the packets that have arrived, and acknowledge them if that is due."""
        while True:
            try:
                packet = self._sock.recv(65_535)
            except BlockingIOError:
                break
            now = time.monotonic_ns()
            self._engine.receive(packet, self._server, now * 1e-9, now)
        timer = self._engine.next_timer()
        if timer is not None and timer <= time.monotonic():
            self._engine.handle_timers(time.monotonic())
        self.transmit()

    def close(self) -> None:
        self._engine.close()
        self._sock.close()


@dataclass(slots=True)
class Row:
    """What a ping costs on the server, in microseconds."""

    engine: str
    mode: str
    protocol: str
    layers: dict[str, float] = field(default_factory=dict)
    total: float = 0.0
    """As measured without clocks between the layers."""


class Bench:
    """Servers of one engine, one after the other."""

    def __init__(self, certificate: Certificate, client_engine: Engine, samples: int) -> None:
        self._certificate = certificate
        self._client_engine = client_engine
        self._samples = samples

    def row(self, engine: Engine, mode: str, *, is_v1: bool) -> Row:
        """Measure one combination."""
        row = Row(engine, mode, PROTOCOL if is_v1 else "plain")
        meter = Meter()
        plain, layered = [], []
        for _ in range(TURNS):
            plain += self._measure(engine, mode, is_v1, None)
            with clocks(meter, engine):
                layered += self._measure(engine, mode, is_v1, meter)
        plain, layered = _cheapest(plain), _cheapest(layered)
        row.total = statistics.mean(sample.total for sample in plain) / SAMPLE / 1000
        spent, calls = (
            {
                layer: statistics.mean(getattr(sample, what)[layer] for sample in layered) / SAMPLE
                for layer in LAYERS
            }
            for what in ("spent", "clocks")
        )
        excess = (sum(spent.values()) - row.total * 1000) / sum(calls.values())
        row.layers = {layer: (spent[layer] - excess * calls[layer]) / 1000 for layer in LAYERS}
        return row

    def _measure(self, engine: Engine, mode: str, is_v1: bool, meter: Meter | None) -> list[Sample]:
        counters = MessageCounters()
        sock = server_socket(meter)
        config = EndpointConfig(engine=engine, certificate=self._certificate)
        listener = listen(
            Router(65_535, counters, rate_limit=1_000_000),
            sock=sock,
            config=config,
            limits=Limits(max_sessions=16),
            answered=counters.send_delay.record_sent,
        )
        client = Client(sock, self._client_engine, mode, is_v1=is_v1)
        receive = listener.endpoint.pump.receive_pending

        def serve() -> int:
            if meter is not None:
                meter.is_on = True
            began = time.perf_counter_ns()
            receive()
            spent = time.perf_counter_ns() - began
            if meter is not None:
                meter.is_on = False
            if listener.endpoint.engine.waiting_packets:
                # The machine paused this process, so the connection has used its share of time.
                listener.receive_pending()
            return spent

        try:
            while not client.is_ready:
                serve()
                client.receive()
            samples = []
            for number in range(WARM_UP + self._samples):
                spent = 0
                if meter is not None:
                    meter.reset()
                for _ in range(SAMPLE):
                    client.ping()
                    spent += serve()
                    client.receive()
                    if _has_packet(sock):
                        spent += serve()
                if number < WARM_UP:
                    continue
                if meter is None:
                    samples.append(Sample(spent, {}, {}))
                else:
                    samples.append(Sample(spent, dict(meter.spent), dict(meter.clocks)))
            sent = (WARM_UP + self._samples) * SAMPLE
            if client.answered < sent:
                raise RuntimeError(f"{sent - client.answered} of {sent} pings got no answer")
            return samples
        finally:
            client.close()
            listener.endpoint.close()


def _cheapest(samples: list[Sample]) -> list[Sample]:
    return sorted(samples, key=lambda sample: sample.total)[: max(1, len(samples) // 4)]


def _has_packet(sock: socket.socket) -> bool:
    try:
        return bool(sock.recvfrom(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return False


async def loop_turn(count: int = 20_000) -> float:
    """Microseconds of a turn of the event loop that finds a packet: epoll_wait, and the call."""
    loop = asyncio.get_running_loop()
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    done = loop.create_future()
    times: list[int] = []
    ended = time.perf_counter_ns()

    def readable() -> None:
        nonlocal ended
        times.append(time.perf_counter_ns() - ended)
        other.recv(16)
        if len(times) < count:
            one.send(b"packet")
            ended = time.perf_counter_ns()
        elif not done.done():
            done.set_result(None)

    loop.add_reader(other.fileno(), readable)
    one.send(b"packet")
    await done
    loop.remove_reader(other.fileno())
    one.close()
    other.close()
    return statistics.mean(sorted(times)[: count // 2]) / 1000


def table(rows: list[Row], turn: float) -> list[str]:
    """The rows as a table, a column a row."""
    width = 10
    lines = [
        " " * 22 + "".join(f"{row.mode:>{width}}" for row in rows),
        " " * 22 + "".join(f"{row.protocol.removeprefix('pingpong.'):>{width}}" for row in rows),
    ]
    for layer in LAYERS:
        if any(row.layers[layer] >= 0.05 for row in rows):
            cells = (f"{row.layers[layer]:>{width}.1f}" for row in rows)
            lines.append(f"{layer:<22}" + "".join(cells))

    def line(title: str, value: Callable[[Row], float]) -> None:
        lines.append("".join([f"{title:<22}", *(f"{value(row):>{width}.1f}" for row in rows)]))

    line("together", lambda row: row.total)
    for title, layers in (
        ("- the engine", ENGINE_LAYERS),
        ("- system calls", SYSTEM_CALLS),
        ("- the other layers", OTHER_LAYERS),
    ):
        line(title, partial(_sum_of, layers))
    lines.append(f"{'and a turn of the loop':<22}{turn:>{width}.1f}")
    return lines


def _sum_of(layers: tuple[str, ...], row: Row) -> float:
    return sum(row.layers[layer] for layer in layers)


async def main(arguments: argparse.Namespace) -> int:
    collect_garbage_seldom()
    names = ["localhost", HOST]
    certificate = make_certificate(names, datetime.datetime.now(datetime.UTC))
    client: Engine = "quinn" if is_installed("quinn") else "aioquic"
    bench = Bench(certificate, client, arguments.samples)
    turn = await loop_turn()
    print(f"Microseconds a ping on the server; the client is of the engine {client}.")
    everything = []
    for engine in arguments.engine or [each for each in ENGINES if is_installed(each)]:
        rows = [
            bench.row(engine, mode, is_v1=is_v1)
            for is_v1 in (False, True)
            if arguments.protocol in (None, "v1" if is_v1 else "plain")
            for mode in arguments.mode or MODES
        ]
        print(f"\n{engine}")
        print("\n".join(table(rows, turn)), flush=True)
        everything += rows
    if arguments.json is not None:
        text = json.dumps([asdict(row) for row in everything], indent=1)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Where the CPU time of a ping goes, by layers.")
    parser.add_argument("--engine", action="append", choices=ENGINES)
    parser.add_argument("--mode", action="append", choices=MODES)
    parser.add_argument("--protocol", choices=("plain", "v1"))
    parser.add_argument("--samples", type=int, default=100, help=f"of {SAMPLE} pings, a server")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all results there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(uvloop.run(main(_arguments())))
