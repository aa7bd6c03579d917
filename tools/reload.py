"""Runs a command, and runs it again whenever a Python file below a folder changes.

    python tools/reload.py FOLDER COMMAND...

It is the first process of the images' target `dev`, into which skaffold puts changed files. What
ends by itself, as with a mistake in its syntax, is run again at the next change. SIGTERM or SIGINT
ends it, by SIGTERM; the command's exit status is this program's.
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
"""Milliseconds without a change after which a burst of them is over."""
_LOOK = 100
"""Milliseconds between looks at whether the command still runs."""
_PATIENCE = 1.0
"""Seconds that the command has to end before it is asked again, and then is killed."""
_EXIT_USAGE = 2


class Command:
    """The command, as it runs or has run last."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._ended = False
        # A session of its own: what is typed at a terminal comes to it once, through here.
        self._process = subprocess.Popen(words, start_new_session=True)

    def send(self, number: int) -> None:
        """Send it a signal; nothing where it has ended."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end. Returns its exit status, as a shell tells it."""
        status = self._process.wait()
        return status if status >= 0 else 128 - status

    def look(self) -> None:
        """Say it, once, when it has ended by itself."""
        if not self._ended and self._process.poll() is not None:
            self._ended = True
            say(f"it ended with status {self.wait()}, and is run again when a file changes")

    def restart(self) -> None:
        """End it, soon, and run it again."""
        # The second SIGTERM ends pingpong without waiting for its sessions.
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            self.send(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)
                break
        self._process.wait()
        self._process = subprocess.Popen(self._words, start_new_session=True)
        self._ended = False


def say(text: str) -> None:
    """Tell whoever reads the container's log."""
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
            command = Command(words)  # only now: from here on no change is missed
        elif changes:
            names = sorted({os.path.relpath(path, folder) for _, path in changes})
            say(f"{', '.join(names)} changed, running it again")
            command.restart()
        command.look()
    if command is None:
        return 128 + signal.SIGTERM
    # Not by the handler: it may have come while one process took the place of another.
    command.send(signal.SIGTERM)
    return command.wait()


def main(arguments: Sequence[str]) -> int:
    """Run what the words say. Returns the exit status: 2 where they are wrong."""
    if len(arguments) < 2 or not Path(arguments[0]).is_dir():
        print("reload: name a folder to watch, and then the command", file=sys.stderr)
        return _EXIT_USAGE
    return run(Path(arguments[0]), arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
