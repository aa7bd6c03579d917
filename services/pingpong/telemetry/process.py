"""What runs here: versions, and the metrics that a service has of its own process."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from .. import __version__
from .health import LAG_BUCKETS
from .metrics import Family, Spec

CPU = Spec(
    "process_cpu_seconds_total", "counter", "CPU time used, user's and system's, in seconds."
)
RESIDENT = Spec("process_resident_memory_bytes", "gauge", "Resident memory.")
VIRTUAL = Spec("process_virtual_memory_bytes", "gauge", "Virtual memory.")
START = Spec("process_start_time_seconds", "gauge", "Start, in seconds since 1970.", merge="min")
OPEN_FDS = Spec("process_open_fds", "gauge", "Open file descriptors.")
MAX_FDS = Spec("process_max_fds", "gauge", "File descriptors that may be open.", merge="min")

PROCESS_SPECS = (CPU, RESIDENT, VIRTUAL, START, OPEN_FDS, MAX_FDS)
"""The metrics of any process, by the names that every Prometheus client has them under.

Of several workers, but for start and limit, they are the sum.
"""


class ServiceSpecs(NamedTuple):
    """The metrics of a service itself."""

    event_loop_lag: Spec
    log_lines_dropped: Spec
    build_info: Spec


def service_specs(prefix: str) -> ServiceSpecs:
    """Specify them under the names of one service, which begin with `prefix`."""
    return ServiceSpecs(
        Spec(
            f"{prefix}event_loop_lag_seconds",
            "histogram",
            "How late the event loop came round to what was due.",
            buckets=LAG_BUCKETS,
        ),
        Spec(f"{prefix}log_lines_dropped_total", "counter", "Log lines that could not be written."),
        Spec(
            f"{prefix}build_info",
            "info",
            "What runs here.",
            {"version": None, "python": None, "aioquic": None},
        ),
    )


def versions() -> dict[str, str]:
    """The versions of pingpong, Python and aioquic, by these names; for `build_info` as well."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "aioquic": version("aioquic"),
    }


def process_source(proc: Path = Path("/proc")) -> Callable[[], Iterator[Family]]:
    """Make the source of the metrics of this process; where there is no `proc`, it gives none.

    prometheus_client has the same, and takes 1.5 MB and 20 ms for it.
    """
    ticks = os.sysconf("SC_CLK_TCK")
    page = os.sysconf("SC_PAGE_SIZE")
    boot = _boot_time(proc)

    def families() -> Iterator[Family]:
        try:
            stat = (proc / "self/stat").read_text(errors="replace")
            open_fds = len(os.listdir(proc / "self/fd"))
        except OSError:
            return
        # proc_pid_stat(5), from the third field on: the second, a name, may have blanks.
        fields = stat.rpartition(")")[2].split()
        user, system, started, virtual, resident = (int(fields[i]) for i in (11, 12, 19, 20, 21))
        yield CPU.family([((), (user + system) / ticks)])
        yield RESIDENT.family([((), resident * page)])
        yield VIRTUAL.family([((), virtual)])
        if boot is not None:
            yield START.family([((), boot + started / ticks)])
        yield OPEN_FDS.family([((), open_fds)])
        yield MAX_FDS.family([((), resource.getrlimit(resource.RLIMIT_NOFILE)[0])])

    return families


def _boot_time(proc: Path) -> int | None:
    try:
        lines = (proc / "stat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("btime ")), None)
