"""What all tests share: a throw-away user folder, and an order in which two workers end at about the same time."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["booking"]
# In the order in which they are begun: the longest first.
LONGEST = (
    "browser/",
    "tests/test_train",
    "tests/test_wheel",
    "notebooks/",
    "tests/apps",
    "tests/test_assets",
    "tests/models",
)
REQUIRE_ALL = os.environ.get("LAB_REQUIRE_ALL") == "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers on two cores: a thread each, in all that they start as well


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


def pytest_configure(config: pytest.Config) -> None:
    """Doctests and notebooks write to a folder of their worker's."""
    home = tempfile.TemporaryDirectory(prefix="lab-home-", ignore_cleanup_errors=True)
    os.environ["LAB_HOME"] = home.name
    config.add_cleanup(home.cleanup)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: a worker that is done early finds short ones left."""
    items.sort(key=lambda item: next((at for at, name in enumerate(LONGEST) if name in item.nodeid), len(LONGEST)))
