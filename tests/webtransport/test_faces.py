"""What users import: complete, documented, and without names that lead nowhere."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, TypeVar, get_origin

import pytest

import pingpong.webtransport
import pingpong.webtransport.asyncio
import pingpong.webtransport.certificates

FACES = (
    pingpong.webtransport,
    pingpong.webtransport.asyncio,
    pingpong.webtransport.certificates,
)
EXPORTED = {id(getattr(face, name)) for face in FACES for name in face.__all__}
INNER = ("FlowControl", "RequestHead", "SessionOwner", "UdpEndpoint")
"""What layers hand to one another: no user makes it or is given it."""
ALIASES = ("Address", "Decision", "Headers", "PrivateKey")
ENTRIES = [(face, name) for face in FACES for name in face.__all__]


def members(name: str, found: Any) -> Iterator[tuple[str, Any]]:
    """An exported name, and what is public of it where it is a class of ours."""
    yield name, found
    if inspect.isclass(found):
        for base in inspect.getmro(found):
            if base.__module__.startswith("pingpong."):
                for key, member in vars(base).items():
                    if not key.startswith("_") and (
                        inspect.isroutine(member) or isinstance(member, property)
                    ):
                        yield f"{name}.{key}", member


def callable_of(member: Any) -> Any:
    if isinstance(member, property):
        return member.fget
    return inspect.unwrap(getattr(member, "__func__", member))


def annotations_of(found: Any) -> Iterator[tuple[str, ModuleType]]:
    """Each annotation, as text, and the module that it stands in."""
    if inspect.isclass(found):
        for base in inspect.getmro(found):
            if base.__module__.startswith("pingpong."):
                for key, text in vars(base).get("__annotations__", {}).items():
                    if not key.startswith("_"):
                        yield str(text), sys.modules[base.__module__]
        found = vars(found).get("__init__")
    found = callable_of(found)
    if inspect.isfunction(found):
        for key, text in found.__annotations__.items():
            if not key.startswith("_"):
                yield str(text), sys.modules[found.__module__]


@pytest.mark.parametrize(("face", "name"), ENTRIES)
def test_what_is_public_is_documented(face: ModuleType, name: str) -> None:
    for path, found in members(name, getattr(face, name)):
        is_alias = get_origin(found) is not None  # which has no docstring at run time
        if (callable(found) and not is_alias) or isinstance(found, property):
            assert inspect.getdoc(callable_of(found)), path


@pytest.mark.parametrize(("face", "name"), ENTRIES)
def test_what_signatures_name_is_exported(face: ModuleType, name: str) -> None:
    """Classes and aliases of ours that a user may have to write, or read about."""
    missing = []
    for path, found in members(name, getattr(face, name)):
        for text, module in annotations_of(found):
            for word in re.findall(r"(?<![\w.'\"])[A-Z]\w*", text):
                named = vars(module).get(word)
                is_ours = getattr(named, "__module__", "").startswith("pingpong.") or (
                    named is not None and not inspect.isclass(named) and word in ALIASES
                )
                if isinstance(named, TypeVar) or word in INNER:
                    continue
                if is_ours and id(named) not in EXPORTED:
                    missing.append(f"{path}: {word}")
    assert not missing
