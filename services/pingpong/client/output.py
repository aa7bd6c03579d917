"""Where a command's lines go."""

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
    """Where lines go: results, and complaints.

    Both make each line printable once more, whatever is in it. `write` raises `OSError` where the
    line cannot be written, `BrokenPipeError` where the reader is gone; `complain` never does.
    `draw` puts text into a terminal as it is, at once, and
    raises as `write` does; None where the results go somewhere else.
    """

    write: Callable[[str], None]
    complain: Callable[[str], None]
    draw: Callable[[str], None] | None = None


def terminal(prefix: str = "") -> Output:
    """Results to stdout, each line at once and behind `prefix`, and complaints to stderr."""

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

    # Where it was closed from the start, Python has no stdout, and print says nothing.
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return Output(write, complain, draw if is_terminal and not prefix else None)


def _line(text: str, stream: TextIO) -> str:
    """A line as a stream can take it, without its end."""
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
    """Send what is still in stdout's buffer nowhere: at its end Python would try once more."""
    null = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(null, sys.stdout.fileno())
    os.close(null)
