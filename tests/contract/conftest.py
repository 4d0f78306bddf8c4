"""What the contract's tests make small that has no knob: the text that stdlib-gpt is calibrated and measured on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.quantization import tasks
from lab.quantization.tasks import StdlibGPT


@pytest.fixture(autouse=True, scope="session")
def little_text() -> Iterator[None]:
    """8 windows of 64 tokens calibrate, 8 stretches are measured on, wherever a task is made with its defaults."""
    small = StdlibGPT(count=8, length=64, stretches=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StdlibGPT.__init__, "__defaults__", ("ledger", 0, small.count, small.length, small.stretches))
        patch.setitem(tasks.TASKS, "stdlib-gpt", small)
        yield
