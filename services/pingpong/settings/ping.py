"""The settings of ``pingpong ping`` and ``pingpong run``."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import CliPositionalArg, NoDecode

from ..ping import DEFAULT_SIZE, HEADER_SIZE, Mode
from ..webtransport import EngineChoice
from .base import ConnectionSettings, Settings
from .command_line import Flag, named
from .values import (
    DEFAULT_PORT,
    ENGINE_HELP,
    LOG_LEVEL_HELP,
    Count,
    LogLevel,
    PingSize,
    Seconds,
    at_least_one,
    comma_separated,
    read_url,
)


class _Pings(Settings):
    """Settings of the verbs that ping and report."""

    count: Annotated[Count | None, Flag("Pings", "c", "N")] = Field(
        default=None, description="stop after N pings; without it, go on until Ctrl-C"
    )
    interval: Annotated[Seconds, Flag("Pings", "i", "SECONDS")] = Field(
        default=1.0, description="time from one ping to the next"
    )
    timeout: Annotated[Seconds, Flag("Pings", "W", "SECONDS")] = Field(
        default=1.0,
        description="time to wait for each answer; a later one counts as late, not lost",
    )
    size: Annotated[PingSize, Flag("Pings", "s", "BYTES")] = Field(
        default=DEFAULT_SIZE,
        description=f"size of a ping and of its answer, at least {HEADER_SIZE}",
    )
    mode: Annotated[Mode, Flag("Pings", "", "MODE")] = Field(
        default="datagram",
        description="how pings travel: datagram (loss shows as loss), stream (all on one"
        " bidirectional stream), streams (a new bidirectional stream each) or uni (a new"
        " unidirectional stream each, answered on another)",
    )
    quiet: Annotated[bool, Flag("Output", "q")] = Field(
        default=False, description="show the summary only"
    )


class PingSettings(_Pings, ConnectionSettings):
    """Settings of ``pingpong ping``."""

    verb = "ping"
    about = "Ping WebTransport servers: a line for each answer, and a summary at the end."
    notes = (
        *Settings.notes,
        "It reconnects when a connection is lost; pings until then count as not sent. SIGQUIT"
        " (Ctrl-\\) prints an interim summary.",
        "Exit status: 0, every target answered; 1, a target did not answer, or answered fewer than"
        " --count pings by the --deadline; 2, no connection to a target, or another error.",
    )

    targets: CliPositionalArg[
        Annotated[
            tuple[str, ...],
            NoDecode,
            BeforeValidator(comma_separated(read_url)),
            AfterValidator(at_least_one),
        ]
    ] = Field(
        description="what to ping, one or several: https://host[:port][/path], or host[:port] for"
        f" https://host:{DEFAULT_PORT}/ping"
    )
    flood: Annotated[bool, Flag("Pings", "f")] = Field(
        default=False,
        description="send the next ping when the answer arrives, or after 10 ms, at most 1000 per"
        " second; with --interval, at that interval. A terminal shows a dot for each ping without"
        " an answer",
    )
    deadline: Annotated[Seconds | None, Flag("Pings", "w", "SECONDS")] = Field(
        default=None, description="stop after this long, regardless of --count"
    )
    ipv4: Annotated[bool, Flag("Connection", "4")] = Field(
        default=False, description="use IPv4 only"
    )
    ipv6: Annotated[bool, Flag("Connection", "6")] = Field(
        default=False, description="use IPv6 only"
    )
    all: Annotated[bool, Flag("Connection")] = Field(
        default=False, description="ping every address of a name, each on its own connection"
    )
    live: Annotated[bool, Flag("Output")] = Field(
        default=False,
        description="show a live view of all targets, with loss, percentiles and a graph (keys: q"
        " quit, p freeze, r reset)",
    )
    timestamps: Annotated[bool, Flag("Output", "D")] = Field(
        default=False, description="begin each line with the time, in seconds since 1970"
    )
    # A field cannot be called `json`: pydantic has a method of that name.
    json_lines: Annotated[bool, Flag("Output")] = Field(
        alias="json",
        default=False,
        description="print a line of JSON for each answer, and one for the summary",
    )
    log_level: Annotated[LogLevel, Flag("Output", "", "LEVEL")] = Field(
        default="warning", description=LOG_LEVEL_HELP
    )

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        if self.ipv4 and self.ipv6:
            raise ValueError(
                f"{named('ipv4')} and {named('ipv6')} cannot be used together: leave one of them out"
            )
        for other, is_set in (("json", self.json_lines), ("quiet", self.quiet)):
            if self.live and is_set:
                raise ValueError(
                    f"{named('live')} and {named(other)} cannot be used together: leave one of them"
                    " out"
                )
        return self


class RunSettings(_Pings):
    """Settings of ``pingpong run``."""

    verb = "run"
    about = (
        "Try it out: a server with a self-signed certificate, and a client that trusts only that"
        " certificate and pings it, side by side in this terminal."
    )

    engine: Annotated[EngineChoice, Flag("Pings", "", "NAME")] = Field(
        default="auto", description=ENGINE_HELP
    )
    log_level: Annotated[LogLevel, Flag("Output", "", "LEVEL")] = Field(
        default="info", description=LOG_LEVEL_HELP
    )
