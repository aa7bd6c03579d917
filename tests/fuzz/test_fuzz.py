"""A short run of each target, the same each time; `make fuzz` makes the long ones."""

from __future__ import annotations

from itertools import repeat as forever
from pathlib import Path

import pytest

from tests.fuzz import runner, targets
from tests.fuzz.targets import TARGETS, WITH_QUINN, Function, generated, load, repeat, run, save

CORPUS = Path(__file__).parent / "corpus"
INPUTS = {
    "frames-server": 300,
    "frames-client": 300,
    "tls-hello": 100,
    "tls-server": 30,
    "tls-client": 30,
    "sessions": 12,
    # Each is a whole connection, and of aioquic few are.
    "parameters-server-quinn": 50,
    "parameters-client-quinn": 50,
}
"""Some tenths of a second each."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.quinn) if n in WITH_QUINN else n for n in TARGETS],
)
def test_nothing_is_found(name: str) -> None:
    count = INPUTS.get(name) or INPUTS.get(name.removesuffix("-quinn"), 500)
    report = run(name, generated("test", name), count=count)
    assert {found.text for found in report.found.values()} == set()


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_inputs_that_once_found_something_find_nothing(path: Path) -> None:
    assert repeat(path.name.partition(".")[0], load(path.read_bytes())) == ""


# The harness itself.


def fails(data: bytes) -> None:
    if data[0] < 16:
        raise KeyError("an error that answers nothing")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "broken", lambda: Function(fails))


@pytest.mark.usefixtures("broken")
def test_what_is_found_is_saved_and_found_again(tmp_path: Path) -> None:
    report = run("broken", generated(1, "broken"), count=500, folder=tmp_path)
    [found] = report.found.values()
    assert "escape: KeyError" in found.text
    assert found.count > 1
    assert found.path is not None
    [data] = load(found.path.read_bytes())
    assert data[0] < 16
    assert runner.main(["--replay", str(found.path)]) == 1
    harmless = found.path.rename(tmp_path / "pings.other")
    assert runner.main(["--replay", str(harmless)]) == 0


@pytest.mark.usefixtures("broken")
def test_an_input_that_takes_long_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "SLOW", 0.0)
    report = run("broken", forever(b"\xff"), count=1)
    [found] = report.found.values()
    assert found.text.startswith("slow:")


def test_inputs_are_the_same_for_the_same_seed() -> None:
    first, again, other = (generated(seed, "pings") for seed in (1, 1, 2))
    made = [next(first) for _ in range(10)]
    assert made == [next(again) for _ in range(10)]
    assert made != [next(other) for _ in range(10)]
    assert load(save(made)) == made
