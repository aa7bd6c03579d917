"""The settings of ``pingpong probe``."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import CliPositionalArg, NoDecode

from ..ping import DEFAULT_SIZE, HEADER_SIZE, Mode
from .base import ConnectionSettings, ServiceSettings
from .command_line import Flag, named
from .values import (
    DEFAULT_PORT,
    Count,
    PingSize,
    Port,
    Seconds,
    at_least_one,
    comma_separated,
    read_source,
)

RTT_BUCKETS = (
    *(0.00005, 0.0001, 0.0002, 0.0004, 0.0008, 0.0015, 0.003, 0.006),
    *(0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0),
)
_MAX_BUCKETS = 30


def _read_bucket(text: str) -> float:
    try:
        bound = float(text)
    except ValueError:
        bound = 0
    if not 0 < bound <= 31_536_000:
        raise ValueError("must be a number of seconds above 0, such as 0.001")
    return bound


def _check_buckets(bounds: tuple[float, ...]) -> tuple[float, ...]:
    if any(low >= high for low, high in itertools.pairwise(bounds)):
        raise ValueError("must be ascending")
    if len(bounds) > _MAX_BUCKETS:
        raise ValueError(f"must be at most {_MAX_BUCKETS}: each is a time series for every target")
    return bounds


class ProbeSettings(ServiceSettings, ConnectionSettings):
    """Settings of ``pingpong probe``."""

    verb = "probe"
    about = (
        "Ping WebTransport servers until SIGTERM or Ctrl-C, with metrics for Prometheus. It finds"
        " servers by DNS or in Kubernetes, and reconnects when a connection is lost."
    )

    targets: CliPositionalArg[
        Annotated[
            tuple[str, ...],
            NoDecode,
            BeforeValidator(comma_separated(read_source)),
            AfterValidator(at_least_one),
        ]
    ] = Field(
        description="what to ping, one or several: https://host[:port][/path]; host[:port] for"
        f" https://host:{DEFAULT_PORT}/ping; srv://_webtransport._udp.name for DNS SRV records;"
        " endpointslice://namespace/service for the pods of a Kubernetes Service"
    )
    # Not the server's port, so that both run on one machine without settings.
    admin_port: Annotated[Port, Flag("Health", "", "PORT")] = Field(
        default=8081, description="TCP port for health and metrics; 0: a free one, which is logged"
    )
    all: Annotated[bool, Flag("Targets")] = Field(
        default=False,
        description="ping every address of a name as a separate target, such as every pod of a"
        " headless Service",
    )
    max_targets: Annotated[Count, Flag("Targets", "", "N")] = Field(
        default=100, description="maximum number of targets; further ones are skipped, and logged"
    )
    discovery_interval: Annotated[Seconds, Flag("Targets", "", "SECONDS")] = Field(
        default=30.0,
        description="look names up again after at most this long; earlier if a DNS TTL is shorter",
    )
    mode: Annotated[
        tuple[Mode, ...],
        NoDecode,
        BeforeValidator(comma_separated(lambda mode: mode)),
        AfterValidator(at_least_one),
        Flag("Pings", "", "MODE"),
    ] = Field(
        default=("datagram",),
        description="how pings travel, separated by commas: datagram (loss shows as loss), stream"
        " (all on one bidirectional stream), streams (a new bidirectional stream each) and uni (a"
        " new unidirectional stream each, answered on another)",
    )
    interval: Annotated[Seconds, Flag("Pings", "i", "SECONDS")] = Field(
        default=1.0, description="time from one ping to the next, for each target and mode"
    )
    timeout: Annotated[Seconds, Flag("Pings", "W", "SECONDS")] = Field(
        default=1.0,
        description="time to wait for each answer; a later one counts as late, not lost",
    )
    size: Annotated[PingSize, Flag("Pings", "s", "BYTES")] = Field(
        default=DEFAULT_SIZE,
        description=f"size of a ping and of its answer, at least {HEADER_SIZE}",
    )
    backoff_min: Annotated[Seconds, Flag("Connection", "", "SECONDS")] = Field(
        default=0.1, description="wait up to this long before the first retry of a connection"
    )
    backoff_max: Annotated[Seconds, Flag("Connection", "", "SECONDS")] = Field(
        default=10.0,
        description="wait up to this long before later retries; at most a second if nothing answers,"
        " or the host reports a closed port",
    )
    rtt_buckets: Annotated[
        tuple[Seconds, ...],
        NoDecode,
        BeforeValidator(comma_separated(_read_bucket)),
        AfterValidator(at_least_one),
        AfterValidator(_check_buckets),
        Flag("Health", "", "SECONDS"),
    ] = Field(
        default_factory=lambda: RTT_BUCKETS,
        description="upper bounds of the buckets of pingpong_client_rtt_seconds, ascending, separated by commas"
        f" (default: {len(RTT_BUCKETS)} from 0.00005 to 3, each about twice the one before)",
    )
    ready_requires: Annotated[Literal["none", "any", "all"], Flag("Health", "", "WHICH")] = Field(
        default="none",
        description="targets that must be up for the prober to be ready: none (it stays ready"
        " during outages of its targets), any or all",
    )

    @model_validator(mode="after")
    def _backoff_grows(self) -> Self:
        if self.backoff_min > self.backoff_max:
            raise ValueError(
                f"{named('backoff_min')} must not be above {named('backoff_max')}:"
                f" {self.backoff_min:g} and {self.backoff_max:g} seconds"
            )
        return self
