"""The settings of every verb: one frozen class each. How they are read: `command_line`."""

from __future__ import annotations

import base64
import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import CliPositionalArg

from .command_line import (
    Flag,
    Settings,
    SettingsError,
    settings_table,
    unknown_variables,
)

__all__ = [
    "PingSettings",
    "RunSettings",
    "ServeSettings",
    "Settings",
    "SettingsError",
    "settings_table",
    "unknown_variables",
]

DEFAULT_PORT = 4433
MIN_SIZE = 36  # a pingpong.v1 header
MAX_SIZE = 1_048_576

_URL_SAFE = "%/:@!$&'()*+,;=~?"


def _not_empty(value: object) -> object:
    if value == "":
        raise ValueError("must not be empty")
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _read_url(value: object) -> object:
    """Make ``host``, ``host:port`` and https URLs into one shape.

    Raises:
        ValueError: it is no URL that WebTransport could be spoken to.
    """
    if not isinstance(value, str):
        return value
    if not value or not value.isprintable() or " " in value:
        raise ValueError("must be https://host[:port][/path], or host[:port]")
    is_url = value.lower().startswith("https://")
    if not is_url and re.match(r"https?:|.*://", value, re.IGNORECASE):
        raise ValueError("must begin with https:// (WebTransport is HTTP/3, never without TLS)")
    rest = value[len("https://") :] if is_url else f"[{value}]" if _is_ipv6(value) else value
    if "#" in rest:
        raise ValueError("must have no fragment (nothing from # on)")
    try:
        parts = urlsplit(f"https://{rest}")
        port = parts.port
    except ValueError:
        raise ValueError(
            "must have a port from 1 to 65535, and brackets around an IPv6 address"
        ) from None
    if "@" in parts.netloc:
        raise ValueError("must have no user name and password (nothing before @)")
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError("must have a port from 1 to 65535")
    if port is None and not is_url:
        port = DEFAULT_PORT
    path = quote(parts.path or ("/" if is_url else "/ping"), safe=_URL_SAFE)
    query = f"?{quote(parts.query, safe=_URL_SAFE)}" if parts.query else ""
    return f"https://{_read_host(parts.hostname or '')}{f':{port}' if port else ''}{path}{query}"


def _read_host(host: str) -> str:
    zone_host = host.replace("%25", "%", 1)  # in a URL, % begins an escape (RFC 6874)
    if _is_ipv6(zone_host):
        return f"[{zone_host}]"
    try:
        ascii_host = host.encode("idna").decode("ascii")
    except UnicodeError:
        ascii_host = ""
    if not re.fullmatch(r"[a-z0-9_]([a-z0-9._-]*)", ascii_host):
        raise ValueError("must have the name or address of a host")
    return ascii_host


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _read_hash(value: object) -> object:
    """Read a SHA-256 from hex, with or without colons, or base64.

    Raises:
        ValueError: it is neither.
    """
    if not isinstance(value, str):
        return value
    digits = value.replace(":", "")
    if re.fullmatch(r"[0-9a-fA-F]{64}", digits):
        return bytes.fromhex(digits)
    try:
        decoded = base64.b64decode(
            value.translate(str.maketrans("-_", "+/")).rstrip("=") + "=", validate=True
        )
    except ValueError:
        decoded = b""
    if len(decoded) != 32:
        raise ValueError(
            "must be a SHA-256: 64 hex digits, with or without colons, or 32 bytes in base64"
        )
    return decoded


Seconds = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
FilePath = Annotated[Path, BeforeValidator(_not_empty)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]
LogFormat = Literal["auto", "json", "console"]
Port = Annotated[int, Field(ge=0, le=65_535)]
PingSize = Annotated[int, Field(ge=MIN_SIZE, le=MAX_SIZE)]
Mode = Literal["datagram", "stream", "streams", "uni"]

_LOG_LEVEL = "the least severe events to log: debug, info, warning or error"


class ServeSettings(Settings):
    """Settings of ``pingpong serve``."""

    verb = "serve"
    about = "Answer pings over WebTransport (HTTP/3, QUIC) until SIGTERM or Ctrl-C."

    bind_host: Annotated[str, BeforeValidator(_not_empty), Flag("Listening", (), "HOST")] = Field(
        default="::", description="address to listen on; :: is every address, IPv4 and IPv6"
    )
    bind_port: Annotated[Port, Flag("Listening", (), "PORT")] = Field(
        default=DEFAULT_PORT, description="UDP port to listen on; 0 takes a free one and logs it"
    )
    tls_cert_file: Annotated[FilePath | None, Flag("TLS", (), "FILE")] = Field(
        default=None,
        description="certificate and its chain, PEM; without one, one is made, valid for 13 days,"
        " and its SHA-256 logged",
    )
    tls_key_file: Annotated[FilePath | None, Flag("TLS", (), "FILE")] = Field(
        default=None, description="the certificate's private key, PEM, not encrypted"
    )
    idle_timeout: Annotated[Seconds, Flag("Limits", (), "SECONDS")] = Field(
        default=15.0, description="end a connection that has been silent for so long"
    )
    max_connections: Annotated[Count, Flag("Limits", (), "N")] = Field(
        default=10_000, description="connections at one time; more are refused"
    )
    max_sessions: Annotated[Count, Flag("Limits", (), "N")] = Field(
        default=16, description="sessions at one time on a connection; more are refused"
    )
    max_streams: Annotated[Count, Flag("Limits", (), "N")] = Field(
        default=128, description="streams of each kind that a peer may have open at one time"
    )
    max_message_size: Annotated[
        int, Field(ge=MIN_SIZE, le=16_777_216), Flag("Limits", (), "BYTES")
    ] = Field(
        default=65_536, description="largest message on a stream; a longer one is not answered"
    )
    max_handshakes: Annotated[int, Field(ge=0, le=1_000_000), Flag("Limits", (), "N")] = Field(
        default=100,
        description="unfinished handshakes above which a client must first prove its address"
        " (QUIC's Retry); 0: always",
    )
    log_level: Annotated[LogLevel, Flag("Logs", (), "LEVEL")] = Field(
        default="info", description=_LOG_LEVEL
    )
    log_format: Annotated[LogFormat, Flag("Logs", (), "FORMAT")] = Field(
        default="auto", description="json, console, or auto: console in a terminal, json elsewhere"
    )

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            names = [
                "PINGPONG_TLS_CERT_FILE (--tls-cert-file)",
                "PINGPONG_TLS_KEY_FILE (--tls-key-file)",
            ]
            given, missing = names if self.tls_key_file is None else reversed(names)
            raise ValueError(
                f"{given} is set without {missing}: set both, or neither to have a certificate made"
            )
        return self


class _Pings(Settings):
    """What every verb takes that sends pings."""

    count: Annotated[Count | None, Flag("Pings", ("c",), "N")] = Field(
        default=None, description="stop after N pings; without it, go on until Ctrl-C"
    )
    interval: Annotated[Seconds, Flag("Pings", ("i",), "SECONDS")] = Field(
        default=1.0, description="time from one ping to the next"
    )
    timeout: Annotated[Seconds, Flag("Pings", ("W",), "SECONDS")] = Field(
        default=1.0,
        description="time to wait for each answer; one that comes later counts as late, not lost",
    )
    size: Annotated[PingSize, Flag("Pings", ("s",), "BYTES")] = Field(
        default=64, description=f"size of a ping and of its answer, at least {MIN_SIZE}"
    )
    mode: Annotated[Mode, Flag("Pings", (), "MODE")] = Field(
        default="datagram",
        description="how pings travel: datagram (loss shows as loss), stream (all on one"
        " bidirectional stream), streams (a new bidirectional stream each) or uni (a new"
        " unidirectional stream each, answered on another)",
    )
    quiet: Annotated[bool, Flag("Output", ("q",))] = Field(
        default=False, description="show the summary only"
    )


class PingSettings(_Pings):
    """Settings of ``pingpong ping``."""

    verb = "ping"
    about = "Ping a WebTransport server: a line for each answer, and a summary at the end."
    notes = (
        *Settings.notes,
        "Exit status: 0, answers came; 1, none came, or fewer than --count by the --deadline;"
        " 2, any other error.",
    )

    url: CliPositionalArg[Annotated[str, BeforeValidator(_read_url)]] = Field(
        description="what to ping: https://host[:port][/path], or host[:port] for"
        f" https://host:{DEFAULT_PORT}/ping"
    )
    deadline: Annotated[Seconds | None, Flag("Pings", ("w",), "SECONDS")] = Field(
        default=None, description="stop after so long, however many pings were sent"
    )
    ipv4: Annotated[bool, Flag("Connection", ("4",))] = Field(
        default=False, description="use IPv4 only"
    )
    ipv6: Annotated[bool, Flag("Connection", ("6",))] = Field(
        default=False, description="use IPv6 only"
    )
    connect_timeout: Annotated[Seconds, Flag("Connection", (), "SECONDS")] = Field(
        default=5.0, description="time to be connected in, the name's lookup included"
    )
    ca_file: Annotated[FilePath | None, Flag("Connection", ("ca",), "FILE")] = Field(
        default=None,
        description="trust the certificate authorities in this PEM file, not the system's",
    )
    cert_hash: Annotated[
        bytes | None, BeforeValidator(_read_hash), Flag("Connection", (), "SHA256")
    ] = Field(
        default=None,
        description="trust exactly the certificate with this SHA-256, in hex or base64, whoever"
        " signed it",
    )
    insecure: Annotated[bool, Flag("Connection")] = Field(
        default=False, description="trust any certificate: whoever is on the way may answer"
    )
    timestamps: Annotated[bool, Flag("Output", ("D",))] = Field(
        default=False, description="begin each line with the time, as seconds since 1970"
    )
    json_lines: Annotated[bool, Flag("Output", ("json",))] = Field(
        default=False, description="a line of JSON for each answer and one for the summary"
    )
    log_level: Annotated[LogLevel, Flag("Output", (), "LEVEL")] = Field(
        default="warning", description=_LOG_LEVEL
    )

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        if self.ipv4 and self.ipv6:
            raise ValueError("-4/--ipv4 and -6/--ipv6 exclude each other")
        if self.insecure and (self.cert_hash is not None or self.ca_file is not None):
            other = "--ca" if self.cert_hash is None else "--cert-hash"
            raise ValueError(f"--insecure and {other} exclude each other: trust any, or that one")
        return self


class RunSettings(_Pings):
    """Settings of ``pingpong run``."""

    verb = "run"
    about = (
        "Try it out: a server with a certificate made for it, and a client that pings it and trusts"
        " exactly that certificate, side by side in this terminal."
    )

    log_level: Annotated[LogLevel, Flag("Output", (), "LEVEL")] = Field(
        default="info", description=_LOG_LEVEL
    )
