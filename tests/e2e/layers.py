"""Reads an image as `docker save` writes it."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

BYTE_CODE = "cpython-313.pyc"
_HEAD = 16


@dataclass(frozen=True, slots=True)
class File:
    """What a layer says of a file or folder; `head` are its first bytes."""

    mtime: float
    mode: int
    uid: int
    gid: int
    size: int
    is_file: bool
    is_link: bool
    head: bytes


def layers(path: Path) -> list[dict[str, File]]:
    """The layers of the one image in a tar archive, the lowest first: their files by path."""
    with tarfile.open(path) as image:
        manifest = image.extractfile("manifest.json")
        assert manifest is not None
        [found] = json.load(manifest)
        return [_layer(image, name) for name in found["Layers"]]


def _layer(image: tarfile.TarFile, name: str) -> dict[str, File]:
    files = {}
    with tarfile.open(fileobj=image.extractfile(name)) as layer:
        for each in layer:
            content = layer.extractfile(each) if each.isfile() else None
            files[each.name.removeprefix("./").rstrip("/")] = File(
                mtime=each.mtime,
                mode=each.mode,
                uid=each.uid,
                gid=each.gid,
                size=each.size,
                is_file=each.isfile(),
                is_link=each.issym(),
                head=content.read(_HEAD) if content is not None else b"",
            )
    return files
