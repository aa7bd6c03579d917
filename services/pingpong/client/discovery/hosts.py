"""What this system knows of names besides DNS: its hosts file, and what else it is set up to ask."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import threading
from pathlib import Path

from .addresses import normalize

LOOPBACK = ("127.0.0.1", "::1")

_MAX_THREADS = 4
"""LookupState by the system at one time; it may take half a minute over each and can't be stopped."""


def is_localhost(name: str) -> bool:
    """Whether a name is this host's own, whatever DNS may say of it (RFC 6761, section 6.3)."""
    name = name.removesuffix(".").lower()
    return name == "localhost" or name.endswith(".localhost")


class HostsFile:
    """The addresses in a hosts file, read anew when it changes."""

    def __init__(self, path: Path = Path("/etc/hosts")) -> None:
        self._path = path
        self._status: tuple[int, ...] | None = None
        # Of the names that were asked for: files that block advertisements name a million.
        self._known: dict[str, tuple[str, ...]] = {}

    def addresses(self, name: str) -> tuple[str, ...]:
        """The addresses of a name, in the file's order; none where it isn't there."""
        name = name.lower()
        try:
            found = os.stat(self._path)
            status = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
            if status != self._status:
                self._known.clear()
                self._status = status
            if name not in self._known:
                self._known[name] = self._find(name)
        except OSError:
            return ()
        return self._known[name]

    def _find(self, name: str) -> tuple[str, ...]:
        found = []
        with self._path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                words = line.partition("#")[0].lower().split()
                if name in words[1:]:
                    found.append(words[0])
        return normalize(found)


class SystemLookups:
    """Asks the system's own resolver, where it may know what DNS doesn't: mDNS, say, on a laptop.

    In a container it is set up for the hosts file and DNS only, and would ask DNS once more.
    """

    def __init__(self, nsswitch: Path = Path("/etc/nsswitch.conf")) -> None:
        self._nsswitch = nsswitch
        self._running: set[str] = set()

    @property
    def knows_more(self) -> bool:
        """Whether it is set up to ask anything besides the hosts file and DNS."""
        try:
            text = self._nsswitch.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        match = re.search(r"^\s*hosts:([^#\n]*)", text, re.MULTILINE)
        services = re.sub(r"\[[^]]*\]", " ", match[1]).split() if match else []
        return not set(services) <= {"files", "dns"}

    async def addresses(self, name: str, timeout: float) -> tuple[str, ...]:
        """Look a name up; no address where there is none, or it took longer than `timeout`."""
        if name in self._running or len(self._running) >= _MAX_THREADS:
            return ()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[str, ...]] = loop.create_future()

        def settle(found: tuple[str, ...]) -> None:
            self._running.discard(name)
            if not answer.done():
                answer.set_result(found)

        def look_up() -> None:
            found: tuple[str, ...] = ()
            with contextlib.suppress(OSError, UnicodeError):
                entries = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
                found = normalize(str(entry[4][0]) for entry in entries)
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, found)

        self._running.add(name)
        # Not the loop's own threads: at the end of the program these are waited for.
        threading.Thread(target=look_up, name="getaddrinfo", daemon=True).start()
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            return ()
