"""Reads single keys from the terminal, without Enter."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Callable
from typing import Any


class Keyboard:
    """Reports pressed keys between `start` and `stop`; none if stdin is not a terminal.

    Ctrl-C, Ctrl-\\ and Ctrl-Z still send signals.
    """

    def __init__(self, pressed: Callable[[str], None]) -> None:
        self._pressed = pressed
        self._before: list[Any] | None = None
        """The terminal's settings before `start`; None while they are unchanged."""
        self._fd = -1
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if sys.stdin.isatty():
                self._fd = sys.stdin.fileno()

    @property
    def is_available(self) -> bool:
        """Whether stdin is a terminal."""
        return self._fd >= 0

    def start(self) -> None:
        """Read keys without Enter and without echo."""
        if not self.is_available or self._before is not None:
            return
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd, termios.TCSANOW)
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def stop(self) -> None:
        """Restore the terminal's settings."""
        if self._before is None:
            return
        asyncio.get_running_loop().remove_reader(self._fd)
        with contextlib.suppress(termios.error):
            # Discard unread keys: they are not for the shell.
            termios.tcsetattr(self._fd, termios.TCSAFLUSH, self._before)
        self._before = None

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 1024)
        except OSError:
            data = b""
        if not data:
            self.stop()  # the terminal is gone
        for key in data.decode(errors="ignore"):
            self._pressed(key)
