"""A terminal for a command that draws: a pseudo-terminal, and what stands on its screen."""

from __future__ import annotations

import asyncio
import codecs
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

from tests.support.processes import environment

ENTERED, LEFT = "\x1b[?1049h", "\x1b[?1049l"
"""What a program that draws over the whole screen begins and ends with."""

_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[a-zA-Z]|[()][A-Z0-9]|[=>])")


class Terminal:
    """`pingpong` with these words in a terminal of its own."""

    def __init__(self, process: asyncio.subprocess.Process, master: int, slave: int) -> None:
        self.process = process
        self.master = master
        self.slave = slave
        self.output = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._news = asyncio.Event()
        self._marked = 0
        asyncio.get_running_loop().add_reader(master, self._read)

    def _read(self) -> None:
        with suppress(BlockingIOError, OSError):
            while data := os.read(self.master, 1 << 16):
                self.output += self._decoder.decode(data)
        self._news.set()

    @property
    def text(self) -> str:
        """What was drawn since `mark`, without what positions and colours it."""
        return _ESCAPE.sub("", self.output[self._marked :])

    def mark(self) -> None:
        """Only what comes from now on counts."""
        self._marked = len(self.output)

    async def until(self, condition: Callable[[str], object]) -> None:
        """Wait until what was drawn since `mark` fulfils the condition; the test's timeout ends it."""
        while not condition(self.text):
            if self.process.returncode is not None:
                raise AssertionError(f"it ended: {self.text[-2000:]}")
            self._news.clear()
            # Also without news: the condition may be about something else.
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await self._news.wait()

    async def shows(self, text: str) -> None:
        await self.until(lambda drawn: text in drawn)

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def is_cooked(self) -> bool:
        """Whether lines are edited and shown, as a shell wants it."""
        flags = termios.tcgetattr(self.slave)[3]
        return bool(flags & termios.ICANON) and bool(flags & termios.ECHO)

    async def finish(self) -> int:
        """Wait for its end, and for all that it wrote; its exit status."""
        status = await self.process.wait()
        self._read()
        return status


@asynccontextmanager
async def terminal(
    *words: str, columns: int = 120, rows: int = 30, variables: Mapping[str, str] | None = None
) -> AsyncIterator[Terminal]:
    """Run `pingpong`; killed at the latest when the context is left."""
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    # These would count for more than the terminal's own size.
    environ = {k: v for k, v in environment().items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pingpong", *words),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**environ, "TERM": "xterm-256color", **(variables or {})},
        start_new_session=True,
    )
    made = Terminal(process, master, slave)
    try:
        yield made
    finally:
        asyncio.get_running_loop().remove_reader(master)
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(master)
        os.close(slave)
