"""Limits of this process: cores, memory, and the connections that fit in it."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

PROGRAM = 64 << 20
"""Bytes of a process without a connection.

By measurement it has 75 MB, of which 30 are of files, which the kernel can drop and read again. The
rest of this is room for scrapes and logs.
"""
CONNECTION = 192 << 10
"""Bytes to allow for a connection.

An idle connection takes up to 66 kB, one with a session and pings 74 kB, an unfinished handshake
91 kB.
The other half is for buffers: incomplete messages, and unread answers.
"""
BUFFERED = CONNECTION // 2
"""The part for buffers. It is an average: some connections may use more."""
FEWEST_CONNECTIONS = 64
MOST_CONNECTIONS = 10_000
"""The limit for any amount of memory: the capacity of one event loop."""


def usable_cores(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """The cores that this process may use, by its affinity and its container's quota."""
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = quota_file.read_text().split()  # "max" raises ValueError
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(cores, 1)


class Memory(NamedTuple):
    """Bytes that this process may use, and what limits them: `cgroup` or `machine`."""

    size: int
    limited_by: str


def usable_memory(root: Path = Path("/")) -> Memory:
    """The lowest limit of this process's control groups, or the memory of the machine."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = min(_cgroup_limits(root), default=machine)
    return Memory(limit, "cgroup") if limit < machine else Memory(machine, "machine")


def _cgroup_limits(root: Path) -> list[int]:
    """The limits of the control group of this process and of its visible parents.

    Version 2 has one tree of groups, version 1 one for memory. A container sees its own group as
    the root.
    """
    limits = []
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            tree, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            tree, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        parts = [part for part in path.split("/") if part]
        if ".." in parts:
            parts = []
        for length in range(len(parts) + 1):
            # Without a limit, version 2 has the word "max", and version 1 a huge number.
            with contextlib.suppress(OSError, ValueError):
                limits.append(int(tree.joinpath(*parts[:length], name).read_text()))
    return limits


def connections_that_fit(memory: int, workers: int) -> int:
    """The number of connections that fit in `memory` bytes, of all workers together.

    Several workers are processes besides the server's.
    """
    processes = workers + 1 if workers > 1 else 1
    fit = (memory - processes * PROGRAM) // CONNECTION
    return max(FEWEST_CONNECTIONS, min(MOST_CONNECTIONS, fit))


class AllowedConnections(NamedTuple):
    """The maximum number of connections, and what it depends on."""

    number: int
    fit: int
    """The number that fits in `memory`."""
    memory: Memory
    is_derived: bool
    """Whether it is derived from the memory, not set."""

    @classmethod
    def choose(cls, asked: int | None, memory: Memory, workers: int) -> AllowedConnections:
        """The number of the settings, or the number that fits."""
        fit = connections_that_fit(memory.size, workers)
        return cls(fit if asked is None else asked, fit, memory, asked is None)

    def log(self, logger: FilteringBoundLogger) -> None:
        """Log if memory limits the number, or is too small for it."""
        event: dict[str, int | str] = {"max_connections": self.number}
        reason = {"memory": self.memory.size, "limited_by": self.memory.limited_by}
        if self.is_derived and self.fit < MOST_CONNECTIONS:
            logger.info("connections_limited", **event, **reason)
        elif self.number > self.fit:
            logger.warning("connections_exceed_memory", **event, fit=self.fit, **reason)
