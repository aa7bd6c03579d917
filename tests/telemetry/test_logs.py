from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import warnings
from typing import Any, Literal, TextIO

import pytest
import structlog

from pingpong.telemetry.logs import configure, dropped_lines, flush, get_logger
from tests.support.processes import environment


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


TOKEN = "abcdef0123456789"


@pytest.mark.parametrize("format", ["json", "console"])
def test_no_secret_is_shown(format: Literal["json", "console"], stream: io.StringIO) -> None:
    configure("info", format, stream)
    log = get_logger("x")
    log.info("asked", token=TOKEN, headers={"authorization": f"Bearer {TOKEN}"})
    log.info("asked", reason=f"Bearer {TOKEN} is not valid")
    log.info(f"asked with password={TOKEN}")
    log.bind(api_key=TOKEN.encode()).info("asked")
    logging.getLogger("urllib3").warning("header: %r", {"Authorization": f"Bearer {TOKEN}"})
    try:
        raise RuntimeError(f"Bearer {TOKEN}")
    except RuntimeError:
        log.exception("failed")
        logging.getLogger("asyncio").exception("failed")
    assert TOKEN not in stream.getvalue()
    assert stream.getvalue().count("***") >= 8


def test_what_a_library_repeats_comes_once_a_minute_with_a_count(stream: io.StringIO) -> None:
    now = 100.0
    configure("info", "json", stream, lambda: now)
    for _ in range(61):
        logging.getLogger("asyncio").error("cannot accept: %s", "too many files")
        logging.getLogger("other").error("cannot accept: %s", "too many files")
        now += 1
    logging.getLogger("asyncio").error("something else")
    assert [
        (event["logger"], event["message"], event.get("count")) for event in events(stream)
    ] == [
        ("asyncio", "cannot accept: too many files", None),
        ("other", "cannot accept: too many files", None),
        ("asyncio", "cannot accept: too many files", 60),
        ("other", "cannot accept: too many files", 60),
        ("asyncio", "something else", None),
    ]


def test_warnings_are_events_as_well(stream: io.StringIO) -> None:
    configure("info", "json", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("it is old", DeprecationWarning, stacklevel=1)
    (event,) = events(stream)
    assert (event["event"], event["logger"]) == ("library_log", "py.warnings")
    assert "DeprecationWarning: it is old" in event["message"]


def test_what_a_peer_sent_does_not_move_the_cursor(stream: io.StringIO) -> None:
    configure("info", "console", stream)
    get_logger("x").info("refused", origin="\x1b[2Jü\nhttps://a", count=1)
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("refused origin=\\x1b[2Jü\\nhttps://a count=1")


def test_what_is_bound_to_the_context_is_in_the_lines_of_libraries_too(
    stream: io.StringIO,
) -> None:
    configure("info", "json", stream)
    with structlog.contextvars.bound_contextvars(worker=3):
        get_logger("x").info("started")
        logging.getLogger("asyncio").warning("slow")
    assert [event["worker"] for event in events(stream)] == [3, 3]


def logging_to(pipe: int, format: Literal["json", "console"] = "json") -> TextIO:
    stream = os.fdopen(pipe, "w")
    configure("info", format, stream)
    return stream


@pytest.mark.parametrize("format", ["json", "console"])
def test_an_unread_log_stops_nothing(format: Literal["json", "console"]) -> None:
    read_end, write_end = os.pipe()
    with logging_to(write_end, format):
        log = get_logger("x")
        while dropped_lines() < 10:
            log.info("started", text="x" * 1000)
        text = b""
        while b"log_lines_dropped" not in text:
            text += os.read(read_end, 65_536)
        flush()
        log.info("well_again")
        flush()
        text += os.read(read_end, 65_536)
        assert b"well_again" in text
        if format == "json":
            dropped, last = (json.loads(line) for line in text.splitlines()[-2:])
            assert (dropped["event"], dropped["level"]) == ("log_lines_dropped", "warning")
            assert (dropped["logger"], dropped["count"]) == ("pingpong.logs", dropped_lines())
            assert last["event"] == "well_again"
        configure("info", "json", io.StringIO())
    os.close(read_end)


def test_configured_again_what_was_logged_before_is_written() -> None:
    read_end, write_end = os.pipe()
    with logging_to(write_end):
        for n in range(100):
            get_logger("x").info("counted", n=n)
        configure("info", "json", io.StringIO())
    text = b""
    while chunk := os.read(read_end, 65_536):
        text += chunk
    os.close(read_end)
    assert [json.loads(line)["n"] for line in text.splitlines()] == list(range(100))


PROGRAM = """
from pingpong.telemetry.logs import configure, get_logger
configure("info", "json")
for n in range(200):
    get_logger("x").info("counted", n=n)
{end}
"""


@pytest.mark.process
@pytest.mark.parametrize(("end", "status"), [("", 0), ("raise SystemExit(3)", 3)])
def test_the_end_of_the_process_waits_for_the_last_lines(end: str, status: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(end=end)],
        stderr=subprocess.PIPE,
        env=environment(),
        timeout=30,
    )
    assert ended.returncode == status
    assert [json.loads(line)["n"] for line in ended.stderr.splitlines()] == list(range(200))


@pytest.mark.process
def test_what_ends_the_program_is_the_last_event() -> None:
    end = "raise RuntimeError('Bearer abcdef0123456789')"
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(end=end)],
        stderr=subprocess.PIPE,
        env=environment(),
        timeout=30,
    )
    assert ended.returncode == 1
    *before, last = (json.loads(line) for line in ended.stderr.splitlines())
    assert [event["n"] for event in before] == list(range(200))
    assert (last["event"], last["level"]) == ("process_crashed", "critical")
    assert last["exception"].endswith("RuntimeError: Bearer ***")


@pytest.mark.process
def test_an_interrupt_is_no_crash() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(end="raise KeyboardInterrupt")],
        stderr=subprocess.PIPE,
        env=environment(),
        timeout=30,
    )
    assert b"process_crashed" not in ended.stderr
    assert ended.stderr.splitlines()[-1] == b"KeyboardInterrupt"


@pytest.mark.process
def test_the_end_of_the_process_does_not_wait_for_who_reads_nothing() -> None:
    program = PROGRAM.replace("200", "2000").format(end='get_logger("x").info("x" * 60_000)')
    with subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.wait(timeout=30) == 0


@pytest.mark.process
def test_logs_do_without_rich_and_leave_it_to_who_wants_it() -> None:
    """It takes 3 MB of a service's memory."""
    program = (
        "import sys; import pingpong.telemetry.logs;"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'rich'];"
        "import rich.console"
    )
    subprocess.run([sys.executable, "-c", program], env=environment(), check=True, timeout=30)


EVIL = "\x1b[2J\x9b31m\u202e\u200b\u2028"
SHOWN = r"\x1b[2J\x9b31m\u202e\u200b\u2028"


@pytest.mark.parametrize("format", ["json", "console"])
def test_what_a_peer_sent_does_nothing_to_a_terminal(
    format: Literal["json", "console"], stream: io.StringIO
) -> None:
    configure("debug", format, stream)
    log = get_logger("pingpong")
    log.info("told", reason=EVIL, deep={"list": [EVIL]}, half="\ud800", long="x" * 100_000)
    logging.getLogger("quic").warning("told %s", EVIL)
    for failed in (log.exception, logging.getLogger("asyncio").exception):
        try:
            raise RuntimeError(f"{EVIL}\nsecond line")
        except RuntimeError:
            failed("failed")
    text = stream.getvalue()
    assert all(line.isprintable() for line in text.splitlines())
    assert text.count("xxxxx") <= 1000
    if format == "console":
        # Values with spaces in them stand in quotes, in which backslashes are two.
        assert text.replace(r"\\", "\\").count(SHOWN) == 5
        return
    # What reads JSON writes its texts as they are.
    first, second, third, fourth = events(stream)
    assert first["reason"] == first["deep"]["list"][0] == SHOWN
    assert first["half"] == r"\ud800"
    assert second["message"] == f"told {SHOWN}"
    for event in (third, fourth):
        assert event["exception"].endswith(f"RuntimeError: {SHOWN}\nsecond line")


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_query_is_shown_nowhere(format: Literal["json", "console"], stream: io.StringIO) -> None:
    configure("debug", format, stream)
    log = get_logger("pingpong")
    log.info(
        "told",
        url="https://host/ping?key=s3cret",
        path="/ping?s3cret",
        urls=["https://host/?s3cret=\u00e9s3cret", "https://b/#s3cret"],
        text="404 for https://me:s3cret@host/?sig=s3cret: no",
    )
    try:
        raise RuntimeError("https://host/?s3cret")
    except RuntimeError:
        log.exception("failed")
    text = stream.getvalue()
    assert "s3cret" not in text.replace('raise RuntimeError("https://host/?s3cret")', "")
    assert "https://host/ping?***" in text


@pytest.mark.process
@pytest.mark.parametrize("module", ["pingpong.telemetry.logs", "pingpong.server.workers.child"])
def test_rich_is_not_imported_for_tracebacks(module: str) -> None:
    code = f"import {module}, sys; sys.exit('rich' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)
