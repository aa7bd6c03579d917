"""Reads settings from ``PINGPONG_*`` variables and options; the settings that verbs share.

Each verb has its settings in its own file. A field is the single source of its variable
(``PINGPONG_`` and its name), its option (its name in kebab case, and the letter of its `Flag`), its
help text and its row in the docs. An option overrides the variable; an empty variable counts as
unset. Constructing a class directly reads neither: only :meth:`Settings.parse` does, from its
arguments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic import ValidationError as _ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ..webtransport import EngineChoice
from .command_line import (
    PREFIX,
    Flag,
    Parser,
    SettingsError,
    add_argument,
    named,
    nearest,
    renamed_variables,
    settings_of,
)
from .values import (
    ENGINE_HELP,
    LOG_LEVEL_HELP,
    FilePath,
    LogFormat,
    LogLevel,
    Port,
    Seconds,
    SecretFilePath,
    not_empty,
    quoted,
    read_hash,
)

# Variables that kubelet sets for a Service whose name begins with "pingpong". Some are recognized by
# name, others by value: PINGPONG_PORT=udp://10.0.0.1:4433 is kubelet's, PINGPONG_PORT=4433 a mistake.
_KUBELET_NAME = re.compile(
    r"PINGPONG_(\w+_)?"
    r"(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_KUBELET_LINK = re.compile(r"PINGPONG_(\w+_)?PORT=(tcp|udp|sctp)://\S+:\d+")
_OF_TESTS = ("PINGPONG_TEST_", "PINGPONG_E2E_", "PINGPONG_KIND_")
"""Prefixes of the variables of this project's tests, which `pingpong` ignores."""


class Settings(BaseSettings):
    """Base of every verb's settings."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        ser_json_bytes="hex",
        defer_build=True,  # of the verbs, one is used
    )

    verb: ClassVar[str]
    about: ClassVar[str]
    notes: ClassVar[tuple[str, ...]] = (
        "Each option is also an environment variable: --log-level is PINGPONG_LOG_LEVEL. An option"
        " overrides its variable.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from the constructor only, not from the environment."""
        return (init_settings,)

    @classmethod
    def parse(cls, argv: Sequence[str], environ: Mapping[str, str]) -> Self:
        """Read the settings from the words after the verb, and the environment.

        ``--help`` prints the help text and raises ``SystemExit(0)``.

        Raises:
            SettingsError: settings are wrong; it has one line for each mistake.
        """
        settings = {setting.name: setting for setting in settings_of(cls)}
        if refused := renamed_variables(list(settings.values()), environ):
            raise SettingsError(refused)
        command_line: CliSettingsSource[Any] = CliSettingsSource(
            cls,
            root_parser=Parser(cls.verb, cls.about, cls.notes, list(settings.values())),
            parse_args_method=Parser.parse_settings,
            add_argument_method=add_argument,
            cli_kebab_case=True,
            cli_implicit_flags="dual",
            cli_shortcuts={
                name.replace("_", "-"): setting.flag.letter
                for name, setting in settings.items()
                if setting.flag and setting.flag.letter
            },
            cli_parse_none_str="\0",  # no word means None: "--ca null" is a file's name
        )
        variables = EnvSettingsSource(cls)
        variables.env_vars = {
            name: value
            for name, setting in settings.items()
            if (value := environ.get(setting.variable))
            and not _is_from_kubelet(setting.variable, value)
        }
        from_command_line = command_line(args=list(argv))()
        values = variables() | from_command_line
        try:
            return cls(**values)
        except _ValidationError as error:
            mistakes = []
            order = {name: index for index, name in enumerate(settings)}
            details = error.errors(include_url=False)
            for detail in sorted(details, key=lambda d: order.get(str((*d["loc"], "")[0]), 99)):
                reason = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else ""
                setting = settings.get(str(detail["loc"][0])) if detail["loc"] else None
                if setting is None:
                    mistakes.append(reason or detail["msg"])
                elif detail["type"] == "missing":
                    name = setting.option.rstrip(".")
                    mistakes.append(f"{name} is missing (or set {setting.variable})")
                else:
                    given = setting.given_as(
                        values[setting.name], on_command_line=setting.name in from_command_line
                    )
                    if not reason:
                        wrong = str(detail["input"])
                        which = f"{quoted(wrong)} " if setting.is_tuple else ""
                        hint = nearest(wrong, setting.choices)
                        reason = f"{which}must be {setting.allowed}{hint}"
                    mistakes.append(f"{given}: {reason}")
            raise SettingsError(mistakes) from None

    def _both_or_neither(self, one: str, other: str, neither: str) -> None:
        names = [
            named(name)
            for name in sorted((one, other), key=lambda name: getattr(self, name) is None)
        ]
        if (getattr(self, one) is None) != (getattr(self, other) is None):
            raise ValueError(f"{names[0]} is set without {names[1]}: set both, or {neither}")

    def masked(self) -> dict[str, Any]:
        """All values for JSON: bytes as hex, secrets as asterisks, also those in URLs."""
        from ..telemetry.redaction import shown

        values = self.model_dump(mode="json", by_alias=True)
        masked: dict[str, Any] = shown(
            {each.name: values[each.name] for each in settings_of(type(self))}
        )
        return masked


class ServiceSettings(Settings):
    """Settings of the verbs that run as a service."""

    admin_host: Annotated[str, BeforeValidator(not_empty), Flag("Health", "", "HOST")] = Field(
        default="::", description="address of the admin port: health and metrics over HTTP"
    )
    admin_port: Annotated[Port, Flag("Health", "", "PORT")] = Field(
        default=8080, description="TCP port for health and metrics; 0: a free one, which is logged"
    )
    admin_tls_cert_file: Annotated[FilePath | None, Flag("Health", "", "FILE")] = Field(
        default=None,
        description="use TLS on the admin port, with the certificate and chain in this PEM file; read"
        " again when it changes",
    )
    admin_tls_key_file: Annotated[SecretFilePath | None, Flag("Health", "", "FILE")] = Field(
        default=None, description="private key of --admin-tls-cert-file, PEM, not encrypted"
    )
    admin_token_file: Annotated[SecretFilePath | None, Flag("Health", "", "FILE")] = Field(
        default=None,
        description="require a bearer token on the admin port, except for /livez and /readyz: one of"
        " those in this file, one per line; read again when it changes",
    )
    admin_basic_auth_file: Annotated[SecretFilePath | None, Flag("Health", "", "FILE")] = Field(
        default=None,
        description="require basic authentication in the same way: user:password, not encrypted, one"
        " per line; with both files, either is enough",
    )
    log_level: Annotated[LogLevel, Flag("Logs", "", "LEVEL")] = Field(
        default="info", description=LOG_LEVEL_HELP
    )
    log_format: Annotated[LogFormat, Flag("Logs", "", "FORMAT")] = Field(
        default="auto", description="json, console, or auto: console in a terminal, json elsewhere"
    )

    @model_validator(mode="after")
    def _admin_certificate_has_its_key(self) -> Self:
        self._both_or_neither(
            "admin_tls_cert_file", "admin_tls_key_file", "neither to do without TLS"
        )
        return self


class ConnectionSettings(Settings):
    """Settings of the verbs that connect to a server."""

    connect_timeout: Annotated[Seconds, Flag("Connection", "", "SECONDS")] = Field(
        default=5.0,
        description="give up connecting after this time, including the name lookup",
    )
    engine: Annotated[EngineChoice, Flag("Connection", "", "NAME")] = Field(
        default="auto", description=ENGINE_HELP
    )
    ca: Annotated[FilePath | None, Flag("Connection", "", "FILE")] = Field(
        default=None,
        description="trust the certificate authorities in this PEM file instead of the system's",
    )
    cert_hash: Annotated[
        bytes | None, BeforeValidator(read_hash), Flag("Connection", "", "SHA256")
    ] = Field(
        default=None,
        description="trust only the certificate with this SHA-256 (hex or base64), by any issuer",
    )
    insecure: Annotated[bool, Flag("Connection")] = Field(
        default=False,
        description="trust any certificate: others on the path can impersonate the server",
    )
    token_file: Annotated[SecretFilePath | None, Flag("Connection", "", "FILE")] = Field(
        default=None,
        description="send the token in this file (Authorization: Bearer); read again for each"
        " connection",
    )

    @model_validator(mode="after")
    def _trust_is_one(self) -> Self:
        if self.insecure and (self.cert_hash is not None or self.ca is not None):
            other = named("ca" if self.cert_hash is None else "cert_hash")
            raise ValueError(
                f"{named('insecure')} and {other} cannot be used together: leave one of them out"
            )
        return self

    @property
    def trust(self) -> str:
        """Which certificates are trusted, for display."""
        if self.insecure:
            return "any certificate"
        if self.cert_hash is not None:
            return f"the certificate with SHA-256 {self.cert_hash.hex()}"
        if self.ca is not None:
            return f"the authorities in {self.ca}"
        return "the system's authorities"


def unknown_variables(classes: Sequence[type[Settings]], environ: Mapping[str, str]) -> list[str]:
    """A sentence for each ``PINGPONG_*`` variable that no setting of ``classes`` knows.

    It ignores variables that kubelet sets for a Service, and those of this project's tests.
    """
    settings = {setting.variable: setting for cls in classes for setting in settings_of(cls)}
    was = renamed_variables(list(settings.values()), environ)
    return was + [
        f"{name} is not a setting{nearest(name, sorted(settings))}"
        for name, value in sorted(environ.items())
        if name.startswith(PREFIX)
        and name not in settings
        and not name.startswith(_OF_TESTS)
        and not any(sentence.startswith(f"{name} ") for sentence in was)
        and not _is_from_kubelet(name, value)
    ]


def _is_from_kubelet(name: str, value: str) -> bool:
    return bool(_KUBELET_NAME.fullmatch(name) or _KUBELET_LINK.fullmatch(f"{name}={value}"))
