"""Network namespaces of the tests: made, entered, and removed whatever happens."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from .forwarder import enter

PREFIX = "pingpong-test"
FOLDER = Path("/run/netns")
RTF_LOCAL = 0x8000_0000
ETC = Path("/etc/netns")
"""Where `ip netns exec` finds what a namespace has in /etc (ip-netns(8))."""
PATIENCE = 20.0
"""Seconds for one `ip`, on a machine that is shared."""

_NAME = re.compile(rf"{PREFIX}-(\d+)-(\d+)-\d+-\w+")
_serial = itertools.count(1)


@functools.cache
def unavailable() -> str | None:
    """Why no test network can be had here, for people; None where one can."""
    for command, package in (("ip", "iproute2"), ("ping", "iputils-ping")):
        if shutil.which(command) is None:
            return f"no {command} on the PATH (Debian: {package})"
    if os.geteuid() != 0:
        return "namespaces are made by root only"
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return f"/dev/net/tun: {error.strerror}"
    try:
        Namespace("trial").remove()
    except subprocess.CalledProcessError as error:
        return f"ip netns add: {error.stderr.strip()}"
    except OSError as error:
        return f"cannot enter a namespace: {error.strerror}"
    return None


class Namespace:
    """A network namespace with nothing in it but a loopback device that is up.

    Its name has the id and start time of this process, so that what a run left behind that was
    killed can be told from what another run needs. Raises `subprocess.CalledProcessError` or
    OSError where it cannot be had.
    """

    def __init__(self, label: str) -> None:
        self.name = f"{PREFIX}-{os.getpid()}-{_start_time(os.getpid())}-{next(_serial)}-{label}"
        _ip("netns", "add", self.name)
        try:
            self.ip("link", "set", "lo", "up")
            with self.entered():
                pass
        except BaseException:
            self.remove()
            raise

    @property
    def path(self) -> Path:
        """The file that stands for it."""
        return FOLDER / self.name

    def ip(self, *words: str) -> str:
        """Run `ip` with these words inside; what it says."""
        return _ip("-n", self.name, *words)

    def command(self, *words: str) -> list[str]:
        """The words that run a command inside. The process has the command's own id."""
        return ["ip", "netns", "exec", self.name, *words]

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Have this thread inside. Sockets that it makes meanwhile stay inside."""
        outside = os.open(
            f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net", os.O_RDONLY
        )
        try:
            enter(str(self.path))
            try:
                yield
            finally:
                enter(outside)
        finally:
            os.close(outside)

    def udp_socket(self, address: str, port: int = 0) -> socket.socket:
        """A UDP socket inside, bound to this address."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.entered():
            sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.bind((address, port))
        except BaseException:
            sock.close()
            raise
        return sock

    def tcp_connection(self, address: str, port: int, timeout: float) -> socket.socket:
        """A TCP connection from inside."""
        with self.entered():
            return socket.create_connection((address, port), timeout)

    def sysctl(self, name: str, value: int) -> None:
        """Set a setting of this namespace's network, where that is permitted."""
        with self.entered(), contextlib.suppress(OSError):
            Path("/proc/sys/net", *name.split("/")).write_text(str(value))

    def receives(self, address: str) -> bool:
        """Whether packets to an IPv6 address stay inside: there is a local route to it."""
        wanted = ipaddress.IPv6Address(address).packed.hex()
        with self.entered():
            routes = Path("/proc/thread-self/net/ipv6_route").read_text().splitlines()
        fields = [route.split() for route in routes]
        return any(each[0] == wanted and int(each[8], 16) & RTF_LOCAL for each in fields)

    def write_etc(self, name: str, text: str) -> None:
        """Give the processes that are started inside a file of their own in /etc."""
        folder = ETC / self.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    def remove(self) -> None:
        """Remove it, and end what still runs inside."""
        _remove(self.name)

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *raised: object) -> None:
        self.remove()


def sweep() -> list[str]:
    """Remove what runs left behind that are over; their names."""
    left = []
    for name in os.listdir(FOLDER) if FOLDER.is_dir() else []:
        found = _NAME.fullmatch(name)
        if found and _start_time(int(found[1])) != int(found[2]):
            with contextlib.suppress(subprocess.CalledProcessError):  # another run was quicker
                _remove(name)
                left.append(name)
    return left


def _remove(name: str) -> None:
    for pid in _ip("netns", "pids", name).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    _ip("netns", "delete", name)
    shutil.rmtree(ETC / name, ignore_errors=True)


def _ip(*words: str) -> str:
    done = subprocess.run(
        ["ip", *words],
        check=True,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE,
    )
    return done.stdout


def _start_time(pid: int) -> int | None:
    """When a process was started, in ticks since the machine was; None where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])
