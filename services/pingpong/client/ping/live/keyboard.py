"""Single keys from the terminal, without Enter."""

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
    """Reports each key that is pressed, between `start` and `stop`; of none where stdin is no
    terminal.

    Ctrl-C, Ctrl-\\ and Ctrl-Z are signals still.
    """

    def __init__(self, pressed: Callable[[str], None]) -> None:
        self._pressed = pressed
        self._before: list[Any] | None = None
        """How the terminal was; None while it is so."""
        self._fd = -1
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if sys.stdin.isatty():
                self._fd = sys.stdin.fileno()

    @property
    def is_available(self) -> bool:
        """Whether there is a keyboard."""
        return self._fd >= 0

    def start(self) -> None:
        """Have keys come one by one, and not shown."""
        if not self.is_available or self._before is not None:
            return
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd, termios.TCSANOW)
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self._before is None:
            return
        asyncio.get_running_loop().remove_reader(self._fd)
        with contextlib.suppress(termios.error):
            # What was typed for the view is nothing to the shell.
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
