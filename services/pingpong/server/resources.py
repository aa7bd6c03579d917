"""What this process may use, cores and memory, and how many connections fit in that memory."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

PROGRAM = 64 << 20
"""Bytes of a process without a connection: 62 MB by measurement."""
CONNECTION = 192 << 10
"""Bytes to allow for a connection.

One that is silent takes 66 kB, with a session and pings on it 74 kB, one whose handshake is not
complete 91 kB. The other half is for what clients may have the server keep: parts of messages, and
answers that they do not take.
"""
BUFFERED = CONNECTION // 2
"""Of these, what is for that. It is a budget for all connections, of which some take more."""
FEWEST_CONNECTIONS = 64
MOST_CONNECTIONS = 10_000
"""However much memory there is: one event loop serves no more of them well."""


def usable_cores(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """The cores that this process may keep busy: those it may run on, or its container's share."""
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = quota_file.read_text().split()  # "max" is no number
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(cores, 1)


class Memory(NamedTuple):
    """Bytes that this process may use, and whose limit that is: `cgroup` or `machine`."""

    size: int
    limited_by: str


def usable_memory(root: Path = Path("/")) -> Memory:
    """The least of the limits of this process's control groups, or else what the machine has."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = min(_cgroup_limits(root), default=machine)
    return Memory(limit, "cgroup") if limit < machine else Memory(machine, "machine")


def _cgroup_limits(root: Path) -> list[int]:
    """The limits of the group of this process and of those above it, as far as they can be seen.

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
            # One that is not limited has the word "max" in version 2, and in 1 a number that no
            # machine has.
            with contextlib.suppress(OSError, ValueError):
                limits.append(int(tree.joinpath(*parts[:length], name).read_text()))
    return limits


def connections_that_fit(memory: int, workers: int) -> int:
    """How many connections fit in `memory` bytes, of all workers together.

    Several workers are processes beside the one that started them.
    """
    processes = workers + 1 if workers > 1 else 1
    fit = (memory - processes * PROGRAM) // CONNECTION
    return max(FEWEST_CONNECTIONS, min(MOST_CONNECTIONS, fit))


class AllowedConnections(NamedTuple):
    """How many connections the server takes, and why."""

    number: int
    fit: int
    """How many fit in `memory`."""
    memory: Memory
    is_derived: bool
    """Whether the settings leave it to the memory."""

    @classmethod
    def choose(cls, asked: int | None, memory: Memory, workers: int) -> AllowedConnections:
        """As many as the settings ask for, or else as fit."""
        fit = connections_that_fit(memory.size, workers)
        return cls(fit if asked is None else asked, fit, memory, asked is None)

    def log(self, logger: FilteringBoundLogger) -> None:
        """Log that memory limits them, or that it may not suffice for them."""
        event: dict[str, int | str] = {"max_connections": self.number}
        reason = {"memory": self.memory.size, "limited_by": self.memory.limited_by}
        if self.is_derived and self.fit < MOST_CONNECTIONS:
            logger.info("connections_limited", **event, **reason)
        elif self.number > self.fit:
            logger.warning("connections_exceed_memory", **event, fit=self.fit, **reason)
