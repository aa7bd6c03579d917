"""The settings of ``pingpong serve``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from ..ping import HEADER_SIZE
from .base import ServiceSettings
from .command_line import Flag, named
from .values import (
    DEFAULT_PORT,
    ENGINE_HELP,
    Count,
    CountOrZero,
    Engine,
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
        default=DEFAULT_PORT, description="UDP port to listen on; 0 takes a free one and logs it"
    )
    tls_cert_file: Annotated[FilePath | None, Flag("TLS", "", "FILE")] = Field(
        default=None,
        description="certificate and its chain, PEM; without it, a self-signed one is made, valid for"
        " 13 days, and its SHA-256 is logged",
    )
    tls_key_file: Annotated[SecretFilePath | None, Flag("TLS", "", "FILE")] = Field(
        default=None, description="the certificate's private key, PEM, not encrypted"
    )
    state_dir: Annotated[FilePath | None, Flag("TLS", "", "DIR")] = Field(
        default=None,
        description="keep the self-signed certificate and its key in this folder, so that its SHA-256"
        " stays the same when the server starts again",
    )
    workers: Annotated[int, Field(ge=0, le=64), Flag("Listening", "", "N")] = Field(
        default=1,
        description="processes that share the port; 0: one for each core",
    )
    engine: Annotated[Engine, Flag("Listening", "", "NAME")] = Field(
        default="auto", description=ENGINE_HELP
    )
    self_ping_interval: Annotated[SecondsOrZero, Flag("Health", "", "SECONDS")] = Field(
        default=5.0,
        description="ping this server over its own port at this interval; it is ready while that is"
        " answered; 0: don't",
    )
    drain_timeout: Annotated[SecondsOrZero, Flag("Health", "", "SECONDS")] = Field(
        default=25.0,
        description="at SIGTERM, wait for sessions to leave, at most this long, before they are closed",
    )
    drain_stay_ready: Annotated[bool, Flag("Health")] = Field(
        default=False,
        description="stay ready while draining: for a load balancer that cuts flows to pods that are"
        " not ready",
    )
    auth: Annotated[Literal["none", "token", "kubernetes"], Flag("Access", "", "KIND")] = Field(
        default="none",
        description="which clients may open a session: none (all), token (with one of the tokens in"
        " --token-file) or kubernetes (with a service account's token for the audience)",
    )
    token_file: Annotated[SecretFilePath | None, Flag("Access", "", "FILE")] = Field(
        default=None, description="bearer tokens, one a line; read again when it changes"
    )
    token_audience: Annotated[str, BeforeValidator(not_empty), Flag("Access", "", "NAME")] = Field(
        default="pingpong", description="audience that a service account's token must be for"
    )
    allowed_origins: Annotated[
        tuple[str, ...],
        NoDecode,
        BeforeValidator(comma_separated(read_origin)),
        Flag("Access", "", "ORIGINS"),
    ] = Field(
        default=(),
        description="origins of web pages that may open sessions, separated by commas; without"
        " any, all may",
    )
    rate_limit: Annotated[CountOrZero, Flag("Limits", "", "N")] = Field(
        default=1000, description="messages a second that a session may send; 0: any number"
    )
    idle_timeout: Annotated[Seconds, Flag("Limits", "", "SECONDS")] = Field(
        default=15.0, description="end a connection that has been silent for this long"
    )
    max_connections: Annotated[Count | None, Flag("Limits", "", "N")] = Field(
        default=None,
        description="connections at one time; more are refused; without it, as many as fit in"
        " memory, at most 10000",
    )
    max_sessions: Annotated[Count, Flag("Limits", "", "N")] = Field(
        default=16, description="sessions at one time on a connection; more are refused"
    )
    max_streams: Annotated[Count, Flag("Limits", "", "N")] = Field(
        default=128, description="streams of each kind that a peer may have open at one time"
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
        self._both_or_neither("tls_cert_file", "tls_key_file", "neither to have a certificate made")
        if self.state_dir is not None and self.tls_cert_file is not None:
            raise ValueError(
                f"{named('state_dir')} does nothing with {named('tls_cert_file')}:"
                " leave one of them out"
            )
        return self
