"""The QUIC engines: which there are, which is used, and what each can do.

An engine is imported when it is chosen or used, so that a process has only the one that it needs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .config import EndpointConfig, Engine, EngineChoice, KeyLimits
from .engine import QuicConnection, QuicEndpoint, QuicEvents, Wake

if TYPE_CHECKING:
    from ..certificates import Certificate

QUINN_VERSION = "0.4.0"
"""The version of `pingpong_engine` that `quinn` is written for."""
_BUILD = "build it with `make engine`, which needs Rust (cargo 1.85 or newer), or choose aioquic"


@dataclass(frozen=True, slots=True)
class Capability:
    """Something that not every engine can do."""

    name: str
    engines: frozenset[Engine]
    without: str
    """What a user of an engine without it notices."""


CAPABILITIES = (
    Capability(
        "RESET_STREAM_AT",
        frozenset({"aioquic"}),
        "a server gets no session from webtransport-go's client, which asks for this extension; the"
        " header of a stream that is reset at once may be lost",
    ),
    Capability(
        "counting of unacknowledged bytes",
        frozenset({"aioquic"}),
        "`write` waits only when 256 KiB of a stream are queued above 1 MiB of the connection that the"
        " peer has not acknowledged",
    ),
    Capability(
        "Ed448 keys, and RSA keys below 2048 or above 4096 bits",
        frozenset({"aioquic"}),
        "a server does not start with a certificate of such a key, or keeps the one that it has; a"
        " client gets no connection to a server with an Ed448 key, or an RSA key below 2048 bits",
    ),
    Capability(
        "an authority's own certificate as a server's",
        frozenset({"aioquic"}),
        "a client does not trust it by `--ca`, only by its SHA-256 (`--cert-hash`)",
    ),
    Capability(
        "key limits",
        frozenset({"aioquic"}),
        "`EndpointConfig.key_limits` is refused, and makes `auto` mean aioquic; keys are updated at the"
        " limits of their cipher (RFC 9001, section 6.6)",
    ),
)
"""All of them; the table of the docs and the server's log are made of these."""


class EngineMissingError(ImportError):
    """The engine is not installed."""


def lacks(engine: Engine) -> list[str]:
    """The names of the capabilities that an engine does not have."""
    return [one.name for one in CAPABILITIES if engine not in one.engines]


@functools.cache
def _why_quinn_is_missing() -> str | None:
    try:
        import pingpong_engine
    except ModuleNotFoundError:
        return "is not installed"
    except ImportError as error:  # built for another machine
        return f"cannot be imported ({error})"
    # A folder that was left behind can be imported too.
    found = getattr(pingpong_engine, "__version__", "unknown")
    return None if found == QUINN_VERSION else f"is version {found}, not {QUINN_VERSION}"


def is_installed(engine: Engine) -> bool:
    """Whether the engine can be used. aioquic always can."""
    return engine == "aioquic" or _why_quinn_is_missing() is None


def automatic(*, server: bool) -> Engine:
    """The engine that "auto" means: quinn for clients, if it is installed, and else aioquic.

    A server needs RESET_STREAM_AT for webtransport-go's client.
    """
    return "quinn" if not server and is_installed("quinn") else "aioquic"


def choose(choice: EngineChoice = "auto", *, server: bool) -> Engine:
    """Return the engine that `choice` means for servers or clients.

    A client's is imported, which takes longer than to connect. Raises `EngineMissingError`.
    """
    engine = automatic(server=server) if choice == "auto" else choice
    if engine == "quinn" and (why := _why_quinn_is_missing()):
        raise EngineMissingError(f"the engine quinn {why}: {_BUILD}")
    if not server:
        _endpoint_class(engine)
    return engine


def check_certificate(certificate: Certificate, choice: EngineChoice = "auto") -> None:
    """Raises `CertificateError` if a server with this engine cannot show the certificate."""
    if choose(choice, server=True) == "quinn":
        from .quinn import check_certificate

        check_certificate(certificate)


def make_endpoint(
    config: EndpointConfig,
    wake: Wake,
    accept: Callable[[QuicConnection], QuicEvents] | None = None,
    clock: Callable[[], float] = lambda: 0.0,
) -> QuicEndpoint:
    """Make an endpoint of the engine that `config` names.

    "auto" is aioquic for a configuration that quinn cannot honour. Raises `EngineMissingError`,
    `CertificateError` for a certificate that the engine cannot use, and `ValueError` for a
    configuration that the engine it names cannot honour.
    """
    engine = choose(config.engine, server=accept is not None)
    if engine == "quinn" and config.key_limits != KeyLimits():
        if config.engine != "auto":
            raise ValueError(
                "the engine quinn has no key limits of its own: leave key_limits out, or choose"
                ' engine="aioquic"'
            )
        engine = "aioquic"
    return _endpoint_class(engine)(config, wake, accept, clock)


def _endpoint_class(engine: Engine) -> Callable[..., QuicEndpoint]:
    if engine == "quinn":
        from .quinn import QuinnEndpoint

        return QuinnEndpoint
    from .endpoint import AioquicEndpoint

    return AioquicEndpoint
