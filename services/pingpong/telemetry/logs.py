"""Structured logs: one line for each event, JSON or coloured text.

Events have stable names in snake case, and key-value pairs::

    log = get_logger(__name__)
    log.info("session_opened", path="/ping", draft=16)

Records of other libraries through :mod:`logging` (aioquic, asyncio), and warnings, are logged from
WARNING up as the event ``library_log``, with the text as its ``message``. aioquic warns about
every invalid packet and handshake, so a flood would fill the log: its warnings are logged at level
debug only. Repeated records are logged once a minute, with a count.

Logging never blocks (:mod:`pingpong.telemetry.log_writer`). Logs contain no secrets and no control
characters (:mod:`pingpong.telemetry.redaction`); this includes JSON, because tools print its
texts.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import time
from collections.abc import Callable, Container, Iterator
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal, TextIO, cast

from .failure_log import FailureLogThrottle
from .log_writer import LogWriter
from .redaction import redact, redact_values, shown


@contextlib.contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Make the import of a module fail, unless it was imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = cast("Any", None)
    try:
        yield
    finally:
        del sys.modules[name]


# structlog imports rich for tracebacks, which are not used here: 3 MB and 50 ms.
with _hidden("rich"):
    import structlog

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "console"]

FLUSH_TIMEOUT = 0.5
"""Seconds to wait for the last lines when the process ends."""

_PEERS_FAULTS = "quic"
"""aioquic's logger."""


class _Output:
    """Writes formatted lines, and has the name that was passed to :func:`get_logger`."""

    def __init__(self, writer: LogWriter, name: str | None = None) -> None:
        self._writer = writer
        self.name = name

    def msg(self, line: str) -> None:
        self._writer.write(redact(line))

    debug = info = warning = error = critical = msg


class _LibraryHandler(logging.Handler):
    """The handler that :func:`configure` adds to the root logger."""

    def __init__(self, writer: LogWriter, clock: Callable[[], float]) -> None:
        super().__init__()
        self.writer = writer
        self._clock = clock
        self._throttle = FailureLogThrottle()

    def emit(self, record: logging.LogRecord) -> None:
        # A library may repeat a record thousands of times (the event loop without free
        # descriptors).
        kind = record.exc_info[0] if record.exc_info else None
        failed = self._throttle.failed(record.name, f"{record.msg} {kind}", self._clock())
        if failed is None:
            return
        if failed.count > 1:
            record.count = failed.count
        try:
            self.writer.write(redact(self.format(record)))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        # The interpreter calls this when it ends.
        self.writer.flush(FLUSH_TIMEOUT)

    def close(self) -> None:
        self.writer.close(FLUSH_TIMEOUT)
        super().close()


def configure(
    level: Level,
    format: Format = "auto",
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Write all logs from ``level`` up to ``stream`` (standard error).

    ``auto`` is ``console`` if the stream is a terminal, otherwise ``json``. Another call replaces
    the configuration.
    """
    stream = sys.stderr if stream is None else stream
    if format == "auto":
        format = "console" if stream.isatty() else "json"
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[Processor]
    if format == "json":
        renderers = [
            _redacted,
            structlog.processors.format_exc_info,
            partial(_shown, ("exception", "message")),
            _in_order,
            structlog.processors.JSONRenderer(),
        ]
    else:
        shared[-1] = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
        renderers = [
            _redacted,
            partial(_shown, ()),
            _for_people,
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(),
                exception_formatter=_write_traceback,
                pad_event_to=0,
                pad_level=False,
                sort_keys=False,
            ),
        ]
    writer = LogWriter(stream, partial(_dropped_line, [*shared, *renderers]))
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=partial(_Output, writer),
        cache_logger_on_first_use=False,
    )
    handler = _LibraryHandler(writer, clock)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _library_event],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    for previous in _handlers():
        root.removeHandler(previous)
        previous.close()
    root.addHandler(handler)
    root.setLevel(max(threshold, logging.WARNING))
    logging.getLogger(_PEERS_FAULTS).setLevel(
        logging.WARNING if level == "debug" else logging.ERROR
    )
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught


def get_logger(name: str) -> FilteringBoundLogger:
    """Create a logger whose events have ``logger=name``.

    It uses the configuration of :func:`configure`, also if that is called later. For many events,
    bind once (``log.bind(session=7)``): a bound logger keeps its configuration, and a call below
    its level is cheap.
    """
    return cast("FilteringBoundLogger", structlog.get_logger(name))


def bind_to_all(**facts: Any) -> None:
    """Add facts to each event that is logged from now on, in this context."""
    structlog.contextvars.bind_contextvars(**facts)


def flush() -> None:
    """Wait until all lines are written, at most `FLUSH_TIMEOUT` seconds.

    The interpreter does it at exit, but not for ``os._exit``.
    """
    for handler in _handlers():
        handler.flush()


def dropped_lines() -> int:
    """The number of lines that were dropped because the reader stalled or the disk was full."""
    return sum(handler.writer.dropped for handler in _handlers())


def _log_uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Log an uncaught exception as an event, after the events before it."""
    if issubclass(kind, KeyboardInterrupt):
        flush()
        sys.__excepthook__(kind, error, traceback)
        return
    get_logger("pingpong").critical("process_crashed", exc_info=(kind, error, traceback))
    flush()


def _handlers() -> list[_LibraryHandler]:
    return [h for h in logging.getLogger().handlers if isinstance(h, _LibraryHandler)]


def _dropped_line(processors: list[Processor], count: int) -> str:
    logger = SimpleNamespace(name="pingpong.logs")
    event: Any = {"event": "log_lines_dropped", "count": count}
    for processor in processors:
        event = processor(logger, "warning", event)
    return cast("str", event)


def _library_event(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event["message"] = event["event"]
    event["event"] = "library_log"
    if count := getattr(event["_record"], "count", None):
        event["count"] = count
    return event


def _redacted(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return redact_values(event)


def _for_people(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    # In text the logger's name is useful only for libraries.
    if event["event"] != "library_log":
        event.pop("logger", None)
    return event


def _shown(
    of_lines: Container[str], logger: WrappedLogger, method: str, event: EventDict
) -> EventDict:
    """Redact all values and make them printable; those in `of_lines` keep their line breaks."""

    def make(name: str, value: Any) -> Any:
        if name == "exc_info":
            return value
        return _shown_lines(value) if name in of_lines else shown(value)

    return {name: make(name, value) for name, value in event.items()}


def _shown_lines(text: str) -> str:
    return "\n".join(map(shown, redact(text).split("\n")))


def _write_traceback(stream: TextIO, exc_info: Any) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    stream.write(_shown_lines(text.getvalue()))


def _in_order(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    first = {
        key: event.pop(key) for key in ("timestamp", "level", "event", "logger") if key in event
    }
    return {**first, **event}
