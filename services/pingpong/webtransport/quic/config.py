"""The configuration of an endpoint, for any QUIC engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from .connection_ids import SharedKeys

if TYPE_CHECKING:  # a client does not need this import, which is slow
    from ..certificates import Certificate

Engine: TypeAlias = Literal["aioquic", "quinn"]
EngineChoice: TypeAlias = Literal["auto", "aioquic", "quinn"]


_MAX_SECONDS = 1_000_000_000
_MAX_WINDOW = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Windows:
    """Receive windows, in bytes, and the maximum number of streams of the peer.

    Raises `ValueError` for a number below 0 or above 2^32 - 1.
    """

    connection: int = 1 << 20
    stream: int = 256 << 10
    streams_bidi: int = 128
    streams_uni: int = 128

    def __post_init__(self) -> None:
        for name in ("connection", "stream", "streams_bidi", "streams_uni"):
            if not 0 <= getattr(self, name) <= _MAX_WINDOW:
                raise ValueError(f"the window {name} must be from 0 to {_MAX_WINDOW}")


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """How many packets a connection's keys are used for (RFC 9001, section 6.6).

    None is the limit of the negotiated cipher.
    """

    update_after: int = 1 << 22
    """Packets sent, after which the keys are updated."""
    max_sent: int | None = None
    """Packets sent, after which the connection is closed if no update was possible."""
    max_failed: int | None = None
    """Received packets that may fail authentication; one more closes the connection."""


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """How a client verifies the server: by authorities, by one certificate, or not.

    `ca_file` is a PEM file, `ca_path` a directory in OpenSSL's form; with neither, the engine's own
    list is used.
    """

    server_name: str
    ca_file: str | None = None
    ca_path: str | None = None
    certificate_hash: bytes | None = None
    """SHA-256 of the DER of the only certificate to accept, by any issuer."""
    insecure: bool = False
    """Accept any certificate."""


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """The configuration of an endpoint. Times are in seconds.

    An endpoint without a certificate is a client. Raises `TypeError` for a certificate of another
    type, such as a file's name, and `ValueError` for a number that no engine can use.
    """

    certificate: Certificate | None = None
    idle_timeout: float = 15.0
    max_connections: int = 10_000
    max_handshakes: int = 256
    """Handshakes in progress above which a client's address is validated by Retry."""
    max_validated_handshakes: int = 512
    """Maximum handshakes in progress; a further one replaces the oldest. Each takes 91 kB."""
    handshake_timeout: float = 10.0
    """Time after which the handshake of a client is abandoned."""
    windows: Windows = field(default_factory=Windows)
    max_buffered: int = 64 << 20
    """Maximum bytes that all connections together buffer, received or to be sent; above it, the
    connection that buffers most is closed."""
    key_limits: KeyLimits = field(default_factory=KeyLimits)
    worker: int = 0
    workers: int = 1
    """The number of this worker, of all on a port: the endpoint's connection ids lead to it.

    A client's first packets have such an id too: they reach the worker with its number, if the
    server has as many workers.
    """
    engine: EngineChoice = "auto"
    """The QUIC engine; auto: quinn for a client, if it is installed, and else aioquic."""
    keys: SharedKeys = field(default_factory=SharedKeys)
    """The same for all workers of a port, and for their replacements."""

    def __post_init__(self) -> None:
        if not 0 < self.idle_timeout <= _MAX_SECONDS:
            raise ValueError(f"idle_timeout must be above 0 seconds, at most {_MAX_SECONDS}")
        for name in ("max_connections", "max_handshakes", "max_validated_handshakes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be below 0")
        if self.certificate is not None:
            from ..certificates import Certificate

            if not isinstance(self.certificate, Certificate):
                raise TypeError(
                    "certificate must be a pingpong.webtransport.certificates.Certificate, not"
                    f" {type(self.certificate).__name__}: read one from files with"
                    " read_certificate(certificate_file, private_key_file)"
                )
