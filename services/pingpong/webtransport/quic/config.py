"""What an endpoint is made with, whichever QUIC engine it has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from .connection_ids import SharedKeys

if TYPE_CHECKING:  # who only connects need not wait for cryptography's import
    from ..certificates import Certificate


@dataclass(frozen=True, slots=True)
class Windows:
    """Receive windows, in bytes, and how many streams the peer may have open."""

    connection: int = 1 << 20
    stream: int = 256 << 10
    streams_bidi: int = 128
    streams_uni: int = 128


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """How many packets a connection's keys are used for (RFC 9001, section 6.6).

    What is None is as the cipher that was agreed on has it.
    """

    update_after: int = 1 << 22
    """Packets sent, after which the next keys are taken."""
    max_sent: int | None = None
    """Packets sent, at which the connection is closed since no update was possible."""
    max_failed: int | None = None
    """Packets received that may fail authentication; one more closes the connection."""


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """What a client insists on: authorities, one certificate, or nothing.

    `ca_file` is a PEM file, `ca_path` a folder of them as OpenSSL has it; with neither,
    the engine's own list is used.
    """

    server_name: str
    ca_file: str | None = None
    ca_path: str | None = None
    certificate_hash: bytes | None = None
    """SHA-256 of the certificate's DER, to be accepted without regard to who signed it."""
    insecure: bool = False
    """Accept any certificate."""


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """What an endpoint is made with. Times in seconds.

    An endpoint without a certificate only connects. Raises `TypeError` for a certificate of
    another kind, such as a file's name.
    """

    certificate: Certificate | None = None
    idle_timeout: float = 15.0
    max_connections: int = 10_000
    max_handshakes: int = 256
    """Unfinished handshakes above which a client's address is validated by Retry."""
    max_validated_handshakes: int = 512
    """Unfinished handshakes above which the oldest has to make room for the next; 91 kB each."""
    handshake_timeout: float = 10.0
    """A client that has not completed its handshake by then is given up and forgotten."""
    windows: Windows = field(default_factory=Windows)
    max_buffered: int = 64 << 20
    """Bytes that all connections together keep of what was received, or is to be sent; above it,
    the one that keeps most is closed."""
    key_limits: KeyLimits = field(default_factory=KeyLimits)
    worker: int = 0
    workers: int = 1
    """All connection ids that the endpoint makes lead to this one of the workers of a port.

    Of a client's these are also the ones of its first packets: it reaches the worker of its
    own number, where the server has as many.
    """
    engine: Literal["aioquic", "quinn"] | None = None
    """The QUIC engine; None: the one that `engines.choose` chose, or aioquic."""
    keys: SharedKeys = field(default_factory=SharedKeys)
    """The same for all workers of a port, and for those that take their place."""

    def __post_init__(self) -> None:
        if self.certificate is not None:
            from ..certificates import Certificate

            if not isinstance(self.certificate, Certificate):
                raise TypeError(
                    "certificate is a pingpong.webtransport.certificates.Certificate, not"
                    f" {type(self.certificate).__name__}: read one from files with"
                    " read_certificate(certificate_file, private_key_file)"
                )
