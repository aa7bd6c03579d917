from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path

import pytest

from pingpong.settings import files
from pingpong.settings.files import MAX_SIZE, WatchedFile, WatchedFiles
from tests.support.held import held


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_bytes(b"one")
    return path


def read(path: Path) -> WatchedFile:
    file = WatchedFile(path)
    file.read()
    return file


def replace(path: Path, data: bytes) -> None:
    new = path.with_name("new")
    new.write_bytes(data)
    new.rename(path)


class Secret:
    """A volume as kubelet makes it: links to ..data, a link that is swapped."""

    def __init__(self, folder: Path, **contents: bytes) -> None:
        self.folder = folder
        self.version = 0
        self.swap(**contents)
        for name in contents:
            (folder / name).symlink_to(f"..data/{name}")

    def swap(self, **contents: bytes) -> None:
        self.version += 1
        version = self.folder / f"..{self.version}"
        version.mkdir()
        for name, data in contents.items():
            (version / name).write_bytes(data)
        link = self.folder / "..data_tmp"
        link.symlink_to(version.name)
        link.rename(self.folder / "..data")


def test_before_it_is_read_it_has_changed(path: Path) -> None:
    file = WatchedFile(path)
    assert file.changed()
    assert file.changed()
    assert file.read() == b"one"
    assert not file.changed()


def test_a_file_that_takes_its_place_is_a_change(path: Path) -> None:
    file = read(path)
    replace(path, b"two")
    assert file.changed()
    assert file.changed(), "until it is read"
    assert file.read() == b"two"
    assert not file.changed()


def test_a_file_that_takes_its_place_with_the_same_content_is_none(path: Path) -> None:
    file = read(path)
    replace(path, b"one")
    assert not file.changed()


def test_a_rewrite_in_place_of_the_same_size_and_time_is_a_change(path: Path) -> None:
    file = read(path)
    status = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.changed()
    assert file.read() == b"two"


def test_a_rewrite_within_one_tick_of_the_file_systems_clock_is_a_change(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Times stand still: nothing of a file's status tells that it was written again.
    monkeypatch.setattr(files, "_status", lambda status: (status.st_ino, status.st_size))
    file = read(path)
    assert not file.changed()
    path.write_bytes(b"two")
    assert file.changed()


def test_a_file_that_has_rested_is_not_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = path.stat().st_ctime_ns + 3_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: later)
    file = read(path)
    opened: list[object] = []
    real = os.open

    def counting(path: Path, flags: int) -> int:
        opened.append(path)
        return real(path, flags)

    monkeypatch.setattr(os, "open", counting)
    assert not file.changed()
    assert opened == []
    path.chmod(0o400)
    assert not file.changed()
    assert len(opened) == 1


def test_kubernetes_swap_of_links_is_a_change(tmp_path: Path) -> None:
    secret = Secret(tmp_path, token=b"one")
    file = read(tmp_path / "token")
    secret.swap(token=b"one")
    assert not file.changed()
    secret.swap(token=b"two")
    assert file.changed()
    assert file.read() == b"two"


def test_a_file_that_vanishes_for_a_moment_is_no_news(path: Path) -> None:
    file = read(path)
    path.unlink()
    assert not file.changed()
    path.write_bytes(b"one")
    assert not file.changed()
    path.unlink()
    assert not file.changed(), "it has been there in between"


def test_a_file_that_stays_away_is_told_and_comes_back(path: Path) -> None:
    file = read(path)
    path.unlink()
    assert [file.changed() for _ in range(3)] == [False, True, True]
    with pytest.raises(FileNotFoundError):
        file.read()
    assert file.changed(), "it is still not there"
    path.write_bytes(b"one")
    assert not file.changed(), "it is what was read last"
    path.write_bytes(b"two")
    assert file.changed()


def test_a_folder_that_takes_its_place_is_told(path: Path) -> None:
    file = read(path)
    path.unlink()
    path.mkdir()
    assert [file.changed() for _ in range(2)] == [False, True]
    with pytest.raises(OSError, match="regular file"):
        file.read()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "pipe")
    with pytest.raises(OSError, match="is not a regular file"):
        WatchedFile(tmp_path / "pipe").read()


def test_a_socket_cannot_be_read(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        with pytest.raises(OSError):  # noqa: PT011
            WatchedFile(tmp_path / "socket").read()


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * MAX_SIZE)
    assert len(WatchedFile(path).read()) == MAX_SIZE
    path.write_bytes(b"x" * (MAX_SIZE + 1))
    with pytest.raises(OSError, match="larger than"):
        WatchedFile(path).read()


def test_files_that_belong_together_change_together(tmp_path: Path) -> None:
    secret = Secret(tmp_path, cert=b"c1", key=b"k1")
    pair = WatchedFiles(tmp_path / "cert", tmp_path / "key")
    assert pair.read() == (b"c1", b"k1")
    assert not pair.changed()
    secret.swap(cert=b"c1", key=b"k2")
    assert pair.changed()
    assert pair.read() == (b"c1", b"k2")
    assert not pair.changed()


@pytest.mark.parametrize("moment", range(1, 5))
def test_a_swap_amid_reading_never_gives_a_pair_of_two_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    secret = Secret(tmp_path, cert=b"c1", key=b"k1")
    pair = WatchedFiles(tmp_path / "cert", tmp_path / "key")
    real = os.open
    opened = 0

    def swapping(path: Path, flags: int) -> int:
        nonlocal opened
        opened += 1
        if opened == moment:
            secret.swap(cert=b"c2", key=b"k2")
        return real(path, flags)

    monkeypatch.setattr(os, "open", swapping)
    assert pair.read() in [(b"c1", b"k1"), (b"c2", b"k2")]
    # What was read is what `changed` goes by: another reading gives the new pair at the latest.
    assert pair.read() == (b"c2", b"k2")
    assert not pair.changed()


def test_files_that_never_rest_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    real = os.open
    opened = 0

    def changing(path: Path, flags: int) -> int:
        nonlocal opened
        opened += 1
        path.write_bytes(str(opened).encode())
        return real(path, flags)

    monkeypatch.setattr(os, "open", changing)
    with pytest.raises(OSError, match="faster than it is read"):
        WatchedFile(path).read()
    assert opened < 20


def test_one_that_cannot_be_read_is_the_pairs_mistake(tmp_path: Path) -> None:
    (tmp_path / "cert").write_bytes(b"c1")
    pair = WatchedFiles(tmp_path / "cert", tmp_path / "key")
    with pytest.raises(FileNotFoundError) as raised:
        pair.read()
    assert raised.value.filename == str(tmp_path / "key")


def test_a_file_that_may_no_longer_be_read_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    file = read(path)
    monkeypatch.setattr(os, "open", refuse)
    path.chmod(0o400)
    assert [file.changed() for _ in range(2)] == [False, True]
    with pytest.raises(PermissionError):
        file.read()


def test_its_content_is_not_kept(path: Path) -> None:
    path.write_bytes(b"a secret of some length")
    file = read(path)
    kept = [each for each in held(file) if isinstance(each, bytes | bytearray)]
    assert [len(each) for each in kept] == [32]


def test_a_time_from_the_future_is_not_trusted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that was set back: the next write may get the same time again."""
    before = path.stat().st_ctime_ns - 3_600_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: before)
    monkeypatch.setattr(files, "_status", lambda status: (status.st_ino, status.st_size))
    file = read(path)
    path.write_bytes(b"two")
    assert file.changed()
