"""What several commands print with: a plain line, and a progress callback drawn as a bar."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import Progress as Bar

from lab.experiment import Progress


def say(out: Console, text: str) -> None:
    """A line as it is: paths may hold what rich takes for markup."""
    out.print(text, soft_wrap=True, markup=False, highlight=False)


def shown_on(bar: Bar, name: str) -> Progress:
    """A progress callback that moves a new task of `bar`."""
    task = bar.add_task(name, total=1.0)

    def advance(fraction: float, note: str = "", partial: Any | None = None) -> None:
        bar.update(task, completed=fraction, description=f"{name} {note}")

    return advance
