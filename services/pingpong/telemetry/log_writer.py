"""Writes log lines without blocking.

The reader of a log may stall (an unread pipe, a terminal after Ctrl-S, a slow disk), and a write
would block the event loop. So a thread writes lines from a bounded queue, and lines that do not
fit are dropped and counted.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TextIO

MAX_QUEUED = 1_048_576
"""Maximum characters in the queue."""
MAX_LINE = 65_536
"""Maximum characters of a line; longer lines are truncated."""


class LogWriter:
    """Writes lines to a stream, in a thread if the stream has a file descriptor.

    `dropped` is the number of lines that were dropped or could not be written; `queued` is the
    number of characters in the queue.
    """

    def __init__(self, stream: TextIO, dropped_line: Callable[[int], str]) -> None:
        """`dropped_line` formats the line that reports dropped lines."""
        self.dropped = 0
        self.queued = 0
        self._stream = stream
        self._descriptor = _descriptor(stream)
        self._encoding = stream.encoding or "utf-8"
        self._dropped_line = dropped_line
        # Reentrant: a finalizer or a signal handler may log while a line is queued.
        self._changed = threading.Condition(threading.RLock())
        self._lines: deque[str] = deque()
        self._unreported = 0
        self._is_writing = False
        self._is_closing = False
        self._is_cut = False
        self._thread: threading.Thread | None = None

    def write(self, line: str) -> None:
        """Queue a line (without a line end), or drop it. Never blocks or raises."""
        if len(line) > MAX_LINE:
            line = f"{line[:MAX_LINE]}…"
        if self._descriptor is None:
            self._write_now(line)
            return
        with self._changed:
            if self.queued + len(line) > MAX_QUEUED:
                self.dropped += 1
                self._unreported += 1
                return
            self._lines.append(line)
            self.queued += len(line)
            if self._thread is None:
                self._is_closing = False
                self._thread = threading.Thread(
                    target=self._run, args=(self._descriptor,), name="log", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until all lines are written, at most `timeout` seconds. Returns whether they
        are."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines and not self._is_writing, timeout)

    def close(self, timeout: float) -> None:
        """Flush, and end the thread. A later line starts another thread."""
        self.flush(timeout)
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()

    def _write_now(self, line: str) -> None:
        try:
            self._stream.write(f"{line}\n")
            self._stream.flush()
        except (OSError, ValueError):
            self.dropped += 1

    def _run(self, descriptor: int) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._is_closing)
                if not self._lines:
                    self._thread = None
                    return
                lines = list(self._lines)
                self._lines.clear()
                self.queued = 0
                reported, self._unreported = self._unreported, 0
                if reported:
                    lines.append(self._dropped_line(reported))
                self._is_writing = True
            unwritten = self._send(descriptor, lines)
            with self._changed:
                if unwritten:
                    # The line that reports dropped lines is the last, so it was not written
                    # either.
                    lost = unwritten - (1 if reported else 0)
                    self.dropped += lost
                    self._unreported += reported + lost
                self._is_writing = False
                self._changed.notify_all()

    def _send(self, descriptor: int, lines: Sequence[str]) -> int:
        """Write the lines. Returns how many failed."""
        for index, line in enumerate(lines):
            data = f"{line}\n".encode(self._encoding, "backslashreplace")
            if self._is_cut:
                data = b"\n" + data
            rest = memoryview(data)
            try:
                # One line per call: up to PIPE_BUF bytes it is atomic, also if several processes
                # write to the pipe.
                while rest:
                    try:
                        rest = rest[os.write(descriptor, rest) :]
                    except BlockingIOError:
                        # Another process that shares the stream made it non-blocking.
                        poll = select.poll()
                        poll.register(descriptor, select.POLLOUT)
                        poll.poll()
            except OSError:
                self._is_cut = self._is_cut or len(rest) < len(data)
                return len(lines) - index
            self._is_cut = False
        return 0


def _descriptor(stream: TextIO) -> int | None:
    try:
        stream.flush()  # keeps the order with printed text
        return stream.fileno()
    except (OSError, ValueError):
        return None
