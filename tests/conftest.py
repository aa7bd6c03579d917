from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
REQUIRE_BROWSER = "PINGPONG_TEST_REQUIRE_BROWSER"

# The machine is shared by as many tests as it has cores: how long one example takes says nothing.
# In CI hypothesis takes a profile of its own, which also draws the same examples every time.
hypothesis.settings.register_profile("shared-machine", deadline=None)
if "CI" not in os.environ:
    hypothesis.settings.load_profile("shared-machine")


def pytest_configure() -> None:
    # What the person at this shell has set for pingpong is nothing to the tests.
    for name in list(os.environ):
        if name.startswith("PINGPONG_") and not name.startswith("PINGPONG_TEST_"):
            del os.environ[name]


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The Chromium of this machine; the test is skipped where there is none."""
    for name in BROWSERS:
        if found := shutil.which(name):
            return Path(found)
    pytest.skip(f"no Chromium on the PATH (looked for {', '.join(BROWSERS)})")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    skipped = report.skipped and not hasattr(report, "wasxfail")
    required = os.environ.get(REQUIRE_BROWSER) == "1" and item.get_closest_marker("browser")
    if skipped and required:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        report.outcome = "failed"
        report.longrepr = f"{REQUIRE_BROWSER}=1, but {reason}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.getreports("skipped")
    without = sum(1 for report in skipped if "browser" in report.keywords)
    if without:
        terminalreporter.section("BROWSER TESTS DID NOT RUN", red=True, bold=True)
        terminalreporter.line(f"{without} skipped; they need a Chromium on the PATH", red=True)
