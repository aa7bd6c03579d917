"""Which files skaffold watches for an image, and where in a container it puts those that it syncs."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from tests.skaffold.config import ROOT, Config


def destinations(artifact: Config, path: str) -> list[str]:
    """Where a changed file of the repository goes; nowhere: the image is built again."""
    return [
        str(PurePosixPath(rule["dest"], path.removeprefix(rule.get("strip", ""))))
        for rule in artifact["sync"]["manual"]
        if re.fullmatch(glob(rule["src"]), path)
    ]


def is_watched(artifact: Config, path: str, root: Path = ROOT) -> bool:
    """Whether a change of this file is one of the image, because its Dockerfile copies the file.

    What a RUN instruction mounts is not seen by skaffold, nor here.
    """
    dockerfile = artifact["docker"]["dockerfile"]
    if path == dockerfile:
        return True
    sources = copied(root / dockerfile)
    taken = any(source in (".", path) or path.startswith(f"{source}/") for source in sources)
    return taken and not is_ignored(path, root / dockerfile)


def copied(dockerfile: Path) -> set[str]:
    """What all stages copy out of the build context."""
    text = dockerfile.read_text().replace("\\\n", " ")
    sources: set[str] = set()
    for line in text.splitlines():
        instruction, *words = line.split() or [""]
        if instruction.upper() not in ("COPY", "ADD") or any("--from=" in word for word in words):
            continue
        paths = [word for word in words if not word.startswith("--")][:-1]
        sources.update(os.path.normpath(path) for path in paths)
    return sources


def is_ignored(path: str, dockerfile: Path) -> bool:
    """Whether .dockerignore keeps it out; the last line that matches it, or a folder of it, counts."""
    own = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
    file = own if own.exists() else dockerfile.with_name(".dockerignore")
    ignored = False
    for line in file.read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        expression = glob(os.path.normpath(pattern.removeprefix("!").lstrip("/")))
        parts = path.split("/")
        if any(re.fullmatch(expression, "/".join(parts[: n + 1])) for n in range(len(parts))):
            ignored = not pattern.startswith("!")
    return ignored


def glob(pattern: str) -> str:
    """The regular expression of a pattern in which `**` stands for any number of folders."""
    steps = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+\])", pattern)
    return "".join(
        piece if piece.startswith("[") else steps.get(piece) or re.escape(piece) for piece in pieces
    )
