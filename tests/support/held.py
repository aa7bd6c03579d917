"""What an object keeps in memory."""

from __future__ import annotations

import gc
from types import BuiltinFunctionType, FunctionType, ModuleType


def held(root: object) -> list[bytes | bytearray | str]:
    """All texts and bytes that are reachable from an object; not its class, nor its functions."""
    beyond = (type, ModuleType, FunctionType, BuiltinFunctionType)
    found: list[bytes | bytearray | str] = []
    seen = {id(root)}
    waiting = [root]
    while waiting:
        for each in gc.get_referents(waiting.pop()):
            if id(each) in seen or isinstance(each, beyond):
                continue
            seen.add(id(each))
            waiting.append(each)
            if isinstance(each, bytes | bytearray | str):
                found.append(each)
    return found
