"""A reader who presses Stop."""

from __future__ import annotations

from typing import Any

from lab.experiment import Progress, Stopped


def stopper(after: int) -> Progress:
    """A progress callback that stops the run when it is told of it the ``after``-th time."""
    calls = [0]

    def progress(fraction: float, note: str = "", partial: Any | None = None) -> None:
        assert 0 <= fraction <= 1
        calls[0] += 1
        if calls[0] >= after:
            raise Stopped

    return progress
