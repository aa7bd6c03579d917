"""Reads Dockerfiles, as far as ours go."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.dockerignore import is_ignored

ROOT = Path(__file__).parents[2]
SERVICES = ("server", "client")


@dataclass(frozen=True)
class Instruction:
    """One instruction, its lines joined; `flags` are the words that begin with two hyphens."""

    keyword: str
    flags: dict[str, str]
    text: str

    @property
    def words(self) -> list[str]:
        """Of the exec form its words, else the text at its blanks."""
        words: list[str] = json.loads(self.text) if self.text[:1] == "[" else self.text.split()
        return words


@dataclass
class Stage:
    """What begins with a FROM."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, keyword: str) -> list[Instruction]:
        """Its instructions of one kind."""
        return [each for each in self.instructions if each.keyword == keyword]


@dataclass
class Dockerfile:
    """One file: the ARGs before its first stage, and its stages by name in their order."""

    arguments: dict[str, str]
    stages: dict[str, Stage]

    def chain(self, name: str) -> list[Instruction]:
        """All that makes up a stage's image, from its first stage on."""
        stage = self.stages[name]
        before = self.chain(stage.base) if stage.base in self.stages else []
        return before + stage.instructions

    def last(self, name: str, keyword: str) -> Instruction:
        """The one of its kind that counts in a stage's image."""
        return [each for each in self.chain(name) if each.keyword == keyword][-1]


def path_of(service: str) -> Path:
    """The Dockerfile of a service."""
    return ROOT / f"Dockerfile.{service}"


def read(service: str) -> Dockerfile:
    """The Dockerfile of a service, as it is understood without a `# syntax=` line."""
    lines = path_of(service).read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    file = Dockerfile({}, {})
    stage: Stage | None = None
    for line in re.sub(r"\\\n", "", text).splitlines():
        if not line.strip():
            continue
        keyword, rest = line.split(None, 1)
        flags = {}
        while match := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
            flags[match[1]] = match[2]
            rest = rest[match.end() :]
        instruction = Instruction(keyword, flags, rest.strip())
        if keyword == "FROM":
            base, as_, name = rest.split()
            assert as_ == "AS"
            stage = file.stages[name] = Stage(name, base)
        elif stage is None:
            name, _, value = rest.partition("=")
            file.arguments[name] = value
        else:
            stage.instructions.append(instruction)
    return file


def is_sent(path: str) -> bool:
    """Whether a file of the repository comes to the container engine."""
    return not any(is_ignored(path, path_of(service)) for service in SERVICES)
