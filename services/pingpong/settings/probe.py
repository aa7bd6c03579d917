"""The settings of ``pingpong probe``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from .base import ConnectionSettings, ServiceSettings
from .command_line import Flag
from .values import (
    MIN_SIZE,
    Count,
    Mode,
    PingSize,
    Port,
    Seconds,
    at_least_one,
    comma_separated,
    read_source,
)


class ProbeSettings(ServiceSettings, ConnectionSettings):
    """Settings of ``pingpong probe``."""

    verb = "probe"
    about = (
        "Ping WebTransport servers for as long as it runs, find them by DNS or in Kubernetes,"
        " reconnect whatever happens, and offer what was measured to Prometheus."
    )

    server: Annotated[
        tuple[str, ...],
        NoDecode,
        BeforeValidator(comma_separated(read_source)),
        AfterValidator(at_least_one),
        Flag("Targets", (), "SOURCES"),
    ] = Field(
        description="what to ping, separated by commas: https://host:4433/ping, or host[:port];"
        " srv://_webtransport._udp.name; endpointslice://namespace/service"
    )
    # Not the server's, so that both run on one machine without settings.
    admin_port: Annotated[Port, Flag("Health", (), "PORT")] = Field(
        default=8081, description="TCP port of health and metrics; 0 takes a free one and logs it"
    )
    targets: Annotated[Literal["name", "address"], Flag("Targets", (), "KIND")] = Field(
        default="name",
        description="name: one target for each name, at whichever address answers; address: one"
        " for each address of a name, every pod of a headless service",
    )
    max_targets: Annotated[Count, Flag("Targets", (), "N")] = Field(
        default=100, description="targets at one time; more are left out, and the log says so"
    )
    discovery_interval: Annotated[Seconds, Flag("Targets", (), "SECONDS")] = Field(
        default=30.0,
        description="look names up again after this long at most; sooner where DNS says so",
    )
    modes: Annotated[
        tuple[Mode, ...],
        NoDecode,
        BeforeValidator(comma_separated(lambda mode: mode)),
        AfterValidator(at_least_one),
        Flag("Pings", (), "MODES"),
    ] = Field(
        default=("datagram",),
        description="how pings travel, separated by commas: datagram (loss shows as loss), stream"
        " (all on one bidirectional stream), streams (a new bidirectional stream each) and uni (a"
        " new unidirectional stream each, answered on another)",
    )
    interval: Annotated[Seconds, Flag("Pings", ("i",), "SECONDS")] = Field(
        default=1.0, description="time from one ping to the next, of each target and mode"
    )
    timeout: Annotated[Seconds, Flag("Pings", ("W",), "SECONDS")] = Field(
        default=1.0,
        description="time to wait for each answer; one that comes later counts as late, not lost",
    )
    size: Annotated[PingSize, Flag("Pings", ("s",), "BYTES")] = Field(
        default=64, description=f"size of a ping and of its answer, at least {MIN_SIZE}"
    )
    backoff_min: Annotated[Seconds, Flag("Connection", (), "SECONDS")] = Field(
        default=0.1, description="wait up to this long before the first new attempt to connect"
    )
    backoff_max: Annotated[Seconds, Flag("Connection", (), "SECONDS")] = Field(
        default=10.0,
        description="wait up to this long at most, after several have failed; a second at most where nothing answers, or the host says that nothing listens",
    )
    ready_requires: Annotated[Literal["none", "any", "all"], Flag("Health", (), "WHICH")] = Field(
        default="none",
        description="targets that must be up for this client to be ready: none (a client that"
        " measures an outage is itself well), any or all",
    )

    @model_validator(mode="after")
    def _backoff_grows(self) -> Self:
        if self.backoff_min > self.backoff_max:
            raise ValueError(
                "PINGPONG_BACKOFF_MIN (--backoff-min) must not be above PINGPONG_BACKOFF_MAX"
                " (--backoff-max)"
            )
        return self
