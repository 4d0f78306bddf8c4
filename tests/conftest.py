"""What all tests share: a throw-away user folder, one browser, one running dashboard; and seconds per room at the end."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import screenshots

REQUIRE_ALL = os.environ.get("LAB_REQUIRE_ALL") == "1"
_seconds: dict[str, float] = collections.defaultdict(float)


def require(present: Any, reason: str) -> None:
    """Skip with a reason where something is missing; fail instead under LAB_REQUIRE_ALL=1."""
    if not present:
        (pytest.fail if REQUIRE_ALL else pytest.skip)(reason)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test writes to a user folder of its own."""
    home = tmp_path / "home"
    monkeypatch.setenv("LAB_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base address of a running dashboard."""
    with screenshots.dashboard(LAB_HOME=str(tmp_path_factory.mktemp("home")), OMP_NUM_THREADS="1") as address:
        yield address


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The system's Chromium, driven by playwright."""
    path = screenshots.chromium()
    require(path, "no Chromium found; install it to run the browser tests")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=screenshots.QUIET)
        yield browser
        browser.close()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    parts = report.nodeid.split("::")[0].split("/")
    room = "/".join(parts[1:-1]) or parts[-1]
    _seconds[room] += report.duration


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section("seconds per room")
    for room, seconds in sorted(_seconds.items(), key=lambda item: -item[1]):
        terminalreporter.write_line(f"{seconds:7.1f}  {room}")
