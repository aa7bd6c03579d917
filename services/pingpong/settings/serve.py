"""The settings of ``pingpong serve``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from ..ping import HEADER_SIZE
from ..webtransport import EngineChoice
from .base import ServiceSettings
from .command_line import Flag, named
from .values import (
    DEFAULT_PORT,
    ENGINE_HELP,
    Count,
    CountOrZero,
    FilePath,
    Port,
    Seconds,
    SecondsOrZero,
    SecretFilePath,
    comma_separated,
    not_empty,
    read_origin,
)


class ServeSettings(ServiceSettings):
    """Settings of ``pingpong serve``."""

    verb = "serve"
    about = "Answer pings over WebTransport (HTTP/3, QUIC) until SIGTERM or Ctrl-C."

    bind_host: Annotated[str, BeforeValidator(not_empty), Flag("Listening", "", "HOST")] = Field(
        default="::", description="address to listen on; :: is every address, IPv4 and IPv6"
    )
    bind_port: Annotated[Port, Flag("Listening", "", "PORT")] = Field(
        default=DEFAULT_PORT, description="UDP port to listen on; 0: a free one, which is logged"
    )
    tls_cert_file: Annotated[FilePath | None, Flag("TLS", "", "FILE")] = Field(
        default=None,
        description="certificate and chain, PEM; without it, the server makes a self-signed one, valid"
        " for 13 days, and logs its SHA-256",
    )
    tls_key_file: Annotated[SecretFilePath | None, Flag("TLS", "", "FILE")] = Field(
        default=None, description="private key of --tls-cert-file, PEM, not encrypted"
    )
    state_dir: Annotated[FilePath | None, Flag("TLS", "", "DIR")] = Field(
        default=None,
        description="keep the self-signed certificate and its key in this directory, so that its"
        " SHA-256 is the same after a restart",
    )
    workers: Annotated[int, Field(ge=0, le=64), Flag("Listening", "", "N")] = Field(
        default=1,
        description="processes that share the port; 0: one for each core",
    )
    engine: Annotated[EngineChoice, Flag("Listening", "", "NAME")] = Field(
        default="auto", description=ENGINE_HELP
    )
    self_ping_interval: Annotated[SecondsOrZero, Flag("Health", "", "SECONDS")] = Field(
        default=5.0,
        description="ping this server through its own port at this interval; it is ready while these"
        " pings are answered; 0: off",
    )
    drain_timeout: Annotated[SecondsOrZero, Flag("Health", "", "SECONDS")] = Field(
        default=25.0,
        description="on SIGTERM or Ctrl-C, wait at most this long for sessions to end, then close them",
    )
    drain_stay_ready: Annotated[bool, Flag("Health")] = Field(
        default=False,
        description="stay ready while draining: for a load balancer that cuts flows to pods that are"
        " not ready",
    )
    auth: Annotated[Literal["none", "token", "kubernetes"], Flag("Access", "", "KIND")] = Field(
        default="none",
        description="what a client needs to open a session: none (nothing), token (one of the tokens"
        " in --token-file) or kubernetes (a service account's token for --token-audience)",
    )
    token_file: Annotated[SecretFilePath | None, Flag("Access", "", "FILE")] = Field(
        default=None, description="bearer tokens, one per line; read again when it changes"
    )
    token_audience: Annotated[str, BeforeValidator(not_empty), Flag("Access", "", "NAME")] = Field(
        default="pingpong", description="audience that a service account's token must have"
    )
    allowed_origins: Annotated[
        tuple[str, ...],
        NoDecode,
        BeforeValidator(comma_separated(read_origin)),
        Flag("Access", "", "ORIGINS"),
    ] = Field(
        default=(),
        description="origins of web pages that may open sessions, separated by commas; without it,"
        " all may",
    )
    rate_limit: Annotated[CountOrZero, Flag("Limits", "", "N")] = Field(
        default=1000, description="messages per second that a session may send; 0: no limit"
    )
    idle_timeout: Annotated[Seconds, Flag("Limits", "", "SECONDS")] = Field(
        default=15.0, description="close a connection that has been silent for this long"
    )
    max_connections: Annotated[Count | None, Flag("Limits", "", "N")] = Field(
        default=None,
        description="maximum number of connections; without it, as many as fit in memory, at most"
        " 10000",
    )
    max_sessions: Annotated[Count, Flag("Limits", "", "N")] = Field(
        default=16, description="maximum number of sessions on a connection"
    )
    max_streams: Annotated[Count, Flag("Limits", "", "N")] = Field(
        default=128,
        description="maximum number of bidirectional, and of unidirectional, streams that a client"
        " may have open",
    )
    max_message_size: Annotated[
        int, Field(ge=HEADER_SIZE, le=16_777_216), Flag("Limits", "", "BYTES")
    ] = Field(
        default=65_536, description="largest message on a stream; a longer one is not answered"
    )
    max_handshakes: Annotated[int, Field(ge=0, le=1_000_000), Flag("Limits", "", "N")] = Field(
        default=100,
        description="unfinished handshakes above which a client must first prove its address"
        " (QUIC's Retry); 0: always",
    )

    @model_validator(mode="after")
    def _auth_has_what_it_needs(self) -> Self:
        if self.auth == "token" and self.token_file is None:
            raise ValueError(f"{named('auth', 'token')} needs {named('token_file')}")
        if self.auth != "token" and self.token_file is not None:
            raise ValueError(
                f"{named('token_file')} does nothing without {named('auth', 'token')}:"
                " set that, or leave the file out"
            )
        return self

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> Self:
        self._both_or_neither(
            "tls_cert_file", "tls_key_file", "neither for a self-signed certificate"
        )
        if self.state_dir is not None and self.tls_cert_file is not None:
            raise ValueError(
                f"{named('state_dir')} does nothing with {named('tls_cert_file')}:"
                " leave one of them out"
            )
        return self
