"""Runs in every Python process of a soak, also in those that a service starts itself.

At SIGUSR2 a process writes down what can be counted from within only, into a file of the folder
that SOAK_FOLDER names. This folder is on the path of those processes, and Python imports a module of
this name at its start.
"""

from __future__ import annotations

import asyncio
import collections
import ctypes
import gc
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import ClassVar


class _MallInfo(ctypes.Structure):
    """struct mallinfo2 of malloc.h."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


if "SOAK_FOLDER" in os.environ:
    _libc = ctypes.CDLL(None)  # glibc, of 2.33 or later
    _libc.mallinfo2.restype = _MallInfo


def _count(number: int, frame: object) -> None:
    gc.collect()
    # What is free already is no memory that it keeps.
    _libc.malloc_trim(0)
    heap = _libc.mallinfo2()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    types = collections.Counter(
        f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects()
    )
    counted = {
        "kept": pages * os.sysconf("SC_PAGE_SIZE"),
        "malloc": heap.uordblks + heap.hblkhd,
        "blocks": sys.getallocatedblocks(),
        "tasks": len(asyncio.all_tasks(asyncio.get_running_loop())),
        "threads": threading.active_count(),
        "types": types,
    }
    file = Path(os.environ["SOAK_FOLDER"]) / f"{os.getpid()}.json"
    new = file.with_suffix(".new")
    new.write_text(json.dumps(counted), encoding="utf-8")
    new.rename(file)


if "SOAK_FOLDER" in os.environ:
    signal.signal(signal.SIGUSR2, _count)
