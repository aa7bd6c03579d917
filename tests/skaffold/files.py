"""Which files skaffold watches for an image, and where in a container it puts those that it syncs."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from tests.skaffold.config import ROOT, Config
from tests.support.dockerignore import glob, is_ignored


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
