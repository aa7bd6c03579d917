"""What a process used: processor time, and memory that it does not give back."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from pathlib import Path


def cpu_time() -> int:
    """Nanoseconds of processor time of this process, its own and the kernel's for it."""
    return time.process_time_ns()


def resident_memory() -> int:
    """Bytes of this process that are in memory, without what only waits to be given back."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        pass  # Another C library; the figures are then a little above.
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
