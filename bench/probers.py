"""A process that probes many targets and reports its cost: ours, or the bare engine.

Both have a connection and a socket for each target, and send a datagram on each every second,
spread over the second. The bare engine does nothing else: no HTTP/3, no sessions, no counters.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import functools
import gc
import itertools
import json
import os
import resource
import socket
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from pingpong.client.discovery import Destination
from pingpong.client.probe.metrics import ProbeMetrics
from pingpong.client.probe.supervisor import Supervisor
from pingpong.lifecycle import collect_garbage_seldom
from pingpong.link.schedule import Schedule, first_slot, spread
from pingpong.ping import DEFAULT_SIZE, encode_ping
from pingpong.settings import ProbeSettings
from pingpong.telemetry.exposition import Format, Text
from pingpong.telemetry.logs import configure
from pingpong.telemetry.process import standard_registry
from pingpong.telemetry.scrapes import Scrapes
from pingpong.webtransport.asyncio import EndpointConfig, EngineChoice
from pingpong.webtransport.asyncio.endpoint import UdpEndpoint
from pingpong.webtransport.quic.config import ServerIdentity
from pingpong.webtransport.quic.engine import QuicConnection

from .clients import HOST, IDLE_TIMEOUT

_MESSAGE = encode_ping(1, 1, DEFAULT_SIZE)
_CONNECT = 60.0
_SETTLE = 3.0
"""Seconds after the last connection that are not measured."""

_taken: list[float] = []
"""How late each slot was, in seconds, since the measurement began."""


class _Noted(Schedule):
    """A schedule that records how late its slots are."""

    __slots__ = ()

    def take(self, now: float) -> None:
        _taken.append(now - self.next)
        super().take(now)


def _resident_memory() -> int:
    """Resident memory of this process in bytes, after garbage is freed."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        pass  # Another C library: the value is a little too high.
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class BareClient:
    """Pings on raw QUIC, with datagrams."""

    __slots__ = ("_answered", "_endpoint", "_quic", "_ready")

    def __init__(self, endpoint: UdpEndpoint, answered: Callable[[int], None]) -> None:
        self._endpoint = endpoint
        self._answered = answered
        self._quic: QuicConnection
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def connect(self, port: int) -> None:
        """Wait for the handshake."""

        def attach(quic: QuicConnection) -> BareClient:
            self._quic = quic
            return self

        self._endpoint.connect((HOST, port), ServerIdentity(HOST, insecure=True), attach)
        await self._ready

    def send(self) -> None:
        self._quic.send_datagram(_MESSAGE)
        self._endpoint.flush()

    def buffered_bytes(self) -> int:
        return 0

    def handshake_completed(self) -> None:
        self._ready.set_result(None)

    def stream_data_received(
        self, stream_id: int, data: bytes, end_stream: bool, arrival: int
    ) -> None: ...

    def stream_reset_received(self, stream_id: int, code: int, final_size: int) -> None: ...

    def stop_sending_received(self, stream_id: int, code: int) -> None: ...

    def stream_writable(self, stream_id: int) -> None: ...

    def stream_credit_received(self) -> None: ...

    def datagram_received(self, data: bytes, arrival: int) -> None:
        self._answered(1)

    def deadline_passed(self, now: float) -> None: ...

    def connection_terminated(
        self, code: int, reason: str, by_peer: bool, is_application: bool, timed_out: bool
    ) -> None:
        if not self._ready.done():
            self._ready.set_exception(ConnectionError(reason))


class Bare:
    """A connection of the bare engine, and its schedule."""

    def __init__(self, client: BareClient, name: str) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        now = time.monotonic()
        self._schedule = _Noted(first_slot(now, 1.0, spread(name)), 1.0)
        self._arm()

    def _arm(self) -> None:
        delay = max(self._schedule.next - time.monotonic(), 0)
        self._loop.call_later(delay, self._send)

    def _send(self) -> None:
        self._schedule.take(time.monotonic())
        self._arm()
        self._client.send()


class BareProbes:
    """The bare engine."""

    def __init__(self, engine: EngineChoice) -> None:
        self.answered = 0
        self._engine = engine
        self._kept: list[Bare] = []

    def _count(self, count: int) -> None:
        self.answered += count

    async def connect(self, port: int, names: list[str]) -> None:
        config = EndpointConfig(idle_timeout=IDLE_TIMEOUT, engine=self._engine)
        for name in names:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
            sock.connect((HOST, port))
            client = BareClient(UdpEndpoint(sock, config), self._count)
            await client.connect(port)
            self._kept.append(Bare(client, name))


class OurProbes:
    """What `pingpong probe` runs."""

    def __init__(self, engine: EngineChoice) -> None:
        self.metrics = ProbeMetrics()
        self._engine = engine
        self._destinations: dict[str, Destination] = {}
        self._supervisor: Supervisor | None = None

    @property
    def answered(self) -> int:
        return sum(t.modes["datagram"].completed["ok"] for t in self.metrics.targets.values())

    async def connect(self, port: int, names: list[str]) -> None:
        url = f"https://{HOST}:{port}/ping"
        self._destinations = {name: Destination(name, url, (HOST,)) for name in names}
        settings = ProbeSettings(
            targets=(url,), insecure=True, connect_timeout=_CONNECT, engine=self._engine
        )
        self._supervisor = Supervisor(settings, self.metrics, self._look_up)
        self._supervisor.changed(self._destinations)
        async with asyncio.timeout(_CONNECT):
            while not all(target.is_up for target in self.metrics.targets.values()):
                await asyncio.sleep(0.05)

    async def _look_up(self, name: str) -> Destination:
        return self._destinations[name]

    async def scrape(self, scrapes: int) -> None:
        """Have the text of the metrics made, five times a second."""
        registry = standard_registry(self.metrics)

        async def families() -> Any:
            return registry.collect()

        for _ in range(scrapes):
            await Scrapes(families).text(Format.TEXT, compressed=False)
            await asyncio.sleep(0.2)

    def text_slices(self) -> list[float]:
        """CPU time that each slice of that text takes, in seconds: packets wait for one slice."""
        text = Text(Format.TEXT, compressed=False)
        times = [time.thread_time()]
        for metric in standard_registry(self.metrics).collect():
            text.add(metric)
            times.append(time.thread_time())
        return [end - begin for begin, end in itertools.pairwise(times)]


SUBJECTS: dict[str, Callable[[EngineChoice], BareProbes | OurProbes]] = {
    "bare": BareProbes,
    "ours": OurProbes,
}


async def run(
    subject: str, engine: EngineChoice, port: int, targets: int, seconds: float, scrapes: int
) -> dict[str, Any]:
    """Connect, wait, and measure."""
    probes = SUBJECTS[subject](engine)
    await probes.connect(port, [f"target-{number:03}" for number in range(targets)])
    collect_garbage_seldom()
    await asyncio.sleep(_SETTLE)
    _taken.clear()
    answered, cpu, began = probes.answered, time.process_time_ns(), time.monotonic()
    if isinstance(probes, OurProbes):
        await probes.scrape(scrapes)
    await asyncio.sleep(max(seconds - (time.monotonic() - began), 0))
    wall = time.monotonic() - began
    cpu = time.process_time_ns() - cpu
    late = sorted(_taken)
    return {
        "answered": probes.answered - answered,
        "slots": len(late),
        "core": cpu / (wall * 1e9),
        "late": {
            "p50": statistics.median(late),
            "p99": late[len(late) * 99 // 100],
            "max": late[-1],
        },
        "text_slices": probes.text_slices() if isinstance(probes, OurProbes) else [],
        "memory": _resident_memory(),
    }


def main() -> None:
    """Measure, and print the result as a line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("subject", choices=sorted(SUBJECTS))
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--targets", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--scrapes", type=int, default=0)
    parser.add_argument("--cpu", type=int)
    arguments = parser.parse_args()
    if arguments.cpu is not None:
        os.sched_setaffinity(0, {arguments.cpu})
    configure("warning")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Record how late the slots are.
    sys.modules["pingpong.link.link"].Schedule = _Noted  # type: ignore[attr-defined]
    measured = (arguments.subject, arguments.engine, arguments.port, arguments.targets)
    work = functools.partial(run, *measured)
    result = uvloop.run(work(arguments.seconds, arguments.scrapes))
    print(json.dumps(result), flush=True)
    # Exit without closing the connections.
    os._exit(0)


if __name__ == "__main__":
    main()
