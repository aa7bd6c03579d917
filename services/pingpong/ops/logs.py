"""Logs: one line an event, JSON for machines and colours for people.

Events have stable names in snake case and carry their facts as key-value pairs::

    log = get_logger(__name__)
    log.info("session_opened", path="/ping", draft=16)

What libraries log through :mod:`logging` (aioquic, asyncio) comes out of the same pipeline from
WARNING up, as the event ``library_log`` with the text as its ``message``. aioquic warns of every
packet and handshake of a peer that it does not like, so that a flood of them would fill the log:
its warnings come out at the level debug only.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from functools import partial
from typing import Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "console"]

_PEERS_FAULTS = "quic"
"""aioquic's logger."""


class _Writer:
    """Writes lines, and knows the name that :func:`get_logger` was given."""

    def __init__(self, stream: TextIO, name: str | None = None) -> None:
        self._stream = stream
        self.name = name

    def msg(self, line: str) -> None:
        # Whoever read the logs may be gone (a pipe, a full disk): that must not stop a service.
        with suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = msg


class _LibraryHandler(logging.StreamHandler[TextIO]):
    """The handler that :func:`configure` puts on the root logger, told apart by its type."""


def configure(level: Level, format: Format = "auto", stream: TextIO | None = None) -> None:
    """Send all logs to ``stream`` (standard error), from ``level`` up.

    ``auto`` is ``console`` where the stream is a terminal and ``json`` elsewhere. May be called
    again, and then replaces what was configured before.
    """
    stream = sys.stderr if stream is None else stream
    if format == "auto":
        format = "console" if stream.isatty() else "json"
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[Processor]
    if format == "json":
        renderers = [
            structlog.processors.format_exc_info,
            _in_order,
            structlog.processors.JSONRenderer(),
        ]
    else:
        shared[-1] = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
        renderers = [
            _without_logger,
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(),
                exception_formatter=structlog.dev.plain_traceback,
                pad_event_to=0,
                pad_level=False,
                sort_keys=False,
            ),
        ]
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=partial(_Writer, stream),
        cache_logger_on_first_use=False,
    )
    handler = _LibraryHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _library_event],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    for previous in [h for h in root.handlers if isinstance(h, _LibraryHandler)]:
        root.removeHandler(previous)
    root.addHandler(handler)
    root.setLevel(max(threshold, logging.WARNING))
    logging.getLogger(_PEERS_FAULTS).setLevel(
        logging.WARNING if level == "debug" else logging.ERROR
    )


def get_logger(name: str) -> FilteringBoundLogger:
    """Make a logger whose events carry ``logger=name``.

    It follows :func:`configure`, also when that is called later. Where many events are logged, or
    filtered out, bind once (``log.bind(session=7)``): a bound logger is settled, and a call below
    its level costs next to nothing.
    """
    return cast("FilteringBoundLogger", structlog.get_logger(name))


def _library_event(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event["message"] = event["event"]
    event["event"] = "library_log"
    return event


def _without_logger(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    # On a line that a person reads, the event says enough; of a library, which one.
    if event["event"] != "library_log":
        event.pop("logger", None)
    return event


def _in_order(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    first = {
        key: event.pop(key) for key in ("timestamp", "level", "event", "logger") if key in event
    }
    return {**first, **event}
