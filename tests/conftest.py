from __future__ import annotations

import gc
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest
import structlog

from pingpong.webtransport.quic import engines

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MEANT_FOR_TESTS = ("PINGPONG_TEST_", "PINGPONG_E2E_", "PINGPONG_KIND_")
REQUIRE_ALL = "PINGPONG_TEST_REQUIRE_ALL"
"""1: a test that the machine lacks something for has failed."""
WITHOUT = "PINGPONG_TEST_WITHOUT"
"""Markers, with blanks between, whose tests may be skipped all the same."""
NEEDS = {
    "browser": "a Chromium on the PATH",
    "network": "root, /dev/net/tun, and ip(8) and ping(8) on the PATH",
    "quinn": "the QUIC engine quinn, which `make engine` builds",
    "promtool": "promtool, of Prometheus, on the PATH",
}
"""Markers of tests that need of a machine what not every one has; they are skipped without it."""
STARTS_PROCESSES = NEEDS.keys() - {"quinn"}
ALL_START_PROCESSES = ("browser", "e2e", "integration", "interop", "network")
"""Folders whose tests have the marker `process`; elsewhere a test or a module has it itself."""

# The machine is shared by as many tests as it has cores: how long one example takes says nothing.
# In CI hypothesis takes a profile of its own, which also draws the same examples every time.
hypothesis.settings.register_profile("shared-machine", deadline=None)
if "CI" not in os.environ:
    hypothesis.settings.load_profile("shared-machine")


def pytest_configure() -> None:
    # What the person at this shell has set for pingpong is nothing to the tests.
    for name in list(os.environ):
        if name.startswith("PINGPONG_") and not name.startswith(MEANT_FOR_TESTS):
            del os.environ[name]


@pytest.hookimpl(tryfirst=True)  # before -m chooses by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in ALL_START_PROCESSES or any(map(item.get_closest_marker, STARTS_PROCESSES)):
            item.add_marker("process")


def pytest_collection_finish() -> None:
    """Take all that collecting has made out of the sight of the garbage collector.

    Tests that show that nothing is left behind collect garbage often, a tenth of a second each.
    """
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("quinn") is not None and not engines.is_installed("quinn"):
        pytest.skip("the QUIC engine quinn is not installed: make engine")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Only a test that is marked so may start a process."""
    if item.get_closest_marker("process") is not None:
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", _refuse_process)
        return (yield)


def _refuse_process(*words: object, **options: object) -> NoReturn:
    # What the test itself expects of the process must not hide this.
    pytest.fail(f"mark this test with `process`: it starts {words[1:]}")


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    """Takes back what a test configures of the logs: its level would hide events of the next."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    if structlog.is_configured():
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)
        sys.excepthook = sys.__excepthook__
        logging.getLogger("quic").setLevel(logging.NOTSET)
        structlog.reset_defaults()


@pytest.fixture
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The QUIC engine of all that is ours, here and in processes: see tests/support/engines.py."""
    name: str = request.param
    monkeypatch.setenv("PINGPONG_ENGINE", name)
    monkeypatch.setattr(engines, "automatic", lambda *, server: name)
    return name


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The Chromium of this machine; the test is skipped where there is none."""
    for name in BROWSERS:
        if found := shutil.which(name):
            return Path(found)
    pytest.skip(f"no Chromium on the PATH (looked for {', '.join(BROWSERS)})")


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus's tool; the test is skipped where there is none."""
    if found := shutil.which("promtool"):
        return Path(found)
    pytest.skip("no promtool on the PATH")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    skipped = report.skipped and not hasattr(report, "wasxfail")
    required = NEEDS.keys() - set(os.environ.get(WITHOUT, "").split())
    needs = any(item.get_closest_marker(marker) for marker in required)
    if skipped and needs and os.environ.get(REQUIRE_ALL) == "1":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        report.outcome = "failed"
        report.longrepr = f"{REQUIRE_ALL}=1, but {reason}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.getreports("skipped")
    for marker, needs in NEEDS.items():
        without = sum(1 for report in skipped if marker in report.keywords)
        if without:
            terminalreporter.section(f"{marker.upper()} TESTS DID NOT RUN", red=True, bold=True)
            terminalreporter.line(f"{without} skipped; they need {needs}", red=True)
