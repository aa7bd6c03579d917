"""Runs a command, and restarts it when a Python file in a folder changes.

    python tools/reload.py FOLDER COMMAND...

It is the first process of the images' target `dev`, into which skaffold copies changed files. A
command that exits by itself, as after a syntax error, is restarted at the next change. SIGTERM or
SIGINT ends the command by SIGTERM; this program exits with the command's exit status.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from watchfiles import PythonFilter, watch

_QUIET = 200
"""Milliseconds without a change after which a burst of changes has ended."""
_LOOK = 100
"""Milliseconds between checks whether the command still runs."""
_PATIENCE = 1.0
"""Seconds for the command to exit after each SIGTERM, before it is killed."""
_EXIT_USAGE = 2


class Command:
    """The running command, or its last run."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._ended = False
        # Its own session, so that it does not get a terminal's signals twice.
        self._process = subprocess.Popen(words, start_new_session=True)

    def send(self, number: int) -> None:
        """Send it a signal, unless it has exited."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait until it exits. Returns its exit status, as in a shell."""
        status = self._process.wait()
        return status if status >= 0 else 128 - status

    def look(self) -> None:
        """Report once if it exited by itself."""
        if not self._ended and self._process.poll() is not None:
            self._ended = True
            say(f"the command exited with status {self.wait()}; it restarts when a file changes")

    def restart(self) -> None:
        """Restart it."""
        # A second SIGTERM makes pingpong exit without draining its sessions.
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            self.send(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)
                break
        self._process.wait()
        self._process = subprocess.Popen(self._words, start_new_session=True)
        self._ended = False


def say(text: str) -> None:
    """Write to the container's log."""
    print(f"reload: {text}", file=sys.stderr, flush=True)


def run(folder: Path, words: Sequence[str]) -> int:
    """Run the command until SIGTERM or SIGINT. Returns its exit status."""
    stopping = threading.Event()
    command: Command | None = None

    def stop(number: int, _frame: FrameType | None) -> None:
        if stopping.is_set() and command is not None:
            command.send(number)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    for changes in watch(
        folder,
        watch_filter=PythonFilter(),
        step=_QUIET,
        rust_timeout=_LOOK,
        yield_on_timeout=True,
        stop_event=stopping,
    ):
        if command is None:
            command = Command(words)  # only now, so that no change is missed
        elif changes:
            names = sorted({os.path.relpath(path, folder) for _, path in changes})
            say(f"{', '.join(names)} changed: restarting")
            command.restart()
        command.look()
    if command is None:
        return 128 + signal.SIGTERM
    # Not in the handler: the signal may have arrived during a restart.
    command.send(signal.SIGTERM)
    return command.wait()


def main(arguments: Sequence[str]) -> int:
    """Parse the arguments and run. Returns the exit status: 2 for wrong arguments."""
    if len(arguments) < 2 or not Path(arguments[0]).is_dir():
        print("reload: name a folder to watch, and then the command", file=sys.stderr)
        return _EXIT_USAGE
    return run(Path(arguments[0]), arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
