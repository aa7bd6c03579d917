"""Measures a process: CPU time, and resident memory."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from pathlib import Path


def cpu_time() -> int:
    """CPU time of this process in nanoseconds, user and system."""
    return time.process_time_ns()


def resident_memory() -> int:
    """Resident memory of this process in bytes, after garbage is freed."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        pass  # Another C library: the value is a little too high.
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
