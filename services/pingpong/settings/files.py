"""Files that change while a service runs: certificates, keys, authorities, tokens.

Kubernetes changes a mounted Secret by pointing the symbolic link ``..data`` to another directory,
and people overwrite files in place. Both are found by polling; a file that cannot be read once is
not reported.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from ..telemetry.failure_log import FailureLogThrottle

MAX_SIZE = 1_048_576
"""Bytes; a larger file is an error."""

T = TypeVar("T")

_RACY_NS = 2_000_000_000
"""Nanoseconds after a change in which another one may leave the file's time as it is."""
_READINGS = 8
"""Maximum attempts to read the same content twice in a row."""


@dataclass(slots=True)
class _Known:
    """What was read of a file; the digest, since the content may be a secret."""

    path: Path
    digest: bytes = b""
    status: tuple[int, ...] | None = None
    failures: int = 0

    def changed(self) -> bool:
        try:
            if self.status is not None and self.status == _status(os.stat(self.path)):
                return False
            data, status = _read(self.path)
        except OSError:
            self.failures += 1
            self.status = None
            return self.failures > 1
        self.failures = 0
        if _digest(data) != self.digest:
            return True
        self.status = status
        return False


class WatchedFiles:
    """Files that belong together: a certificate and its key."""

    def __init__(self, *paths: Path) -> None:
        self._known = tuple(_Known(path) for path in paths)

    def changed(self) -> bool:
        """Whether `read` would return something new, or raise; cheap enough for every second.

        Also true before the first `read`. A file that cannot be read is reported from the second
        call in a row on: it may be about to be replaced.
        """
        return any(known.changed() for known in self._known)

    def read(self) -> tuple[bytes, ...]:
        """Read them all as they were at one moment; `changed` then compares with this.

        Raises:
            OSError: one cannot be read, is not a regular file, is larger than `MAX_SIZE`, or they
                change faster than they are read.
        """
        before = [_read(known.path) for known in self._known]
        for _ in range(_READINGS):
            # If two readings in a row are the same, the files are complete and belong together.
            now = [_read(known.path) for known in self._known]
            if [data for data, _ in now] == [data for data, _ in before]:
                for known, (data, status) in zip(self._known, now, strict=True):
                    known.digest = _digest(data)
                    known.status = status
                    known.failures = 0
                return tuple(data for data, _ in now)
            before = now
        raise OSError(errno.EAGAIN, "changes faster than it is read", str(self._known[0].path))


class WatchedFile:
    """A file, and whether its content differs from what was last read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = WatchedFiles(path)

    def changed(self) -> bool:
        """Whether `read` would return something new, or raise; see `WatchedFiles.changed`."""
        return self._files.changed()

    def read(self) -> bytes:
        """Read the file; `changed` then compares with this.

        Raises:
            OSError: it cannot be read, is not a regular file, or is larger than `MAX_SIZE`.
        """
        return self._files.read()[0]


class Reloaded(Generic[T]):
    """The last usable value of files that may change.

    `failed` is whether they now hold something that cannot be used. It becomes true at the second
    failure in a row: at the first, only one of certificate and key may have been replaced.
    """

    def __init__(
        self,
        changed: Callable[[], bool],
        load: Callable[[], T],
        unusable: type[Exception],
        report: Callable[[str | None], None],
    ) -> None:
        """`changed` is the method of the files, `load` reads and parses them.

        Raises what `load` raises: `unusable`, whose text says what to do. Later, `report` is called
        with that text when it changes, and repeated at most once a minute; and with None when the
        files can be used again.
        """
        self.failed = False
        self._changed = changed
        self._load = load
        self._unusable = unusable
        self._report = report
        self._failures = 0
        self._throttle = FailureLogThrottle()
        self.value = load()

    def check(self, now: float) -> bool:
        """Read the files again if they changed. Returns whether there is another value now.

        Cheap enough for every second. `now` is in seconds of a monotonic clock.
        """
        if not self._failures and not self._changed():
            return False
        try:
            value = self._load()
        except self._unusable as error:
            self._failures += 1
            if self._failures > 1:
                self.failed = True
                if self._throttle.failed(None, str(error), now) is not None:
                    self._report(str(error))
            return False
        self._failures = 0
        self.failed = False
        if self._throttle.succeeded(None, now) is not None:
            self._report(None)
        is_new = value != self.value
        self.value = value
        return is_new


def _read(path: Path) -> tuple[bytes, tuple[int, ...] | None]:
    """A file's content, and its status if that shows every later change."""
    # Without O_NONBLOCK, opening a pipe waits for its other end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        if status.st_size > MAX_SIZE:
            raise OSError(errno.EFBIG, f"is larger than {MAX_SIZE} bytes", str(path))
        data = b""
        while chunk := os.read(descriptor, MAX_SIZE + 1 - len(data)):
            data += chunk
    finally:
        os.close(descriptor)
    if len(data) > MAX_SIZE:
        raise OSError(errno.EFBIG, f"is larger than {MAX_SIZE} bytes", str(path))
    is_settled = time.time_ns() - status.st_ctime_ns > _RACY_NS
    return data, _status(status) if is_settled else None


def _status(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
    )  # fmt: skip


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()
