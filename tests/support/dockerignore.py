"""Reads .dockerignore: which files of a build context the container engine gets."""

from __future__ import annotations

import os
import re
from pathlib import Path


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
