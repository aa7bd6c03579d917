"""The output of a command."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TextIO

from ..webtransport import printable


@dataclass(frozen=True, slots=True)
class Output:
    """Functions that write results and errors.

    `write` and `complain` make each line printable. `write` raises `OSError` if the line cannot be
    written, `BrokenPipeError` if the reader is gone; `complain` never raises. `draw` writes text to
    a terminal without a change, and raises as `write` does; None if the output is not a terminal.
    """

    write: Callable[[str], None]
    complain: Callable[[str], None]
    draw: Callable[[str], None] | None = None


def terminal(prefix: str = "") -> Output:
    """Write results to stdout, each line flushed and after `prefix`, and errors to stderr."""

    def write(text: str) -> None:
        with _unless_gone():
            for line in text.split("\n"):
                print(_line(f"{prefix}{line}".rstrip(), sys.stdout), flush=True)

    def draw(text: str) -> None:
        with _unless_gone():
            print(text, end="", flush=True)

    def complain(line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(_line(f"pingpong: {line}", sys.stderr), file=sys.stderr, flush=True)

    # If stdout is closed at the start, it is None, and print does nothing.
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return Output(write, complain, draw if is_terminal and not prefix else None)


def _line(text: str, stream: TextIO) -> str:
    """A line, without its end, that the stream can encode."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return printable(text, None).encode(encoding, "backslashreplace").decode(encoding)


@contextlib.contextmanager
def _unless_gone() -> Iterator[None]:
    try:
        yield
    except OSError:
        discard_output()
        raise


def discard_output() -> None:
    """Discard the buffer of stdout, which Python would try to write again when it exits."""
    null = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(null, sys.stdout.fileno())
    os.close(null)
