"""How settings are read: ``PINGPONG_*`` variables and command-line flags into frozen classes.

The settings themselves are in :mod:`pingpong.settings`. A field is the single source of its
variable (``PINGPONG_`` and its name), its flag (its name in kebab case, and the shorter names of
its :class:`Flag`), its help text and its row in the README. A flag wins over the variable; an
empty variable counts as unset. Constructing a class directly reads neither: only
:meth:`Settings.parse` does, from what it is given.
"""

from __future__ import annotations

import argparse
import difflib
import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Self, Union, get_args, get_origin

from pydantic import SecretBytes, SecretStr
from pydantic import ValidationError as _ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ..telemetry.redaction import shown
from .values import looks_secret, quoted

PREFIX = "PINGPONG_"

_SECTIONS = (
    *("Targets", "Listening", "TLS", "Access", "Pings", "Connection"),
    *("Limits", "Health", "Output", "Logs"),
)
"""In the order of the help text."""

# What kubelet sets for a Service whose name begins with "pingpong".
_KUBELET_NAME = re.compile(
    r"PINGPONG_(\w+_)?"
    r"(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_KUBELET_LINK = re.compile(r"PINGPONG_(\w+_)?PORT")
_KUBELET_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://.*")


class SettingsError(Exception):
    """Settings that cannot be used; ``mistakes`` has one line each."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, slots=True)
class Flag:
    """A field at the command line: its section of the help, shorter names, the value's name."""

    section: str
    names: tuple[str, ...] = ()
    value: str = ""


@dataclass(frozen=True, slots=True)
class _Setting:
    """A field, as help texts, tables and messages present it."""

    name: str
    field: FieldInfo
    flag: Flag | None

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    @property
    def flags(self) -> tuple[str, ...]:
        """The spellings on the command line, the shortest first; none for a positional."""
        if self.flag is None:
            return ()
        names = (self.name.replace("_", "-"), *self.flag.names)
        dashed = (f"-{name}" if len(name) == 1 else f"--{name}" for name in names)
        return tuple(sorted(dashed, key=len))

    @property
    def placeholder(self) -> str:
        if self.flag is not None:
            return self.flag.value
        # Of several: one or more of the singular.
        return f"{self.name.removesuffix('s')}...".upper() if self.is_tuple else self.name.upper()

    @property
    def is_tuple(self) -> bool:
        return get_origin(self._unwrapped()[0][0]) is tuple

    @property
    def default(self) -> str:
        value = self.field.default
        if value is None or value is PydanticUndefined:
            return ""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, tuple):
            return ",".join(map(str, value))
        return f"{value:g}" if isinstance(value, float) else str(value)

    @property
    def allowed(self) -> str:
        """What a value may be, from the field's type and bounds."""
        types, metadata = self._unwrapped()
        if self.is_tuple:
            types = [get_args(types[0])[0]]
        if get_origin(types[0]) is Literal:
            *most, last = get_args(types[0])
            return f"{', '.join(most)} or {last}" if most else str(last)
        bounds = {
            bound: getattr(meta, bound)
            for meta in metadata
            for bound in ("gt", "ge", "le")
            if hasattr(meta, bound)
        }
        if types[0] is float:
            least = f"above {bounds['gt']}" if "gt" in bounds else f"from {bounds['ge']}"
            return f"a number of seconds {least}, at most {bounds['le']}"
        if types[0] is int:
            return f"a whole number from {bounds['ge']} to {bounds['le']}"
        return "true or false" if types[0] is bool else "text"

    @property
    def is_secret(self) -> bool:
        return self._unwrapped()[0][0] in (SecretStr, SecretBytes)

    def _unwrapped(self) -> tuple[list[Any], list[Any]]:
        """The types that a value may have, and their metadata, out of ``Annotated[…] | None``."""
        annotation, metadata = self.field.annotation, list(self.field.metadata)
        if get_origin(annotation) not in (Union, UnionType):
            return [annotation], metadata
        types = []
        for member in get_args(annotation):
            if get_origin(member) is Annotated:
                types.append(member.__origin__)
                for meta in member.__metadata__:
                    metadata += meta.metadata if isinstance(meta, FieldInfo) else [meta]
            else:
                types.append(member)
        return types, metadata

    def given_as(self, value: object, *, on_command_line: bool) -> str:
        """The setting with its wrong value, as the person wrote it: ``--count 0``."""
        shown = "***" if self.is_secret or looks_secret(value) else quoted(str(value))
        if not on_command_line:
            return f"{self.variable}={shown}"
        return f"{self.flags[-1] if self.flags else self.placeholder.rstrip('.')} {shown}"


class _Parser(argparse.ArgumentParser):
    """Argparse with mistakes as :class:`SettingsError` and a help text made from the fields."""

    def __init__(self, settings: type[Settings]) -> None:
        super().__init__(prog=f"pingpong {settings.verb}", allow_abbrev=False)
        self._settings = settings

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ")
        message = message.replace("expected one argument", "a value is missing")
        message = message.replace("ignored explicit argument", "takes no value, got")
        raise SettingsError([message])

    def parse_settings(self, argv: Sequence[str]) -> argparse.Namespace:
        # By hand: argparse takes arguments from among the options in one place only.
        end = argv.index("--") if "--" in argv else len(argv)
        namespace, rest = self.parse_known_args(argv[:end])
        known = [flag for setting in _settings_of(self._settings) for flag in setting.flags]
        options = [word.split("=")[0] for word in rest if word.startswith("-")]
        if options:
            raise SettingsError(
                [f"{quoted(word)}: no such option{_nearest(word, known)}" for word in options]
            )
        words = [*rest, *argv[end + 1 :]]
        settings = _settings_of(self._settings)
        takers = [setting for setting in settings if setting.flag is None and setting.is_tuple]
        if words and not takers:
            raise SettingsError([f"{quoted(word)}: one argument too many" for word in words])
        for setting in takers:
            first = getattr(namespace, setting.name)
            if words:
                first = first if isinstance(first, list) else []
                setattr(namespace, setting.name, [*first, *words])
        return namespace

    def format_usage(self) -> str:
        positionals = [f" {s.placeholder}" for s in _settings_of(self._settings) if not s.flags]
        return f"usage: {self.prog} [options]{''.join(positionals)}\n"

    def format_help(self) -> str:
        width = min(shutil.get_terminal_size().columns, 100)
        settings = _settings_of(self._settings)
        has_letters = any(len(flag) == 2 for setting in settings for flag in setting.flags)
        sections: dict[str, list[tuple[str, str]]] = {}
        for setting in settings:
            left = " ".join(filter(None, (", ".join(setting.flags), setting.placeholder)))
            if has_letters and left.startswith("--"):
                left = f"    {left}"
            right = setting.field.description or ""
            if setting.default and setting.field.annotation is not bool:
                right += f" (default:\N{NO-BREAK SPACE}{setting.default})"
            section = setting.flag.section if setting.flag else "Arguments"
            sections.setdefault(section, []).append((left, right))
        sections.setdefault("Other", []).append(("-h, --help", "show this text and exit"))
        column = max(len(left) for rows in sections.values() for left, _ in rows) + 4
        parts = [self.format_usage(), textwrap.fill(self._settings.about, width) + "\n"]
        for title, rows in sections.items():
            lines = [line for row in rows for line in _two_columns(*row, column, width)]
            parts.append("\n".join([f"{title}:", *lines, ""]))
        parts.extend(textwrap.fill(note, width) + "\n" for note in self._settings.notes)
        return "\n".join(parts)


def _two_columns(left: str, right: str, column: int, width: int) -> list[str]:
    first = f"  {left}".ljust(column)
    lines = textwrap.wrap(
        right,
        max(width, column + 24),
        initial_indent=first,
        subsequent_indent=" " * column,
        break_on_hyphens=False,
    )
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines or [first.rstrip()]]


def _add_argument(parser: argparse.ArgumentParser, *names: str, **options: Any) -> argparse.Action:
    if not names[0].startswith("-"):
        # The variable may give it; the class says whether it is missing.
        options["nargs"] = "*" if options.get("nargs") == "+" else "?"
    return parser.add_argument(*sorted(names, key=len), **options)


def _nearest(name: str, known: Sequence[str]) -> str:
    # The prefix that all variables share would make any two of them look alike.
    bare = {option.removeprefix(PREFIX).upper(): option for option in known}
    near = difflib.get_close_matches(name.removeprefix(PREFIX).upper(), bare, n=1)
    return f"; did you mean {bare[near[0]]}?" if near else ""


class Settings(BaseSettings):
    """What the settings of every verb have in common."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, ser_json_bytes="hex"
    )

    verb: ClassVar[str]
    about: ClassVar[str]
    notes: ClassVar[tuple[str, ...]] = (
        "Every option can be given as a variable as well: --log-level as PINGPONG_LOG_LEVEL, and"
        " so on. An option wins over its variable.",
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
        """Take values from the constructor only, so that the environment cannot leak in."""
        return (init_settings,)

    @classmethod
    def parse(cls, argv: Sequence[str], environ: Mapping[str, str]) -> Self:
        """Read the settings from the words after the verb, and the environment.

        ``--help`` prints the help text and raises ``SystemExit(0)``.

        Raises:
            SettingsError: there are mistakes; it has one line for each.
        """
        settings = {setting.name: setting for setting in _settings_of(cls)}
        parser = _Parser(cls)
        command_line: CliSettingsSource[Any] = CliSettingsSource(
            cls,
            root_parser=parser,
            parse_args_method=_Parser.parse_settings,
            add_argument_method=_add_argument,
            cli_kebab_case=True,
            cli_implicit_flags="toggle",
            cli_shortcuts={
                name.replace("_", "-"): list(setting.flag.names)
                for name, setting in settings.items()
                if setting.flag
            },
            cli_parse_none_str="\0",  # no word stands for None: "--ca null" is a file's name
        )
        variables = EnvSettingsSource(cls)
        variables.env_vars = {
            setting.variable.lower(): environ[setting.variable]
            for setting in settings.values()
            if environ.get(setting.variable)
        }
        from_command_line = command_line(args=list(argv))()
        values = variables() | from_command_line
        try:
            return cls(**values)
        except _ValidationError as error:
            mistakes = []
            places = {name: place for place, name in enumerate(settings)}
            details = error.errors(include_url=False)
            for detail in sorted(details, key=lambda d: places.get(str((*d["loc"], "")[0]), 99)):
                reason = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else ""
                setting = settings.get(str(detail["loc"][0])) if detail["loc"] else None
                if setting is None:
                    mistakes.append(reason or detail["msg"])
                elif detail["type"] == "missing":
                    name = "/".join(setting.flags) or setting.placeholder.rstrip(".")
                    mistakes.append(f"{name} is missing (or set {setting.variable})")
                else:
                    given = setting.given_as(
                        values[setting.name], on_command_line=setting.name in from_command_line
                    )
                    mistakes.append(f"{given}: {reason or 'must be ' + setting.allowed}")
            raise SettingsError(mistakes) from None

    def masked(self) -> dict[str, Any]:
        """All values, ready for JSON: bytes as hex, secrets as asterisks, also those in URLs."""
        values: dict[str, Any] = shown(self.model_dump(mode="json"))
        return values


def _settings_of(cls: type[Settings]) -> list[_Setting]:
    """The settings of ``cls`` by section, positionals first."""
    settings = [
        _Setting(name, field, next((m for m in field.metadata if isinstance(m, Flag)), None))
        for name, field in cls.model_fields.items()
    ]

    def place(setting: _Setting) -> int:
        return -1 if setting.flag is None else _SECTIONS.index(setting.flag.section)

    return sorted(settings, key=place)


def unknown_variables(classes: Sequence[type[Settings]], environ: Mapping[str, str]) -> list[str]:
    """A sentence for each ``PINGPONG_*`` variable that no setting of ``classes`` knows.

    Variables of the shapes that kubelet injects for a Service are passed over.
    """
    known = sorted({setting.variable for cls in classes for setting in _settings_of(cls)})
    return [
        f"{name} is not a setting{_nearest(name, known)}"
        for name, value in sorted(environ.items())
        if name.startswith(PREFIX) and name not in known and not _is_from_kubelet(name, value)
    ]


def _is_from_kubelet(name: str, value: str) -> bool:
    # PINGPONG_PORT=udp://10.0.0.1:4433 is kubelet's, PINGPONG_PORT=4433 a person's slip.
    is_link = _KUBELET_LINK.fullmatch(name) and _KUBELET_LINK_VALUE.fullmatch(value)
    return bool(is_link or _KUBELET_NAME.fullmatch(name))


def settings_table(cls: type[Settings]) -> str:
    """The settings of a verb as a Markdown table: variable, flag, default, meaning."""
    rows = ["| variable | flag | default | meaning |", "|---|---|---|---|"]
    for setting in _settings_of(cls):
        flags = ", ".join(f"`{flag}`" for flag in setting.flags) or f"`{setting.placeholder}`"
        default = f"`{setting.default}`" if setting.default else ""
        meaning = (setting.field.description or "").replace("|", "\\|")
        rows.append(f"| `{setting.variable}` | {flags} | {default} | {meaning} |")
    return "\n".join(rows) + "\n"
