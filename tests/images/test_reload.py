"""tools/reload.py, which runs the program in the images' target `dev`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.running import wait_until

pytestmark = pytest.mark.process

RELOAD = Path(__file__).parents[2] / "tools" / "reload.py"
PROGRAM = """\
import os, signal, sys, time
import part

def stop(number, frame):
    print("stopping", flush=True)
    if part.ENDS:
        sys.exit(part.STATUS)

signal.signal(signal.SIGTERM, stop)
print("started", part.NAME, os.getpid(), *sys.argv[1:], flush=True)
while True:
    time.sleep(60)
"""
PART = "NAME = {name!r}\nENDS = {ends}\nSTATUS = 0\n"


class Reloading:
    """The program, and what it and what it runs have said."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, RELOAD, folder, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def started(self) -> list[str]:
        """What the program said of each of its starts, without the word for it."""
        return [line.partition(" ")[2] for line in self.lines if line.startswith("started ")]

    def wait(self, count: int, containing: str) -> str:
        """Wait for so many lines that contain a text. Returns the last of them."""
        found: list[str] = []

        def come() -> bool:
            found[:] = [line for line in self.lines if containing in line]
            return len(found) >= count

        wait_until(come, lambda: f"{count} × {containing!r} in {self.lines}")
        return found[count - 1]

    def end(self) -> int:
        """Have it end. Returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(20)
        self._reader.join(20)
        return status


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def write(folder: Path, name: str, *, ends: bool = True) -> None:
    """Put another part in its place, as tar does: a new file under the old name."""
    new = folder / "part.new"
    new.write_text(PART.format(name=name, ends=ends))
    new.replace(folder / "part.py")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    write(tmp_path, "first")
    return tmp_path


@contextmanager
def reloading(folder: Path, *words: str) -> Iterator[Reloading]:
    one = Reloading(folder, sys.executable, str(folder / "program.py"), *words)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        for line in one.started():
            if is_there(pid := int(line.split()[1])):
                os.kill(pid, signal.SIGKILL)
        assert one.process.stdout is not None
        one.process.stdout.close()


def test_a_changed_file_is_run_in_the_same_container_with_the_same_words(folder: Path) -> None:
    with reloading(folder, "serve", "--x") as one:
        first = one.wait(1, "started first").split()
        write(folder, "second")
        second = one.wait(1, "started second").split()
        assert first[3:] == second[3:] == ["serve", "--x"]
        assert first[2] != second[2]
        assert not is_there(int(first[2]))
        one.wait(1, "reload: part.py changed")
        assert one.process.poll() is None


def test_many_files_at_once_are_one_start(folder: Path) -> None:
    with reloading(folder) as one:
        one.wait(1, "started")
        for number in range(50):
            (folder / f"other{number}.py").write_text("")
        write(folder, "second")
        one.wait(1, "started second")
        write(folder, "third")
        one.wait(1, "started third")
        assert [line.split()[0] for line in one.started()] == ["first", "second", "third"]


def test_what_is_no_python_file_changes_nothing(folder: Path) -> None:
    with reloading(folder) as one:
        one.wait(1, "started")
        (folder / "notes.txt").write_text("")
        cache = folder / "__pycache__"
        cache.mkdir()
        (cache / "part.cpython-313.pyc").write_bytes(b"")
        write(folder, "second")
        one.wait(1, "started second")
        assert "notes.txt" not in one.wait(1, "reload: ")
        assert len(one.started()) == 2


def test_a_mistake_in_the_syntax_is_waited_out(folder: Path) -> None:
    with reloading(folder) as one:
        one.wait(1, "started first")
        (folder / "part.py").write_text("NAME =\n")
        one.wait(1, "exited with status 1; it restarts when a file changes")
        assert one.wait(1, "SyntaxError")
        assert one.process.poll() is None
        write(folder, "mended")
        one.wait(1, "started mended")
        assert one.end() == 0


def test_sigterm_ends_the_program_with_its_own_status(folder: Path) -> None:
    (folder / "part.py").write_text("NAME = 'first'\nENDS = True\nSTATUS = 7\n")
    with reloading(folder) as one:
        pid = int(one.wait(1, "started").split()[2])
        assert one.end() == 7
        assert one.lines.count("stopping") == 1
        assert not is_there(pid)


def test_a_program_that_ends_in_its_own_time_is_waited_for_and_hears_a_second_sigterm(
    folder: Path,
) -> None:
    write(folder, "first", ends=False)
    with reloading(folder) as one:
        pid = int(one.wait(1, "started").split()[2])
        one.process.send_signal(signal.SIGTERM)
        one.wait(1, "stopping")
        one.process.send_signal(signal.SIGTERM)
        one.wait(2, "stopping")
        assert one.process.poll() is None
        os.kill(pid, signal.SIGKILL)
        assert one.process.wait(20) == 128 + signal.SIGKILL


def test_a_program_that_does_not_end_does_not_hold_up_the_next(folder: Path) -> None:
    write(folder, "first", ends=False)
    with reloading(folder) as one:
        pid = int(one.wait(1, "started first").split()[2])
        write(folder, "second")
        one.wait(1, "started second")
        assert one.lines.count("stopping") == 2  # asked, asked again, killed
        assert not is_there(pid)


@pytest.mark.parametrize("words", [[], ["."], ["no-such-folder", "true"]])
def test_wrong_words_are_answered_with_what_to_say(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, RELOAD, *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "reload: name a folder to watch, and then the command\n"
