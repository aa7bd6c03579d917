"""What both services are set: where their health and metrics are asked for, and their logs."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from .base import Flag, Settings
from .values import LOG_LEVEL_HELP, LogFormat, LogLevel, Port, not_empty


class ServiceSettings(Settings):
    """What every verb takes that runs as a service."""

    admin_host: Annotated[str, BeforeValidator(not_empty), Flag("Health", (), "HOST")] = Field(
        default="::", description="address on which health and metrics are asked for, over HTTP"
    )
    admin_port: Annotated[Port, Flag("Health", (), "PORT")] = Field(
        default=8080, description="TCP port of health and metrics; 0 takes a free one and logs it"
    )
    log_level: Annotated[LogLevel, Flag("Logs", (), "LEVEL")] = Field(
        default="info", description=LOG_LEVEL_HELP
    )
    log_format: Annotated[LogFormat, Flag("Logs", (), "FORMAT")] = Field(
        default="auto", description="json, console, or auto: console in a terminal, json elsewhere"
    )
