"""All targets, and what it takes to run one: inputs, findings, how they are kept and repeated."""

from __future__ import annotations

import gc
import hashlib
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Protocol

from pingpong.webtransport import varint
from pingpong.webtransport.quic.config import Engine
from tests.fuzz import http3, sessions
from tests.fuzz.arena import Finding
from tests.fuzz.handshakes import Flight, Hello, Parameters
from tests.fuzz.live import Live
from tests.fuzz.parsers import PARSERS

SLOW = 0.1
"""Seconds of CPU that no input may take; the longest are of some ten thousand bytes."""
TEXT = ".txt"
"""What a finding is stands beside its inputs, in a file of this ending."""
_COLLECT_EVERY = 500
_SIZES = (8, 16, 32, 64, 128, 256, 512)
_REPEATS = 3


class Target(Protocol):
    """What takes inputs. Raises whatever is a finding."""

    history: list[bytes]
    """The inputs that lead to where it stands, the last one included."""

    def run(self, data: bytes) -> None: ...
    def reset(self) -> None: ...


class Function:
    """A target that keeps nothing between inputs."""

    def __init__(self, function: Callable[[bytes], None]) -> None:
        self._function = function
        self.history: list[bytes] = []

    def run(self, data: bytes) -> None:
        self.history = [data]
        self._function(data)

    def reset(self) -> None:
        """There is nothing to forget."""


OF_AN_ENGINE: dict[str, Callable[[Engine], Target]] = {
    "frames-server": lambda engine: Live("server", "open", engine),
    "frames-client": lambda engine: Live("client", "open", engine),
    "initial-server": lambda engine: Live("server", "initial", engine),
    "initial-client": lambda engine: Live("client", "initial", engine),
    "handshake-server": lambda engine: Live("server", "handshake", engine),
    "handshake-client": lambda engine: Live("client", "handshake", engine),
    "parameters-server": lambda engine: Parameters("server", engine),
    "parameters-client": lambda engine: Parameters("client", engine),
    "tls-hello": Hello,
    "tls-server": lambda engine: Flight("server", engine),
    "tls-client": lambda engine: Flight("client", engine),
}
WITH_QUINN: dict[str, Callable[[], Target]] = {
    **{f"{name}-quinn": partial(make, "quinn") for name, make in OF_AN_ENGINE.items()},
    "sessions-quinn": lambda: Function(sessions.run_with_quinn),
}
"""Those that need the QUIC engine quinn."""
TARGETS: dict[str, Callable[[], Target]] = {
    **{name: partial(make, "aioquic") for name, make in OF_AN_ENGINE.items()},
    "http3-server": lambda: Function(http3.server),
    "http3-client": lambda: Function(http3.client),
    **{name: lambda function=function: Function(function) for name, function in PARSERS.items()},  # type: ignore[misc]
    "sessions": lambda: Function(sessions.run),
    **WITH_QUINN,
}


@dataclass
class Found:
    """A finding: what it is, and the inputs that lead to it."""

    target: str
    text: str
    inputs: list[bytes]
    path: Path | None = None
    count: int = 1


@dataclass
class Report:
    """What running a target came to."""

    target: str
    inputs: int = 0
    seconds: float = 0.0
    found: dict[str, Found] = field(default_factory=dict)
    slowest: float = 0.0
    """Seconds of CPU of the input that took longest."""


def generated(seed: int | str, name: str) -> Iterator[bytes]:
    """Inputs, the same for the same seed."""
    random = Random(f"{seed} {name}")
    longer = 3 if name.startswith("sessions") else 1
    while True:
        yield random.randbytes(1 + random.randrange(longer * random.choice(_SIZES)))


@contextmanager
def undisturbed() -> Iterator[None]:
    """No logging, and no collection of garbage but where it is asked for."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        logging.disable(disabled)


def run(
    name: str,
    inputs: Iterator[bytes],
    *,
    count: int = 0,
    seconds: float = 0.0,
    folder: Path | None = None,
    progress: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Give a target `count` inputs, or as many as fit in so many seconds."""
    target, report = TARGETS[name](), Report(name)
    began = time.monotonic()
    with undisturbed():
        for data in inputs:
            found = attempt(name, target, data, report)
            if found is not None:
                keep(report, found, folder)
                target.reset()
            report.seconds = time.monotonic() - began
            progress(report)
            if report.inputs >= count if count else report.seconds >= seconds:
                break
    return report


def attempt(name: str, target: Target, data: bytes, report: Report) -> Found | None:
    """Run one input, and say what it has found."""
    report.inputs += 1
    if report.inputs % _COLLECT_EVERY == 0:
        gc.collect()
    before = time.thread_time()
    try:
        target.run(data)
    except Exception as error:
        return Found(name, describe(error), list(target.history))
    taken = time.thread_time() - before
    report.slowest = max(report.slowest, taken)
    if taken > SLOW:
        history = list(target.history)
        taken = min(taken, *(_time(name, history) for _ in range(_REPEATS)))
        if taken > SLOW:
            return Found(name, f"slow: {taken:.1f} s of CPU for the last input", history)
    return None


def _time(name: str, history: list[bytes]) -> float:
    """Seconds of CPU that the last of these inputs takes."""
    target = TARGETS[name]()
    for data in history[:-1]:
        target.run(data)
    before = time.thread_time()
    target.run(history[-1])
    return time.thread_time() - before


def repeat(name: str, inputs: list[bytes]) -> str:
    """What these inputs find; empty where they find nothing."""
    target, report = TARGETS[name](), Report(name)
    with undisturbed():
        for data in inputs:
            if (found := attempt(name, target, data, report)) is not None:
                return found.text
        finish = getattr(target, "finish", None)
        if finish is not None:
            try:
                finish()
            except Exception as error:
                return describe(error)
    return ""


def describe(error: Exception) -> str:
    """A finding's kind and where it comes from: the same for the same fault."""
    frames = traceback.extract_tb(error.__traceback__)
    inner = " < ".join(f"{Path(one.filename).name}:{one.lineno}" for one in frames[:-6:-1])
    if isinstance(error, Finding):
        return f"{error} ({inner})"
    return f"escape: {type(error).__name__}: {error} ({inner})"


def keep(report: Report, found: Found, folder: Path | None) -> None:
    """Keep a finding, unless it is one that is known."""
    key = found.text.rpartition(" (")[2] or found.text[:40]
    if key in report.found:
        report.found[key].count += 1
        return
    report.found[key] = found
    if folder is None:
        return
    for size in (1, 2, 4, 8, 16, 32, 64):
        if size < len(found.inputs) and repeat(found.target, found.inputs[-size:]):
            found.inputs = found.inputs[-size:]
            break
    folder.mkdir(parents=True, exist_ok=True)
    data = save(found.inputs)
    found.path = folder / f"{found.target}.{hashlib.sha256(data).hexdigest()[:12]}"
    found.path.write_bytes(data)
    found.path.with_name(f"{found.path.name}{TEXT}").write_text(f"{found.text}\n")


def save(inputs: list[bytes]) -> bytes:
    """Inputs as a file's bytes: each behind its length."""
    return b"".join(varint.encode(len(data)) + data for data in inputs)


def load(data: bytes) -> list[bytes]:
    """The inputs of a file. Raises `ValueError` where it is none."""
    inputs, position = [], 0
    while position < len(data):
        decoded = varint.decode(data, position)
        if decoded is None or sum(decoded) > len(data):
            raise ValueError("not a file of inputs")
        position = sum(decoded)
        inputs.append(data[decoded[1] : position])
    return inputs
