"""The command `pingpong`: its verbs, each imported when it is asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Coroutine
from typing import TypeVar

from . import __version__

USAGE = """\
usage: pingpong VERB [OPTIONS]

Ping over WebTransport (HTTP/3, QUIC, UDP).

verbs:
  serve   answer pings, until SIGTERM or Ctrl-C
  ping    ping a server, and say how fast, how lossy, and which way it is lost
  run     try it out: a server and a client side by side in this terminal

options:
  --help     this text; `pingpong VERB --help` for a verb's options
  --version  the version of pingpong

Every option is an environment variable too: PINGPONG_ and its name.
"""

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

T = TypeVar("T")


def _run(main: Coroutine[object, object, T]) -> T:
    import uvloop

    return uvloop.run(main)


def _unknown_variables() -> list[str]:
    from .ops.settings import PingSettings, RunSettings, ServeSettings, unknown_variables

    return unknown_variables((ServeSettings, PingSettings, RunSettings), os.environ)


def _serve(arguments: list[str]) -> int:
    from .ops.logs import configure, get_logger
    from .ops.settings import ServeSettings
    from .server.service import ServeError, serve

    settings = ServeSettings.parse(arguments, os.environ)
    configure(settings.log_level, settings.log_format)
    for warning in _unknown_variables():
        get_logger("pingpong").warning("unknown_variable", warning=warning)
    try:
        _run(serve(settings))
    except ServeError as error:
        print(f"pingpong: {error}", file=sys.stderr)
        return EXIT_USAGE
    return 0


def _ping(arguments: list[str]) -> int:
    from .client.command import ping
    from .ops.logs import configure
    from .ops.settings import PingSettings

    settings = PingSettings.parse(arguments, os.environ)
    for warning in _unknown_variables():
        print(f"pingpong: {warning}", file=sys.stderr)
    configure(settings.log_level, "auto")
    return _run(ping(settings))


def _try_out(arguments: list[str]) -> int:
    from .ops.logs import configure
    from .ops.settings import RunSettings
    from .run import run

    settings = RunSettings.parse(arguments, os.environ)
    configure("warning", "auto")
    return _run(run(settings))


VERBS = {"serve": _serve, "ping": _ping, "run": _try_out}


def main(arguments: list[str] | None = None) -> int:
    """Run a verb. Returns the exit status: 2 where the words after it are wrong."""
    words = sys.argv[1:] if arguments is None else arguments
    verb = words[0] if words else ""
    if verb in ("--help", "-h", "help"):
        print(USAGE, end="")
        return 0
    if verb in ("--version", "-V", "version"):
        print(f"pingpong {__version__}")
        return 0
    if verb not in VERBS:
        if verb:
            print(f"pingpong: there is no verb {verb!r}\n", file=sys.stderr)
        print(USAGE, end="", file=sys.stderr)
        return EXIT_USAGE
    from .ops.settings import SettingsError

    try:
        return VERBS[verb](words[1:])
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED  # before the verb had come to handle it
    except SettingsError as error:
        for mistake in error.mistakes:
            print(f"pingpong: {mistake}", file=sys.stderr)
        print(f"pingpong: see `pingpong {verb} --help`", file=sys.stderr)
        return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
