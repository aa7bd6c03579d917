"""The QUIC engines: which there are, which is used, and what each can do."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .config import EndpointConfig
from .endpoint import AioquicEndpoint
from .engine import QuicConnection, QuicEndpoint, QuicEvents, Wake

Engine = Literal["aioquic", "quinn"]
Choice = Literal["auto", "aioquic", "quinn"]
_MODULE = "pingpong_engine"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do that not every one can."""

    reset_stream_at: bool
    """RESET_STREAM_AT: a stream that is reset still delivers its header."""
    counts_duplicates: bool
    """Packets that the network duplicated are counted."""
    fair_queue: bool
    """Packets of a connection that takes much time are processed after those of others."""
    counts_buffers: bool
    """Received bytes that QUIC keeps count as buffered, so `max_buffered` includes them."""


CAPABILITIES: dict[Engine, Capabilities] = {
    "aioquic": Capabilities(True, True, True, True),
    "quinn": Capabilities(False, False, False, False),
}


class EngineMissingError(ImportError):
    """The engine is not installed."""


_chosen: dict[bool, Choice] = {}
"""By `is_server`: what `choose` was called with."""


def is_installed(engine: Engine) -> bool:
    """Whether this Python can import the engine."""
    return engine == "aioquic" or importlib.util.find_spec(_MODULE) is not None


def choose(choice: Choice, *, server: bool) -> Engine:
    """Use an engine for all servers, or all clients, of this process that begin from now on.

    Returns the engine. Raises `EngineMissingError` if it is not installed.
    """
    engine = engine_of(choice, server=server)
    if not is_installed(engine):
        raise EngineMissingError(
            "the engine quinn is not installed: build it with `make engine`, which needs Rust"
            " (cargo 1.85 or newer), or choose aioquic"
        )
    _chosen[server] = choice
    return engine


def engine_of(choice: Choice, *, server: bool) -> Engine:
    """The engine that `choice` means. auto is aioquic as long as quinn is new."""
    return "aioquic" if choice == "auto" else choice


def make_endpoint(
    config: EndpointConfig,
    wake: Wake,
    accept: Callable[[QuicConnection], QuicEvents] | None = None,
    clock: Callable[[], float] = lambda: 0.0,
) -> QuicEndpoint:
    """An endpoint of the engine that `config` names, or `choose` chose."""
    server = accept is not None
    engine = config.engine or engine_of(_chosen.get(server, "auto"), server=server)
    if engine == "quinn":
        from .quinn import QuinnEndpoint

        return QuinnEndpoint(config, wake, accept, clock)
    return AioquicEndpoint(config, wake, accept, clock)
