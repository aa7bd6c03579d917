"""Draws docs/live.svg, the picture of `pingpong ping --live` in the README, from a real run.

    .venv/bin/python tools/live_picture.py

Four servers on this machine are pinged by names that stand for places: one is stopped for a while,
one leaves some pings unanswered, one is stopped and stays so. The picture is what then stands in the
terminal, colour by colour.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "live.svg"
COLUMNS, ROWS = 104, 18
NAMES = ("berlin.example", "tokyo.example", "lima.example", "oslo.example")
WELL, STOPPED_FOR_A_WHILE, LOSSY, STOPPED = range(4)
THEME = TerminalTheme(
    (22, 27, 34),
    (201, 209, 217),
    [
        (72, 79, 88),
        (255, 123, 114),
        (86, 211, 100),
        (227, 179, 65),
        (121, 192, 255),
        (210, 168, 255),
        (118, 227, 234),
        (201, 209, 217),
    ],
)
# The names are those of this machine, for the command alone.
COMMAND = """
import socket, sys
from pingpong.__main__ import main
ask = socket.getaddrinfo
socket.getaddrinfo = lambda host, *args, **kwargs: ask(
    "127.0.0.1" if str(host).endswith(".example") else host, *args, **kwargs
)
sys.exit(main(sys.argv[1:]))
"""


def free_port() -> int:
    """A UDP port that nothing listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def start_server(port: int, *options: str) -> subprocess.Popen[str]:
    """Start a server, and wait until it listens."""
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "pingpong", "serve", "--bind-host=127.0.0.1"),
            *(f"--bind-port={port}", "--admin-host=127.0.0.1", "--admin-port=0"),
            *("--log-format=json", "--drain-timeout=0", *options),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    for line in server.stderr:
        if '"event": "listening"' in line:
            threading.Thread(target=server.stderr.read, daemon=True).start()
            return server
    raise SystemExit(f"the server on port {port} did not start")


class Terminal:
    """A terminal in which the command draws."""

    def __init__(self, *words: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        variables = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self._command = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**variables, "TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(slave)

    def watch(self, seconds: float, text: str = "") -> str:
        """Read what is drawn until it has this text and for as long; return the last whole frame."""
        frames = ""
        until = None
        while until is None or time.monotonic() < until:
            frames += os.read(self._master, 1 << 16).decode(errors="replace")
            if until is None and text in frames:
                until = time.monotonic() + seconds
                frames = ""
        # Each begins where the terminal's cursor goes home.
        return frames.split("\x1b[H")[-2]

    def quit(self) -> None:
        """Leave the view."""
        os.write(self._master, b"q")
        while self._command.poll() is None:
            try:
                os.read(self._master, 1 << 16)
            except OSError:  # nothing has the terminal open any more
                break
        self._command.wait()
        os.close(self._master)


def run() -> str:
    """Ping four servers, and return the last frame, with the codes that colour it."""
    ports = [free_port() for _ in NAMES]
    lossy = ("--rate-limit=4", "--self-ping-interval=0")
    servers = [
        start_server(port, *(lossy if index == LOSSY else ())) for index, port in enumerate(ports)
    ]
    urls = [f"{name}:{port}" for name, port in zip(NAMES, ports, strict=True)]
    try:
        terminal = Terminal("ping", "--live", "--insecure", "-i0.2", "-W0.5", *urls)
        terminal.watch(5, "all connected")
        servers[STOPPED_FOR_A_WHILE].send_signal(signal.SIGKILL)
        servers[STOPPED_FOR_A_WHILE].wait()
        terminal.watch(0.5, "1 not connected")
        servers[STOPPED_FOR_A_WHILE] = start_server(ports[STOPPED_FOR_A_WHILE])
        terminal.watch(3, "all connected")
        servers[STOPPED].send_signal(signal.SIGKILL)
        frame = terminal.watch(1.5, "1 not connected")
        terminal.quit()
    finally:
        for server in servers:
            server.kill()
            server.wait()
    return frame


def drawn(frame: str) -> str:
    """Make an SVG of a frame."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    lines = re.sub(r"\x1b\[\?\d+[hl]", "", frame).replace("\r", "").split("\n")
    for line in lines:
        console.print(Text.from_ansi(line.rstrip()), no_wrap=True, crop=True)
    svg = console.export_svg(title="pingpong ping --live", theme=THEME, unique_id="live")
    # Its fonts would be fetched from elsewhere; the reader's own monospaced one will do.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return "".join(f"{line.rstrip()}\n" for line in svg.splitlines())


def main() -> None:
    """Write the picture."""
    PICTURE.write_text(drawn(run()))
    print(f"{PICTURE.relative_to(ROOT)}: look at it")


if __name__ == "__main__":
    main()
