"""Reads the figures of services: from the kernel, from within, and from their metrics."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.integration.services import Service
from tests.soak.accounts import Pings, Reading
from tests.support.running import Metrics, wait_until

INSIDE = Path(__file__).parent / "inside"
FOLDER = "SOAK_FOLDER"

_CLIENT = "pingpong_client_"
_SERVER = "pingpong_server_"
_CONNECTION = "pingpong.webtransport.quic.aioquic.HookedConnection"
_SESSION = "pingpong.webtransport.session.Session"


def processes(name: str, service: Service) -> Iterator[tuple[str, int]]:
    """The processes of a service: their names, and their ids."""
    own, *children = service.processes
    yield name, own
    for number, pid in enumerate(children):
        yield f"{name}: {number}", pid


def resident(pid: int) -> int:
    """Bytes of a process that are in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def reading(pid: int, folder: Path) -> Reading:
    """Figures of a process that writes down in `folder` what it counts from within.

    But `rss`: this count changes it.
    """
    file = folder / f"{pid}.json"
    file.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR2)
    wait_until(file.exists, f"process {pid} has counted")
    counted = json.loads(file.read_text())
    types = Counter(counted.pop("types"))
    figures = {
        **counted,
        "objects": types.total(),
        "fds": len(os.listdir(f"/proc/{pid}/fd")),
        "connections": types[_CONNECTION],
        "sessions": types[_SESSION],
    }
    return Reading(figures, types)


def service_readings(
    name: str, service: Service, folder: Path, resident: Mapping[str, float]
) -> dict[str, Reading]:
    """Figures of each process of a service; `resident` is `rss`, read before.

    Which worker has a connection is chance: the first process has those of all.
    """
    found = {process: reading(pid, folder) for process, pid in processes(name, service)}
    sums = {
        figure: sum(one.figures[figure] for one in found.values())
        for figure in ("connections", "sessions")
    }
    return {
        process: Reading(
            {"rss": resident[process], **one.figures}
            | (sums if process == name else dict.fromkeys(sums, 0)),
            one.types,
        )
        for process, one in found.items()
    }


# A probe.


def is_up(scrape: Metrics, targets: int) -> bool:
    """Whether a probe has so many targets, and all of them are up."""
    if scrape.total(f"{_CLIENT}targets") != targets:
        return False
    return scrape.total(f"{_CLIENT}session_up") == targets


def pings(scrape: Metrics) -> dict[tuple[str, ...], Pings]:
    """What became of the pings of each target in each mode, by target and mode."""
    found: dict[tuple[str, ...], Pings] = {}
    names = (f"{_CLIENT}probes_sent_total", f"{_CLIENT}probes_completed_total")
    sent, completed = (scrape.label_sets(name, "target", "mode") for name in names)
    # Targets come and go between two families of a scrape.
    for target, mode in sent & completed:
        of = {"target": target, "mode": mode}
        counts = {
            result: int(scrape.completed(result, **of))
            for result in ("ok", "late", "lost", "malformed", "send_error")
        }
        found[target, mode] = Pings(int(scrape.total(names[0], **of)), **counts)
    return found


def slots_counted(scrape: Metrics) -> int:
    """Pings of all targets that were sent, not sent or skipped."""
    sent = sum(each.sent + each.send_error for each in pings(scrape).values())
    return sent + int(scrape.total(f"{_CLIENT}schedule_skipped_total"))


def connected(scrape: Metrics) -> int:
    """How often a probe has connected."""
    return int(scrape.connects("ok"))


# A server.


def is_left(scrape: Metrics, sessions: int) -> bool:
    """Whether a server has so many sessions, each on a connection of its own, and nothing else."""
    active = [scrape.total(f"{_SERVER}{what}_active") for what in ("sessions", "connections")]
    return active == [sessions, sessions] and not scrape.total(f"{_SERVER}handshakes_active")


def messages(scrape: Metrics) -> Iterator[tuple[str, int, int, dict[str, int]]]:
    """Of each mode, how many messages were received, answered and dropped, by reason."""
    dropped: defaultdict[str, dict[str, int]] = defaultdict(dict)
    name = f"{_SERVER}messages_dropped_total"
    for mode, reason in scrape.label_sets(name, "mode", "reason"):
        dropped[mode][reason] = int(scrape.total(name, mode=mode, reason=reason))
    for mode in sorted(scrape.labels(f"{_SERVER}messages_received_total", "mode")):
        received = int(scrape.total(f"{_SERVER}messages_received_total", mode=mode))
        answered = int(scrape.total(f"{_SERVER}messages_answered_total", mode=mode))
        yield mode, received, answered, dropped[mode]
