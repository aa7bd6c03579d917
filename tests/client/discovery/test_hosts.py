from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from pingpong.client.discovery.hosts import HostsFile, SystemLookups, is_localhost


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST.", "a.localhost", "a.b.localhost."])
def test_names_of_this_host(name: str) -> None:
    assert is_localhost(name)


@pytest.mark.parametrize("name", ["localhost.test", "notlocalhost", ""])
def test_names_of_other_hosts(name: str) -> None:
    assert not is_localhost(name)


def write(path: Path, text: str, time: int) -> None:
    path.write_text(text)
    os.utime(path, (time, time))


def test_a_name_in_a_hosts_file(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text(
        "# 10.0.0.9 a.test\n10.0.0.1\tA.test alias # b.test\nnonsense a.test\n\nfd00::1 a.test\n"
        "10.0.0.1 a.test\n"
    )
    file = HostsFile(path)
    assert file.addresses("a.TEST") == ("10.0.0.1", "fd00::1")
    assert file.addresses("alias") == ("10.0.0.1",)
    assert file.addresses("b.test") == ()
    assert file.addresses("10.0.0.1") == ()


def test_a_hosts_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    file = HostsFile(path)
    assert file.addresses("a.test") == ()
    write(path, "10.0.0.1 a.test\n", 1)
    assert file.addresses("a.test") == ("10.0.0.1",)
    write(path, "10.0.0.2 a.test\n", 2)
    assert file.addresses("a.test") == ("10.0.0.2",)
    path.unlink()
    assert file.addresses("a.test") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("passwd: files\nhosts: files dns\n", False),
        ("hosts: dns [!UNAVAIL=return] files\n", False),
        ("passwd: files sss\n", False),
        ("hosts: files mdns4_minimal [NOTFOUND=return] dns\n", True),
        ("hosts:\tfiles resolve # dns\n", True),
        ("hosts: files dns # mdns\n", False),
    ],
)
def test_whether_the_system_asks_anyone_else(text: str, expected: bool, tmp_path: Path) -> None:
    path = tmp_path / "nsswitch.conf"
    path.write_text(text)
    assert SystemLookups(path).knows_more is expected


def test_without_its_file_the_system_has_no_other_source(tmp_path: Path) -> None:
    assert not SystemLookups(tmp_path / "none").knows_more


class Getaddrinfo:
    """The system's lookup, which waits until it may answer."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.names: list[str] = []

    def __call__(self, name: str, port: None, **options: Any) -> list[Any]:
        self.names.append(name)
        assert self.may_answer.wait(30)
        if name == "unknown":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [
            (socket.AF_INET6, socket.SOCK_DGRAM, 0, "", ("fe80::1%eth0", 0, 0, 2)),
            (socket.AF_INET, socket.SOCK_DGRAM, 0, "", ("10.0.0.1", 0)),
        ]


@pytest.fixture
def getaddrinfo(monkeypatch: pytest.MonkeyPatch) -> Getaddrinfo:
    made = Getaddrinfo()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    return made


async def test_the_system_knows_a_name(getaddrinfo: Getaddrinfo) -> None:
    getaddrinfo.may_answer.set()
    assert await SystemLookups().addresses("a.local", 30) == ("fe80::1%eth0", "10.0.0.1")


async def test_the_system_does_not_know_a_name(getaddrinfo: Getaddrinfo) -> None:
    getaddrinfo.may_answer.set()
    assert await SystemLookups().addresses("unknown", 30) == ()


async def test_the_system_is_not_waited_for_without_end_nor_asked_twice(
    getaddrinfo: Getaddrinfo,
) -> None:
    system = SystemLookups()
    assert await system.addresses("a.local", 0.01) == ()
    assert await system.addresses("a.local", 30) == ()  # at once: the first one still runs
    assert getaddrinfo.names == ["a.local"]
    getaddrinfo.may_answer.set()
    while not (found := await system.addresses("a.local", 30)):
        await asyncio.sleep(0)
    assert found == ("fe80::1%eth0", "10.0.0.1")


async def test_lookups_by_the_system_are_few_at_a_time(getaddrinfo: Getaddrinfo) -> None:
    system = SystemLookups()
    lookups = [asyncio.create_task(system.addresses(f"{n}.local", 30)) for n in range(10)]
    await asyncio.wait(lookups[4:])
    assert [task.result() for task in lookups[4:]] == [()] * 6
    getaddrinfo.may_answer.set()
    assert all(await asyncio.gather(*lookups[:4]))
