"""Settings at the command line: flags and help texts, made from the fields of their classes."""

from __future__ import annotations

import argparse
import difflib
import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ..webtransport import printable
from .values import looks_secret, quoted

PREFIX = "PINGPONG_"

RENAMED = {
    "urls": "targets",
    "server": "targets",
    "targets": "all",  # as PINGPONG_TARGETS=address
    "all_addresses": "all",
    "modes": "mode",
    "ca_file": "ca",
    "json_lines": "json",
}
"""Old names of settings, and their new ones. An old name is an error that gives the new one."""

_NEAR = 0.75
"""Minimum similarity of two names for "did you mean"; `pnig` and `ping` have exactly this one."""

_MAX_REASON = 120
"""Characters; argparse shows a value whole."""

_SECTIONS = (
    *("Targets", "Listening", "TLS", "Secrets", "Access", "Pings", "Connection"),
    *("Limits", "Health", "Output", "Logs"),
)
"""The sections of the help text, in order."""


class SettingsError(Exception):
    """Settings that cannot be used; ``mistakes`` has one line each."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


def variable(name: str) -> str:
    """The environment variable of the setting of this name."""
    return PREFIX + name.upper()


def option(name: str) -> str:
    """The option of the setting of this name."""
    return f"--{name.replace('_', '-')}"


def named(name: str, value: str = "") -> str:
    """An option and its variable, for messages: ``--auth token (PINGPONG_AUTH)``."""
    return f"{option(name)}{value and f' {value}'} ({variable(name)})"


@dataclass(frozen=True, slots=True)
class Flag:
    """A field's option: its section of the help text, its letter, and its value's placeholder."""

    section: str
    letter: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """A field, for help texts, tables and messages."""

    name: str
    field: FieldInfo
    flag: Flag | None

    @property
    def variable(self) -> str:
        """The environment variable's name."""
        return variable(self.name)

    @property
    def option(self) -> str:
        """The long option; the placeholder if it is positional."""
        return option(self.name) if self.flag else self.placeholder

    @property
    def flags(self) -> tuple[str, ...]:
        """The option's forms in help texts, the shortest first; none for a positional."""
        if self.flag is None:
            return ()
        long = self.option if not self.is_bool else f"--[no-]{self.option[2:]}"
        return (f"-{self.flag.letter}", long) if self.flag.letter else (long,)

    @property
    def placeholder(self) -> str:
        """The name of its value in help texts."""
        if self.flag is not None:
            return self.flag.value
        # Of several: one or more of the singular.
        return f"{self.name.removesuffix('s')}...".upper() if self.is_tuple else self.name.upper()

    @property
    def is_bool(self) -> bool:
        """Whether it is on or off."""
        return self.field.annotation is bool

    @property
    def is_number(self) -> bool:
        """Whether its value is a number, or several."""
        return self._kind in (int, float)

    @property
    def is_tuple(self) -> bool:
        """Whether it takes several values."""
        return get_origin(self._unwrapped()[0][0]) is tuple

    @property
    def default(self) -> str:
        """The default as one would type it; empty if there is none."""
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
        """The allowed values, from the field's type and bounds."""
        kind, metadata = self._kind, self._unwrapped()[1]
        if self.choices:
            *most, last = self.choices
            return f"{', '.join(most)} or {last}" if most else last
        bounds = {
            bound: getattr(meta, bound)
            for meta in metadata
            for bound in ("gt", "ge", "le")
            if hasattr(meta, bound)
        }
        if kind is float:
            least = f"above {bounds['gt']}" if "gt" in bounds else f"from {bounds['ge']}"
            return f"a number of seconds {least}, at most {bounds['le']}"
        if kind is int:
            return f"a whole number from {bounds['ge']} to {bounds['le']}"
        return "true or false" if kind is bool else "text"

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed values of an enumeration; empty for other types."""
        return get_args(self._kind) if get_origin(self._kind) is Literal else ()

    @property
    def is_secret(self) -> bool:
        """Whether its value must not be shown."""
        return self._unwrapped()[0][0] in (SecretStr, SecretBytes)

    @property
    def _kind(self) -> Any:
        """The type of its value, or of each of several."""
        kind = self._unwrapped()[0][0]
        return get_args(kind)[0] if self.is_tuple else kind

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
        """The setting with its wrong value, as it was given: ``--count 0``."""
        shown = "***" if self.is_secret or looks_secret(value) else quoted(str(value))
        if on_command_line:
            return f"{self.option.rstrip('.')} {shown} ({self.variable})"
        return f"{self.variable}={shown} ({self.option})"


class Parser(argparse.ArgumentParser):
    """Argparse with errors as :class:`SettingsError` and a help text made from the fields."""

    def __init__(
        self, verb: str, about: str, notes: Sequence[str], settings: Sequence[Setting]
    ) -> None:
        super().__init__(prog=f"pingpong {verb}", allow_abbrev=False)
        self._about = about
        self._notes = notes
        self._settings = settings

    def error(self, message: str) -> NoReturn:
        """Raises `SettingsError`, with option and variable in the message."""
        names, colon, reason = message.removeprefix("argument ").partition(": ")
        for setting in self._settings:
            if setting.flag and setting.option in names.split("/"):
                names = named(setting.name)
        reason = reason.replace("expected one argument", "a value is missing")
        reason = reason.replace("ignored explicit argument", "takes no value, got")
        raise SettingsError([names + colon + printable(reason, _MAX_REASON)])

    def parse_settings(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse the words after the verb. Raises `SettingsError`."""
        # By hand: argparse takes positional arguments only if they are all together.
        end = argv.index("--") if "--" in argv else len(argv)
        namespace, rest = self.parse_known_args(self._with_negative_numbers(argv[:end]))
        unknown = [word.split("=")[0] for word in rest if word.startswith("-")]
        if unknown:
            raise SettingsError([self._no_such_option(word) for word in unknown])
        words = [*rest, *argv[end + 1 :]]
        takers = [each for each in self._settings if each.flag is None and each.is_tuple]
        if words and not takers:
            raise SettingsError([f"{quoted(word)}: one argument too many" for word in words])
        for setting in takers:
            first = getattr(namespace, setting.name)
            if words:
                first = first if isinstance(first, list) else []
                setattr(namespace, setting.name, [*first, *words])
        return namespace

    def _with_negative_numbers(self, argv: Sequence[str]) -> list[str]:
        """Join `-c -1` to `-c-1`: argparse takes each word that begins with - for an option."""
        numbers = [setting for setting in self._settings if setting.is_number]
        options = [setting.option for setting in numbers]
        letters = [setting.flag.letter for setting in numbers if setting.flag]
        words = [""]
        for word in argv:
            before = words[-1]
            if not re.match(r"-(\.?\d|inf|nan)", word):
                words.append(word)
            elif before in options:
                words[-1] += f"={word}"
            elif re.fullmatch(r"-\w+", before) and before[-1] in letters:
                words[-1] += word
            else:
                words.append(word)
        return words[1:]

    def _no_such_option(self, word: str) -> str:
        name = word.removeprefix("--").removeprefix("no-").replace("-", "_")
        for setting in self._settings:
            if RENAMED.get(name) == setting.name:
                return f"{word} is now {setting.option} ({setting.variable})"
        options = [each.option for each in self._settings if each.flag]
        options += [f"--no-{each.option[2:]}" for each in self._settings if each.is_bool]
        return f"{quoted(word)}: no such option{nearest(word, options)}"

    def format_usage(self) -> str:
        """The first line of the help text."""
        positionals = [f" {s.placeholder}" for s in self._settings if not s.flags]
        return f"usage: {self.prog} [options]{''.join(positionals)}\n"

    def format_help(self) -> str:
        """The help text, as wide as the terminal, at most 100 columns."""
        width = min(shutil.get_terminal_size().columns, 100)
        has_letters = any(setting.flag and setting.flag.letter for setting in self._settings)
        sections: dict[str, list[tuple[str, str]]] = {}
        for setting in self._settings:
            left = " ".join(filter(None, (", ".join(setting.flags), setting.placeholder)))
            if has_letters and left.startswith("--"):
                left = f"    {left}"
            right = setting.field.description or ""
            if setting.default and not setting.is_bool:
                right += f" (default:\N{NO-BREAK SPACE}{setting.default})"
            section = setting.flag.section if setting.flag else "Arguments"
            sections.setdefault(section, []).append((left, right))
        sections.setdefault("Other", []).append(("-h, --help", "show this text and exit"))
        column = max(len(left) for rows in sections.values() for left, _ in rows) + 4
        parts = [self.format_usage(), textwrap.fill(self._about, width) + "\n"]
        for title, rows in sections.items():
            lines = [line for row in rows for line in _two_columns(*row, column, width)]
            parts.append("\n".join([f"{title}:", *lines, ""]))
        parts.extend(textwrap.fill(note, width) + "\n" for note in self._notes)
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


def add_argument(parser: argparse.ArgumentParser, *names: str, **options: Any) -> argparse.Action:
    """Add an argument; for `CliSettingsSource`."""
    if not names[0].startswith("-"):
        # The variable may give it; the settings class checks whether it is missing.
        options["nargs"] = "*" if options.get("nargs") == "+" else "?"
    return parser.add_argument(*sorted(names, key=len), **options)


def nearest(word: str, known: Sequence[str]) -> str:
    """A "did you mean" for the name in `known` that is most similar to `word`; empty without one."""
    # Without prefix and dashes, which make any two names similar.
    bare = {name.removeprefix(PREFIX).lstrip("-").upper(): name for name in known}
    typed = word.removeprefix(PREFIX).lstrip("-").upper()
    near = difflib.get_close_matches(typed, bare, n=1, cutoff=_NEAR)
    return f"; did you mean {bare[near[0]]}?" if near else ""


def renamed_variables(settings: Sequence[Setting], environ: Mapping[str, str]) -> list[str]:
    """A sentence for each variable that is an old name of one of these settings."""
    now = {setting.name: setting for setting in settings}
    sentences = []
    for old, new in RENAMED.items():
        given = environ.get(variable(old))
        if not given or new not in now:
            continue
        if old not in RENAMED.values():
            sentences.append(f"{variable(old)} is now {now[new].variable} ({now[new].option})")
        elif given in ("name", "address"):
            switch = str(given == "address").lower()
            sentences.append(
                f"{variable(old)}={given} is now {variable(new)}={switch} ({now[new].option}):"
                f" {variable(old)} says what to ping"
            )
    return sentences


def settings_of(cls: type[BaseModel]) -> list[Setting]:
    """The settings of ``cls`` by section, positionals first."""
    settings = [
        Setting(
            field.alias or name,
            field,
            next((m for m in field.metadata if isinstance(m, Flag)), None),
        )
        for name, field in cls.model_fields.items()
    ]

    def rank(setting: Setting) -> int:
        return -1 if setting.flag is None else _SECTIONS.index(setting.flag.section)

    return sorted(settings, key=rank)


def settings_table(cls: type[BaseModel]) -> str:
    """The settings of a verb as a Markdown table: variable, flag, default, meaning."""
    rows = ["| variable | flag | default | meaning |", "|---|---|---|---|"]
    for setting in settings_of(cls):
        flags = ", ".join(f"`{flag}`" for flag in setting.flags) or f"`{setting.placeholder}`"
        default = f"`{setting.default}`" if setting.default else ""
        meaning = (setting.field.description or "").replace("|", "\\|")
        rows.append(f"| `{setting.variable}` | {flags} | {default} | {meaning} |")
    return "\n".join(rows) + "\n"
