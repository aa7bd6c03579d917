from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from pingpong.server.resources import (
    FEWEST_CONNECTIONS,
    MOST_CONNECTIONS,
    AllowedConnections,
    Memory,
    connections_that_fit,
    usable_memory,
)
from pingpong.server.workers.group import share
from pingpong.settings import ServeSettings
from pingpong.telemetry.logs import get_logger
from tests.support.processes import Process

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


V1_UNLIMITED = str(9223372036854771712)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, None, id="no control groups"),
        pytest.param({"proc/self/cgroup": "0::/"}, None, id="v2, the root of a machine"),
        pytest.param(
            {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": str(128 * MIB)},
            128 * MIB,
            id="v2, in a container",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "max"},
            None,
            id="v2, in a container without a limit",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/system.slice/pingpong.service",
                "sys/fs/cgroup/system.slice/pingpong.service/memory.max": "max",
                "sys/fs/cgroup/system.slice/memory.max": str(300 * MIB),
            },
            300 * MIB,
            id="v2, the limit of a group above",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/system.slice/pingpong.service",
                "sys/fs/cgroup/system.slice/pingpong.service/memory.max": str(200 * MIB),
                "sys/fs/cgroup/system.slice/memory.max": str(300 * MIB),
            },
            200 * MIB,
            id="v2, the least of several",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/../../other",
                "sys/fs/cgroup/memory.max": str(100 * MIB),
            },
            100 * MIB,
            id="v2, moved out of what is seen",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/kubepods/pod1/abc\n1:name=systemd:/",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": str(256 * MIB),
            },
            256 * MIB,
            id="v1, in a container",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/a\n0::/",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": str(64 * MIB),
                "sys/fs/cgroup/memory/memory.limit_in_bytes": V1_UNLIMITED,
            },
            64 * MIB,
            id="v1, beside an empty v2",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": V1_UNLIMITED,
            },
            None,
            id="v1, without a limit",
        ),
        pytest.param(
            {"proc/self/cgroup": "nonsense", "sys/fs/cgroup/memory.max": str(MIB)},
            None,
            id="unreadable",
        ),
    ],
)
def test_usable_memory(tmp_path: Path, files: dict[str, str], expected: int | None) -> None:
    found = usable_memory(write(tmp_path, files))
    assert found == (Memory(MACHINE, "machine") if expected is None else (expected, "cgroup"))


def test_usable_memory_is_found_here() -> None:
    found = usable_memory()
    assert 64 * MIB < found.size <= MACHINE


@pytest.mark.parametrize(
    ("mib", "workers", "expected"),
    [
        (0, 1, FEWEST_CONNECTIONS),
        (64, 1, FEWEST_CONNECTIONS),
        (128, 1, 341),
        (256, 1, 1024),
        (512, 1, 2389),
        (1024, 1, 5120),
        (4096, 1, MOST_CONNECTIONS),
        (256, 2, 341),
        (1024, 4, 3754),
        (4096, 64, FEWEST_CONNECTIONS),
    ],
)
def test_connections_that_fit(mib: int, workers: int, expected: int) -> None:
    assert connections_that_fit(mib * MIB, workers) == expected


@pytest.mark.parametrize("count", [2, 3, 7, 64])
def test_all_workers_together_have_what_the_server_may_have(count: int) -> None:
    settings = ServeSettings(max_connections=1000, max_handshakes=100)
    parts = [share(settings, count, index) for index in range(count)]
    assert sum(part.max_connections or 0 for part in parts) == 1000
    assert sum(part.max_handshakes for part in parts) == 100
    for values in zip(
        *((part.max_connections, part.max_handshakes) for part in parts), strict=True
    ):
        assert max(values) - min(values) <= 1


def test_every_worker_may_have_a_connection() -> None:
    parts = [share(ServeSettings(max_connections=2), 3, index) for index in range(3)]
    assert [part.max_connections for part in parts] == [1, 1, 1]


# What the service makes of it.


@pytest.mark.parametrize(
    ("asked", "mib", "number", "event"),
    [
        (None, 256, 1024, {"event": "connections_limited", "log_level": "info"}),
        (None, 4096, MOST_CONNECTIONS, None),
        (1024, 256, 1024, None),
        (1025, 256, 1025, {"event": "connections_exceed_memory", "log_level": "warning"}),
        (20_000, 4096, 20_000, {"event": "connections_exceed_memory", "log_level": "warning"}),
    ],
)
def test_settings_go_first_and_the_log_says_why(
    logged: list[dict[str, Any]],
    asked: int | None,
    mib: int,
    number: int,
    event: dict[str, object] | None,
) -> None:
    memory = Memory(mib * MIB, "cgroup")
    allowed = AllowedConnections.choose(asked, memory, 1)
    assert allowed.number == number
    allowed.log(get_logger("pingpong.server"))
    if event is None:
        assert logged == []
        return
    assert logged[0].items() >= event.items()
    assert logged[0]["max_connections"] == number
    assert (logged[0]["memory"], logged[0]["limited_by"]) == (mib * MIB, "cgroup")


@pytest.mark.process
@pytest.mark.parametrize("words", [(), ("--max-connections=77",), ("--workers=2",)])
def test_number_is_in_the_log_and_in_the_settings_that_are_shown(words: tuple[str, ...]) -> None:
    fit = connections_that_fit(usable_memory().size, 2 if "--workers=2" in words else 1)
    bound = ("--bind-host=127.0.0.1", "--bind-port=0", "--admin-host=127.0.0.1", "--admin-port=0")
    with Process("serve", *bound, "--log-format=json", *words) as server:
        event = server.read_event("listening")
        url = f"http://127.0.0.1:{event['admin_port']}/config"
        with urllib.request.urlopen(url) as answer:
            shown = json.load(answer)
    expected = 77 if "--max-connections=77" in words else fit
    assert event["max_connections"] == shown["max_connections"] == expected
