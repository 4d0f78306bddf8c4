"""`lab train`: run a recipe in legs, and put what it made among the assets."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Bar

from lab import assets, paths
from lab.assets import AssetCard, AssetError, Maker
from lab.commands.terminal import say
from lab.experiment import Progress, Stopped
from lab.provenance import opened_files

if TYPE_CHECKING:
    from lab.train import Recipe

LINE_SECONDS = 30.0  # between two lines where there is no terminal to draw a bar on


def train_asset(
    name: str, out: Console, *, resume: bool, fresh: bool, minutes: float | None, record: bool
) -> AssetCard | None:
    """Run the recipe `name` in the reader's folder; its card when it is finished, None when the leg's minutes ended.

    `record` ships the result (data/checkpoints) instead of keeping it for the reader. Raises Stopped after Ctrl-C, when
    the state is saved; AssetError, TrainingError and StateError as `lab.assets` and `lab.train` do.
    """
    from lab.train import train

    recipe = assets.recipe(name)
    known = assets.register().get(name)
    if known is None and recipe.name in assets.register():
        raise AssetError(f"{name[:80]!r} has the name of the lab's own {recipe.name}; give your recipe another one")
    if record and known is None:
        raise AssetError(
            f"only what lab/assets.toml registers is shipped, and {name[:80]!r} is not; leave out --record"
        )
    assets.check_writable(recipe)
    root = paths.writable(assets.shipped()) if record else assets.own()
    if isinstance(recipe, Maker):
        with _stoppable(), _watched(out, recipe.name) as progress:
            title = known.title if known else recipe.name
            return assets.make(recipe, root, title=title, command=f"lab train {name}", progress=progress)
    folder, main = state_folder(recipe), os.environ.get("RANK", "0") == "0"
    try:
        watched = _watched(out if main else Console(quiet=True), recipe.name)
        with _stoppable(), opened_files() as opened, watched as progress:
            training = train(recipe, folder=folder, resume=resume, fresh=fresh, minutes=minutes, progress=progress)
    except Stopped:
        _leave_process_group()
        raise
    card = None
    if main and training.finished:
        title = known.title if known else recipe.name
        card = assets.write(recipe, training, root, title=title, command=f"lab train {name}", opened=opened)
        shutil.rmtree(folder, ignore_errors=True)
    elif main:
        say(out, f"{recipe.name}: the leg ends at step {training.step:,} of {recipe.steps:,}; go on with --resume")
    _leave_process_group()
    return card


def _leave_process_group() -> None:
    """Under torchrun: leave the group of processes together, when the first one has written what there is to write.

    What still holds on to the group is collected first: its threads must have ended before the process does.
    """
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        gc.collect()
        distributed.destroy_process_group()


def state_folder(recipe: Recipe) -> Path:
    """Where a training under way keeps its state."""
    return paths.user_folder("training", recipe.name)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Ctrl-C and a polite kill set a flag that ends the training between two steps, with its state saved."""
    _stop.clear()
    before = {number: signal.signal(number, _on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_stop: list[int] = []


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _stop:  # asked twice: whatever takes so long is not a step
        raise KeyboardInterrupt
    _stop.append(number)


@contextmanager
def _watched(out: Console, name: str) -> Iterator[Progress]:
    """A progress callback: a bar on a terminal, else a line now and then; it raises Stopped once the flag is set."""
    bar = Bar(console=out, transient=True, disable=not out.is_terminal)
    task = bar.add_task(name, total=1.0)
    told = -LINE_SECONDS

    def progress(fraction: float, note: str = "", partial: Any | None = None) -> None:
        nonlocal told
        bar.update(task, completed=fraction, description=escape(f"{name}: {note}"))
        if not out.is_terminal and time.monotonic() - told > LINE_SECONDS:
            told = time.monotonic()
            say(out, f"{name}: {note}")
        if _stop:
            raise Stopped

    with bar:
        yield progress


def print_card(card: AssetCard, folder: Path, out: Console) -> None:
    """What a training ended in."""
    cost = f"{card.steps:,} steps in {card.minutes:.1f} minutes" if card.steps else f"{card.minutes:.1f} minutes"
    say(out, f"{card.name}: {cost}; {numbers(card.metrics)}")
    say(out, f"It lies in {folder}")


def numbers(metrics: Mapping[str, float]) -> str:
    """An asset's final metrics in one line."""
    return ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in metrics.items()) or "no metrics"
