"""The command `pingpong`: its verbs, each imported only when it is used."""

from __future__ import annotations

# Few imports, and syntax that older Pythons know: `main` has to come first.
import contextlib
import gc
import os
import signal
import sys

from . import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import TypeVar

    from .settings import ServiceSettings
    from .webtransport import EngineChoice

    T = TypeVar("T")

USAGE = """\
usage: pingpong VERB [options]

Ping over WebTransport (HTTP/3, QUIC, UDP).

verbs:
  serve        answer pings, until SIGTERM or Ctrl-C
  probe        ping servers continuously, with metrics for Prometheus
  ping         ping servers, and show round-trip times, loss and its direction
  run          try it out: a server and a client side by side in this terminal
  certificate  create or renew a server's certificate in Kubernetes

options:
  -h, --help   show this text; `pingpong VERB --help` shows a verb's options
  --version    show the version

Each option is also an environment variable: --log-level is PINGPONG_LOG_LEVEL.
"""

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_OLDEST_PYTHON = (3, 11)
_STDERR = 2


def _run(main: Coroutine[object, object, T]) -> T:
    import uvloop

    gc.freeze()  # modules stay
    gc.enable()
    return uvloop.run(main)


def _unknown_variables() -> list[str]:
    from .settings import (
        CertificateSettings,
        PingSettings,
        ProbeSettings,
        RunSettings,
        ServeSettings,
        unknown_variables,
    )

    verbs = (ServeSettings, ProbeSettings, PingSettings, RunSettings, CertificateSettings)
    return unknown_variables(verbs, os.environ)


def _exit_at_interrupt() -> None:
    """Exit at Ctrl-C without a traceback, before and after a verb handles it."""
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(EXIT_INTERRUPTED))


def _exit_at_sigterm() -> None:
    """Exit at SIGTERM until a verb handles it: the kernel does not end a container's PID 1."""
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _open_standard_streams() -> None:
    """Open the descriptors 0, 1 and 2 if they are closed, so that no socket gets them."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # its file was closed
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - until the end


def _print(text: str) -> int:
    """Print to stdout; return the exit status."""
    try:
        print(text, flush=True)
    except OSError as error:
        from .client.output import discard_output

        discard_output()
        _complain(f"cannot write: {(error.strerror or str(error)).lower()}")
        return EXIT_USAGE
    return 0


def _complain(text: str) -> None:
    """Print to stderr, if it can be written."""
    with contextlib.suppress(OSError):
        print(f"pingpong: {text}", file=sys.stderr)


def _require(module: str, extra: str, what: str) -> None:
    """Raises `SettingsError` if an optional dependency is not installed."""
    import importlib.util

    from .settings import SettingsError

    if importlib.util.find_spec(module) is None:
        raise SettingsError(
            [
                f"{what} needs the package {module}: run `pip install '.[{extra}]'` in a clone of"
                f" pingpong, or use the {extra}'s image, pingpong-{extra}"
            ]
        )


def _choose_engine(choice: EngineChoice, *, server: bool) -> None:
    """Raises `SettingsError` where the QUIC engine is not installed."""
    from .settings import SettingsError
    from .settings.command_line import named
    from .webtransport.asyncio import EngineMissingError, choose_engine

    try:
        choose_engine(choice, server=server)
    except EngineMissingError as error:
        raise SettingsError([f"{named('engine')}: {error}"]) from None


def _configure_logs(settings: ServiceSettings) -> None:
    from .telemetry.logs import configure, get_logger

    configure(settings.log_level, settings.log_format)
    for warning in _unknown_variables():
        get_logger("pingpong").warning("unknown_variable", warning=warning)


def _serve(arguments: list[str]) -> int:
    _exit_at_sigterm()
    from .settings import ServeSettings

    settings = ServeSettings.parse(arguments, os.environ)
    if settings.auth == "kubernetes":
        _require("kubernetes", "server", "--auth kubernetes (PINGPONG_AUTH)")
    _choose_engine(settings.engine, server=True)
    _configure_logs(settings)
    from .server import ServeError
    from .server.service import serve
    from .telemetry.logs import flush

    try:
        _run(serve(settings))
    except ServeError as error:
        flush()  # the logs go there too
        _complain(str(error))
        return EXIT_USAGE
    return 0


def _probe(arguments: list[str]) -> int:
    _exit_at_sigterm()
    from .settings import ProbeSettings

    settings = ProbeSettings.parse(arguments, os.environ)
    _require("dns", "client", "pingpong probe")
    _choose_engine(settings.engine, server=False)
    _configure_logs(settings)
    from .client.probe.service import probe

    return _run(probe(settings))


def _ping(arguments: list[str]) -> int:
    from .settings import PingSettings

    settings = PingSettings.parse(arguments, os.environ)
    if settings.live:
        _require("rich", "client", "--live (PINGPONG_LIVE)")
    _choose_engine(settings.engine, server=False)
    for warning in _unknown_variables():
        _complain(warning)
    from .client.ping.command import ping
    from .telemetry.logs import configure

    configure(settings.log_level, "auto")
    return _run(ping(settings))


def _try_out(arguments: list[str]) -> int:
    from .settings import RunSettings

    settings = RunSettings.parse(arguments, os.environ)
    _choose_engine(settings.engine, server=False)
    from .run import run
    from .telemetry.logs import configure

    configure("warning", "auto")
    return _run(run(settings))


def _certificate(arguments: list[str]) -> int:
    _exit_at_sigterm()
    from datetime import UTC, datetime

    from .settings import CertificateSettings
    from .telemetry.logs import configure, flush

    settings = CertificateSettings.parse(arguments, os.environ)
    _require("kubernetes", "server", "pingpong certificate")
    for warning in _unknown_variables():
        _complain(warning)
    configure("info", "auto")
    from .server.tls.certificate_secrets import CertificateSecretsError, keep_certificates

    try:
        _run(keep_certificates(settings, datetime.now(UTC)))
    except CertificateSecretsError as error:
        flush()  # the logs go there too
        _complain(str(error))
        return EXIT_FAILED
    return 0


VERBS = {
    "serve": _serve,
    "probe": _probe,
    "ping": _ping,
    "run": _try_out,
    "certificate": _certificate,
}


def _no_such_verb(words: list[str]) -> str:
    import re

    from .settings.command_line import nearest
    from .settings.values import quoted

    verb = words[0]
    if verb.startswith("-"):
        return f"put {quoted(verb.partition('=')[0])} after the verb"
    hint = nearest(verb, list(VERBS))
    if not hint and re.fullmatch(r"localhost|\S*[.:]\S*", verb):
        hint = f"; did you mean `pingpong ping {' '.join(map(quoted, words))}`?"
    return f"there is no verb {quoted(verb)}{hint}"


def main(arguments: list[str] | None = None) -> int:
    """Run a verb. Returns the exit status: 2 if its options are wrong.

    Without `arguments` it uses those of the command line, and handles SIGINT.
    """
    if arguments is None:
        _exit_at_interrupt()
        gc.disable()  # until the event loop runs: imports leave little garbage
    if sys.version_info < _OLDEST_PYTHON:
        needed, found = (".".join(map(str, v[:2])) for v in (_OLDEST_PYTHON, sys.version_info))
        print(f"pingpong: needs Python {needed} or newer, and this is {found}", file=sys.stderr)
        return EXIT_USAGE
    _open_standard_streams()
    words = sys.argv[1:] if arguments is None else arguments
    verb = words[0] if words else ""
    if verb == "help" and len(words) > 1:
        words = [*words[1:], "--help"]
        verb = words[0]
    if verb in ("--help", "-h", "help"):
        return _print(USAGE.rstrip())
    if verb in ("--version", "-V", "version"):
        return _print(f"pingpong {__version__}")
    if verb not in VERBS:
        if verb:
            _complain(f"{_no_such_verb(words)}\n")
        with contextlib.suppress(OSError):
            print(USAGE, end="", file=sys.stderr)
        return EXIT_USAGE
    from .settings import SettingsError

    try:
        return VERBS[verb](words[1:])
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED  # before the verb handled it
    except SettingsError as error:
        for mistake in error.mistakes:
            _complain(mistake)
        _complain(f"see `pingpong {verb} --help`")
        return EXIT_USAGE
    finally:
        if arguments is None:
            _exit_at_interrupt()


if __name__ == "__main__":
    sys.exit(main())
