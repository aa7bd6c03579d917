"""docs/architecture.md names what there is, and a ping takes the hops that it draws."""

from __future__ import annotations

import asyncio
import importlib
import re
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from pingpong.client.probe.metrics import ProbeMetrics, TargetCounts
from pingpong.client.probe.recorder import Recorder
from pingpong.link import Dialer, Link, LinkOptions, system_lookup
from pingpong.ping import PROTOCOL, answer_ping, encode_ping
from pingpong.server.workers.worker import Worker
from pingpong.settings import ServeSettings
from pingpong.telemetry.failure_log import FailureLogThrottle
from pingpong.webtransport.asyncio import EndpointConfig, Target, connect
from pingpong.webtransport.quic import fair_queue
from pingpong.webtransport.quic.connection import AioquicConnection
from pingpong.webtransport.quic.endpoint import AioquicEndpoint
from tests.webtransport.wire import certificate

ROOT = Path(__file__).resolve().parent.parent
SERVICES = ROOT / "services" / "pingpong"
TEXT = (ROOT / "docs" / "architecture.md").read_text()
Hops = list[tuple[str, str]]
HANDLER = ("server/sessions/handlers.py", "PingSession.datagram_received")


def files() -> Iterator[str]:
    """All that are named; in a row that begins with a package, by their names in it."""
    for line in TEXT.splitlines():
        package = re.match(r"\| `([\w/]+/)` \|", line)
        for name in re.findall(r"`([\w./-]+(?:\.py|\.toml|\.md|/))(?:::[\w.]+)?`", line):
            yield name if package is None or name == package[1] else f"{package[1]}{name}"
    for link in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        yield f"docs/{link}"


def table(name: str) -> Iterator[list[str]]:
    rows = TEXT.split(f"<!-- {name} -->")[1].split("<!-- end -->")[0]
    for row in rows.strip().splitlines()[2:]:
        yield re.findall(r"`([^`]+)`", row)


def hops(name: str) -> Hops:
    return [(file, call) for file, call, *_ in table(name)]


@pytest.mark.parametrize("file", sorted(set(files())))
def test_files_that_are_named_exist(file: str) -> None:
    assert (ROOT / file).exists() or (SERVICES / file).exists()


def test_files_are_named_or_their_package_is() -> None:
    """Those of WebTransport by themselves: none of its packages is clear from its name."""
    named = set(files())
    missing = []
    for path in SERVICES.rglob("*.py"):
        file = str(path.relative_to(SERVICES))
        package = file.removesuffix(path.name)
        known = {file} if package.startswith("webtransport/") else {file, package}
        if path.name != "__init__.py" and not known & named:
            missing.append(file)
    assert not missing


@pytest.mark.parametrize(("file", "name"), re.findall(r"`([\w/]+\.py)::([\w.]+)`", TEXT))
def test_names_that_are_named_exist(file: str, name: str) -> None:
    found: Any = importlib.import_module(f"pingpong.{file[:-3].replace('/', '.')}")
    for part in name.split("."):
        annotations = getattr(found, "__annotations__", {})
        found = annotations[part] if part in annotations else getattr(found, part)


def test_layers_are_those_of_the_contract() -> None:
    """Each layer is a line, with its packages before two blanks or more."""
    chart = TEXT.split("## Layers")[1].split("```")[1].strip()
    drawn = [set(re.split(r"[,\s]+", line[:36].strip())) for line in chart.splitlines()]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(each for each in contracts["contracts"] if each["id"] == "layers")["layers"]
    held = [{name.strip("() ") for name in layer.split("|")} for layer in layers]
    assert {"__main__", "run"} == drawn[0] == held[0] | held[1]
    assert [names for names in drawn[1:] if not any("." in name for name in names)] == held[2:]


def nested(frame: FrameType | None) -> tuple[FrameType | None, Hops]:
    """The outermost frame and the calls of pingpong from where a pump took packets in."""
    calls: Hops = []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(SERVICES):
            calls.insert(0, (str(path.relative_to(SERVICES)), frame.f_code.co_qualname))
            if frame.f_code.co_qualname == "Pump.receive_pending":
                return frame, calls
        frame = frame.f_back
    return None, []


@asynccontextmanager
async def working() -> AsyncIterator[Worker]:
    settings = ServeSettings(bind_host="127.0.0.1", bind_port=0, self_ping_interval=0)
    worker = Worker(settings, certificate())
    await worker.start()
    try:
        yield worker
    finally:
        await worker.close()


class Trace:
    """Sees a server answer a ping: the calls around the answer, and from there to its sending."""

    def __init__(self) -> None:
        self.into: Hops = []
        self.queued: Hops = []
        self.made: Hops = []
        self.out: Hops = []
        self._turn: FrameType | None = None

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code is answer_ping.__code__:
            self._turn, self.into = nested(frame)
        elif (
            event == "call"
            and frame.f_code is AioquicEndpoint.request_transmit.__code__
            and self.into
        ):
            turn, calls = nested(frame)
            handled = self.into.index(HANDLER) + 1
            if turn is self._turn and calls[:handled] == self.into[:handled]:
                self.queued = calls[handled:]
        elif event == "call" and frame.f_code is AioquicConnection.transmit.__code__:
            turn, calls = nested(frame)
            if turn is not None and turn is self._turn:
                self.made = calls
        elif event == "c_call" and argument.__name__ in ("sendmsg", "sendto") and not self.out:
            turn, calls = nested(frame)
            if turn is not None and turn is self._turn:
                self.out = calls


class AnswerTrace:
    """Sees an answer reach a prober's recorder."""

    def __init__(self) -> None:
        self.calls: Hops = []

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code is Recorder.answered.__code__ and not self.calls:
            _, self.calls = nested(frame)


@pytest.fixture
def _unqueued(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine, and with a profiler, a packet takes so long that the next one is queued."""
    monkeypatch.setattr(fair_queue, "QUANTUM", 3600.0)


@pytest.mark.usefixtures("_unqueued")
async def test_a_ping_takes_the_hops_that_are_drawn() -> None:
    trace = Trace()
    async with working() as worker:
        url = f"https://127.0.0.1:{worker.port}/ping"
        fingerprint = certificate().sha256
        async with await connect(
            url, certificate_hash=fingerprint, protocols=[PROTOCOL]
        ) as session:
            async with asyncio.timeout(60):
                while not (trace.into and trace.out):
                    trace = Trace()
                    sys.setprofile(trace)
                    try:
                        session.datagrams.send(encode_ping(1, 0, 64))
                        await session.datagrams.receive()
                    finally:
                        sys.setprofile(None)
    assert trace.into == hops("way in")
    assert trace.queued == hops("way to the queue")
    assert trace.made == hops("way to a packet")
    assert trace.out == hops("way out")


@pytest.mark.usefixtures("_unqueued")
async def test_an_answer_takes_the_hops_that_are_drawn() -> None:
    async with working() as worker:
        url = f"https://127.0.0.1:{worker.port}/ping"
        target = Target.from_url(url, certificate_hash=certificate().sha256)
        counts = TargetCounts(["datagram"], (0.1,))
        recorder = Recorder("one", ProbeMetrics(), counts, FailureLogThrottle())
        options = LinkOptions(interval=0.02)
        dialer = Dialer(config=EndpointConfig(engine="aioquic"))
        link = Link("one", system_lookup(target), dialer, recorder, options)
        trace = AnswerTrace()
        running = asyncio.create_task(link.run())
        sys.setprofile(trace)
        try:
            async with asyncio.timeout(60):
                while not trace.calls:
                    await asyncio.sleep(0.01)
        finally:
            sys.setprofile(None)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await link.close()
    assert trace.calls == hops("way of an answer")
    assert counts.modes["datagram"].completed["ok"] > 0
