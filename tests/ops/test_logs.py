from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import structlog

from pingpong.ops.logs import configure, get_logger


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("quic").setLevel(logging.NOTSET)
    structlog.reset_defaults()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail() -> None:
    raise RuntimeError("two\nlines")


def test_json_is_one_line_an_event_with_its_facts(stream: io.StringIO) -> None:
    configure("info", "json", stream)
    get_logger("pingpong.server").info("session_opened", path="/ping", draft=16)
    get_logger("pingpong.server").bind(session=4).warning("session_closed", reason=b"\x00")
    first, second = events(stream)
    assert list(first)[:4] == ["timestamp", "level", "event", "logger"]
    timestamp = first.pop("timestamp")
    assert timestamp.endswith("Z")
    assert timestamp[10] == "T"
    assert first == {
        "level": "info",
        "event": "session_opened",
        "logger": "pingpong.server",
        "path": "/ping",
        "draft": 16,
    }
    assert second["level"] == "warning"
    assert second["session"] == 4
    assert second["reason"] == "b'\\x00'"


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_level(
    level: Literal["debug", "info", "warning", "error"], shown: list[str], stream: io.StringIO
) -> None:
    configure(level, "json", stream)
    log = get_logger("x")
    log.debug("a")
    log.info("a")
    log.warning("a")
    log.error("a")
    assert [event["level"] for event in events(stream)] == shown


def test_an_exception_stays_in_its_line(stream: io.StringIO) -> None:
    configure("info", "json", stream)
    try:
        fail()
    except RuntimeError:
        get_logger("x").exception("worker_failed", worker=1)
    (event,) = events(stream)
    assert event["event"] == "worker_failed"
    assert event["level"] == "error"
    assert event["worker"] == 1
    assert event["exception"].startswith("Traceback")
    assert event["exception"].endswith("RuntimeError: two\nlines")


@pytest.mark.parametrize("name", ["quic", "asyncio"])
def test_libraries_come_out_of_the_same_pipeline_from_warning_up(
    name: str, stream: io.StringIO
) -> None:
    configure("debug", "json", stream)
    library = logging.getLogger(name)
    library.info("hidden")
    library.warning("took %.1f\nseconds", 0.5)
    try:
        fail()
    except RuntimeError:
        library.exception("task")
    first, second = events(stream)
    first.pop("timestamp")
    assert first == {
        "level": "warning",
        "event": "library_log",
        "logger": name,
        "message": "took 0.5\nseconds",
    }
    assert second["level"] == "error"
    assert second["exception"].endswith("RuntimeError: two\nlines")


def test_libraries_follow_a_level_above_warning(stream: io.StringIO) -> None:
    configure("error", "json", stream)
    logging.getLogger("quic").warning("hidden")
    logging.getLogger("quic").error("shown")
    assert [event["message"] for event in events(stream)] == ["shown"]


def test_auto_is_json_without_a_terminal(stream: io.StringIO) -> None:
    configure("info", "auto", stream)
    get_logger("x").info("started")
    assert events(stream)[0]["event"] == "started"


def test_auto_is_console_in_a_terminal() -> None:
    stream = Terminal()
    configure("info", "auto", stream)
    get_logger("x").info("started", port=4433)
    assert "started" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()
    with pytest.raises(json.JSONDecodeError):
        json.loads(stream.getvalue())


def test_console_has_no_colours_outside_a_terminal(stream: io.StringIO) -> None:
    configure("info", "console", stream)
    get_logger("pingpong.x").info("started", port=4433)
    try:
        fail()
    except RuntimeError:
        get_logger("pingpong.x").exception("worker_failed")
    first, *rest = stream.getvalue().splitlines()
    assert "\x1b" not in stream.getvalue()
    assert re.fullmatch(r"\d\d:\d\d:\d\d \[info\] started port=4433", first)
    assert rest[-2:] == ["RuntimeError: two", "lines"]


def test_configured_again_it_replaces_what_was(stream: io.StringIO) -> None:
    later = io.StringIO()
    log = get_logger("x")
    configure("info", "json", stream)
    log.info("before")
    configure("info", "json", later)
    log.info("after")
    logging.getLogger("other").warning("after")
    assert [event["event"] for event in events(stream)] == ["before"]
    assert [event["event"] for event in events(later)] == ["after", "library_log"]


def test_without_a_stream_it_is_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    get_logger("x").info("started")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["event"] == "started"


def test_a_stream_that_is_gone_stops_nothing() -> None:
    class Gone(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            raise BrokenPipeError

    gone = Gone()
    configure("info", "json", gone)
    get_logger("x").info("started")
    assert gone.writes == 1


def test_a_closed_stream_stops_nothing(stream: io.StringIO) -> None:
    configure("info", "json", stream)
    stream.close()
    get_logger("x").info("started")


@pytest.mark.parametrize(
    ("level", "shown"),
    [("debug", ["warning", "error"]), ("info", ["error"]), ("warning", ["error"])],
)
def test_what_aioquic_says_of_its_peers_is_for_debugging(
    stream: io.StringIO, level: Literal["debug", "info", "warning"], shown: list[str]
) -> None:
    """A flood of bad packets is not to fill the log."""
    configure(level, "json", stream)
    logger = logging.LoggerAdapter(logging.getLogger("quic"), {"id": "3d1c"})
    logger.info("Duplicate CRYPTO data received for epoch %s", "INITIAL")
    logger.warning("Handshake failed")
    logger.error("Something of our own")
    assert [event["level"] for event in events(stream)] == shown


def test_console_facts_in_their_order_and_libraries_by_name(stream: io.StringIO) -> None:
    configure("info", "console", stream)
    get_logger("pingpong.x").info("listening", port=4433, host="::1")
    logging.getLogger("asyncio").warning("slow")
    first, second = stream.getvalue().splitlines()
    assert first.endswith("listening port=4433 host=::1")
    assert "[asyncio]" in second
    assert second.endswith("message=slow")
