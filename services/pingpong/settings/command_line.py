"""Settings at the command line: flags and help texts, made from the fields of their classes."""

from __future__ import annotations

import argparse
import difflib
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from .values import looks_secret, quoted

PREFIX = "PINGPONG_"

_SECTIONS = (
    *("Targets", "Listening", "TLS", "Access", "Pings", "Connection"),
    *("Limits", "Health", "Output", "Logs"),
)
"""In the order of the help text."""


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
class Setting:
    """A field, as help texts, tables and messages present it."""

    name: str
    field: FieldInfo
    flag: Flag | None

    @property
    def variable(self) -> str:
        """The environment variable's name."""
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
        """What stands for its value in help texts."""
        if self.flag is not None:
            return self.flag.value
        # Of several: one or more of the singular.
        return f"{self.name.removesuffix('s')}...".upper() if self.is_tuple else self.name.upper()

    @property
    def is_tuple(self) -> bool:
        """Whether it takes several values."""
        return get_origin(self._unwrapped()[0][0]) is tuple

    @property
    def default(self) -> str:
        """The default as a person would write it; empty where there is none."""
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
        """Whether its value must not be shown."""
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


class Parser(argparse.ArgumentParser):
    """Argparse with mistakes as :class:`SettingsError` and a help text made from the fields."""

    def __init__(
        self, verb: str, about: str, notes: Sequence[str], settings: Sequence[Setting]
    ) -> None:
        super().__init__(prog=f"pingpong {verb}", allow_abbrev=False)
        self._about = about
        self._notes = notes
        self._settings = settings

    def error(self, message: str) -> NoReturn:
        """Raises `SettingsError` with the message in our words."""
        message = message.removeprefix("argument ")
        message = message.replace("expected one argument", "a value is missing")
        message = message.replace("ignored explicit argument", "takes no value, got")
        raise SettingsError([message])

    def parse_settings(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse the words after the verb. Raises `SettingsError`."""
        # By hand: argparse takes arguments between the options only where they are all together.
        end = argv.index("--") if "--" in argv else len(argv)
        namespace, rest = self.parse_known_args(argv[:end])
        known = [flag for setting in self._settings for flag in setting.flags]
        options = [word.split("=")[0] for word in rest if word.startswith("-")]
        if options:
            raise SettingsError(
                [f"{quoted(word)}: no such option{nearest(word, known)}" for word in options]
            )
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

    def format_usage(self) -> str:
        """The first line of the help text."""
        positionals = [f" {s.placeholder}" for s in self._settings if not s.flags]
        return f"usage: {self.prog} [options]{''.join(positionals)}\n"

    def format_help(self) -> str:
        """The help text, as wide as the terminal, at most 100 columns."""
        width = min(shutil.get_terminal_size().columns, 100)
        has_letters = any(len(flag) == 2 for setting in self._settings for flag in setting.flags)
        sections: dict[str, list[tuple[str, str]]] = {}
        for setting in self._settings:
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
        # The variable may give it; the class says whether it is missing.
        options["nargs"] = "*" if options.get("nargs") == "+" else "?"
    return parser.add_argument(*sorted(names, key=len), **options)


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint at the known name that is most like `name`; empty where none is."""
    # The prefix that all variables share would make any two of them look alike.
    bare = {option.removeprefix(PREFIX).upper(): option for option in known}
    near = difflib.get_close_matches(name.removeprefix(PREFIX).upper(), bare, n=1)
    return f"; did you mean {bare[near[0]]}?" if near else ""


def settings_of(cls: type[BaseModel]) -> list[Setting]:
    """The settings of ``cls`` by section, positionals first."""
    settings = [
        Setting(
            str(field.validation_alias or name),
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
