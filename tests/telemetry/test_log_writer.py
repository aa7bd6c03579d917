from __future__ import annotations

import contextlib
import fcntl
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from pingpong.telemetry.log_writer import MAX_LINE, MAX_QUEUED, LogWriter
from tests.support.running import wait_until

PATIENCE = 30.0


@contextlib.contextmanager
def writing(descriptor: int) -> Iterator[LogWriter]:
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        writer = LogWriter(stream, "{} dropped".format)
        yield writer
        writer.close(0)


class Pipe:
    """A pipe with a writer at one end."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()

    def read_lines(self, count: int) -> list[str]:
        data = b""
        while data.count(b"\n") < count:
            data += os.read(self.read_end, 65_536)
        return data.decode().splitlines()

    def read_all(self) -> list[str]:
        """What is there and comes until the writer closes its end."""
        data = b""
        while chunk := os.read(self.read_end, 65_536):
            data += chunk
        return data.decode().splitlines()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    with contextlib.suppress(OSError):
        os.close(pipe.read_end)


def test_lines_arrive_in_their_order(pipe: Pipe) -> None:
    with writing(pipe.write_end) as writer:
        for n in range(1000):
            writer.write(f"line {n}")
        assert pipe.read_lines(1000) == [f"line {n}" for n in range(1000)]
        assert writer.dropped == 0


def test_a_reader_that_stalls_blocks_nothing_and_gets_the_number_of_lost_lines(pipe: Pipe) -> None:
    with writing(pipe.write_end) as writer:
        writer.write("x" * 60_000)
        writer.write("y" * 60_000)
        # With the pipe full, the thread is stuck in the middle of a line.
        wait_until(lambda: not writer.queued, "the thread has both lines")
        fits = MAX_QUEUED // 1000
        for n in range(fits + 500):
            writer.write(f"{n}".ljust(1000))
        assert writer.dropped == 500
        assert not writer.flush(0.01)
        lines = pipe.read_lines(2 + fits + 1)
        assert [int(line) for line in lines[2:-1]] == list(range(fits))
        assert lines[-1] == "500 dropped"
        assert writer.flush(PATIENCE)
        writer.write("well again")
        assert pipe.read_lines(1) == ["well again"]
        assert writer.dropped == 500


def test_what_one_line_takes_is_bounded(pipe: Pipe) -> None:
    with writing(pipe.write_end) as writer:
        writer.write("x" * (MAX_LINE + 10))
        assert pipe.read_lines(1) == ["x" * MAX_LINE + "…"]


def test_flush_waits_until_all_is_written(pipe: Pipe) -> None:
    with writing(pipe.write_end) as writer:
        writer.write("one")
        assert writer.flush(PATIENCE)
        os.set_blocking(pipe.read_end, False)
        assert os.read(pipe.read_end, 100) == b"one\n"


def test_flush_without_a_line_does_not_wait(pipe: Pipe) -> None:
    with writing(pipe.write_end) as writer:
        assert writer.flush(0)


def test_lines_stay_whole_where_several_write_to_one_pipe(pipe: Pipe) -> None:
    other = os.dup(pipe.write_end)
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.extend(pipe.read_all()))
    reader.start()
    with writing(pipe.write_end) as one, writing(other) as two:
        for n in range(300):
            one.write("a" * (n * 10 % 4000))
            two.write("b" * (n * 10 % 4000))
        assert one.flush(PATIENCE)
        assert two.flush(PATIENCE)
    reader.join()
    assert len(received) == 600
    assert all(set(line) in (set(), {"a"}, {"b"}) for line in received)


def test_a_reader_that_is_gone_is_counted(pipe: Pipe) -> None:
    with writing(pipe.write_end) as writer:
        os.close(pipe.read_end)
        writer.write("one")
        assert writer.flush(PATIENCE)
        writer.write("two")
        assert writer.flush(PATIENCE)
        assert writer.dropped == 2


def test_a_full_disk_is_counted() -> None:
    with writing(os.open("/dev/full", os.O_WRONLY)) as writer:
        for _ in range(3):
            writer.write("one")
        assert writer.flush(PATIENCE)
        assert writer.dropped == 3


def test_a_disk_that_has_room_again_gets_the_number_of_lost_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    room = [3]  # bytes

    def write(descriptor: int, data: memoryview) -> int:
        if room[0] == 0:
            raise OSError(28, "No space left on device")
        written = real(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", write)
    path = tmp_path / "log"
    with writing(os.open(path, os.O_WRONLY | os.O_CREAT)) as writer:
        for line in ("first", "second"):
            writer.write(line)
            assert writer.flush(PATIENCE)
        assert writer.dropped == 2
        room[0] = 1000
        writer.write("third")
        assert writer.flush(PATIENCE)
        writer.write("fourth")
        assert writer.flush(PATIENCE)
        assert writer.dropped == 2
    assert path.read_text().splitlines() == ["fir", "third", "2 dropped", "fourth"]


def test_a_stream_that_somebody_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    flags = fcntl.fcntl(pipe.write_end, fcntl.F_GETFL)
    fcntl.fcntl(pipe.write_end, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    with writing(pipe.write_end) as writer:
        for n in range(500):
            writer.write(f"{n} " + "x" * 1000)
        assert [line.split()[0] for line in pipe.read_lines(500)] == [str(n) for n in range(500)]
        assert writer.dropped == 0


def test_what_cannot_be_encoded_is_escaped(pipe: Pipe) -> None:
    with os.fdopen(pipe.write_end, "w", encoding="ascii") as stream:
        writer = LogWriter(stream, str)
        writer.write("ü \ud800")
        assert writer.flush(PATIENCE)
        assert pipe.read_lines(1) == ["\\xfc \\ud800"]
        writer.close(0)


def test_what_was_printed_before_comes_first(pipe: Pipe) -> None:
    with os.fdopen(pipe.write_end, "w") as stream:
        stream.write("before\n")
        writer = LogWriter(stream, str)
        writer.write("after")
        assert pipe.read_lines(2) == ["before", "after"]
        writer.close(0)


def test_closed_its_thread_ends_and_a_later_line_still_arrives(pipe: Pipe) -> None:
    before = set(threading.enumerate())
    with writing(pipe.write_end) as writer:
        writer.write("one")
        writer.close(PATIENCE)
        wait_until(lambda: set(threading.enumerate()) <= before, "its thread has ended")
        writer.write("two")
        assert pipe.read_lines(2) == ["one", "two"]
        writer.close(PATIENCE)
        wait_until(lambda: set(threading.enumerate()) <= before, "its thread has ended")


def test_a_line_amid_a_line_is_no_deadlock(pipe: Pipe) -> None:
    """A finalizer or a signal's handler may log at any point."""

    class Logging(str):
        __slots__ = ()

        def __len__(self) -> int:
            writer.write("inner")
            return str.__len__(self)

    with writing(pipe.write_end) as writer:
        writer.write("first")
        writer.write(Logging("outer"))
        assert "outer" in pipe.read_lines(4)


def test_without_a_descriptor_lines_are_written_at_once() -> None:
    stream = io.StringIO()
    writer = LogWriter(stream, str)
    writer.write("one")
    assert stream.getvalue() == "one\n"
    assert writer.flush(0)
    stream.close()
    writer.write("two")
    assert writer.dropped == 1


def test_a_closed_stream_has_no_descriptor() -> None:
    stream: TextIO = open(os.devnull, "w")  # noqa: SIM115
    stream.close()
    writer = LogWriter(stream, str)
    writer.write("one")
    assert writer.dropped == 1
