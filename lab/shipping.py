"""`lab train` and `lab assets`: run a recipe in legs, put what it made among the assets; list, verify and repair them."""

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
from rich.panel import Panel
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from lab import assets, paths
from lab.assets import AssetCard, AssetError, Maker
from lab.experiment import Progress, Stopped

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
        with _stoppable(), _watched(out if main else Console(quiet=True), recipe.name) as progress:
            training = train(recipe, folder=folder, resume=resume, fresh=fresh, minutes=minutes, progress=progress)
    except Stopped:
        _part()
        raise
    card = None
    if main and training.finished:
        title = known.title if known else recipe.name
        card = assets.write(recipe, training, root, title=title, command=f"lab train {name}")
        shutil.rmtree(folder, ignore_errors=True)
    elif main:
        say(out, f"{recipe.name}: the leg ends at step {training.step:,} of {recipe.steps:,}; go on with --resume")
    _part()
    return card


def _part() -> None:
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
    before = {number: signal.signal(number, _note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_stop: list[int] = []


def _note(number: int, frame: FrameType | None) -> None:
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


def say(out: Console, text: str) -> None:
    """A line as it is: paths may hold what rich takes for markup."""
    out.print(text, soft_wrap=True, markup=False, highlight=False)


def print_card(card: AssetCard, folder: Path, out: Console) -> None:
    """What a training ended in."""
    cost = f"{card.steps:,} steps in {card.minutes:.1f} minutes" if card.steps else f"{card.minutes:.1f} minutes"
    say(out, f"{card.name}: {cost}; {_numbers(card.metrics)}")
    say(out, f"It lies in {folder}")


def print_whole_card(name: str, out: Console) -> None:
    """Everything an asset's card says: what it is, what it saw, how its loss fell, what it reached, what it writes."""
    card, folder = assets.card(name), assets.folder(name)
    made = ", ".join(f"{key} {value}" for key, value in card.config.items())
    places = sorted({len(card.curve) * part // 8 for part in range(8)} | {len(card.curve) - 1}) if card.curve else []
    points = [card.curve[place] for place in places]
    trained = f"; {card.steps:,} steps of {card.batch}, seed {card.seed}" if card.steps else ""
    rows = {
        "what": card.title,
        "trained on": card.data,
        "licence": card.licence,
        "settings": made + trained,
        "cost": f"{card.minutes:.1f} minutes on {card.machine['processor']}, {card.machine['cores']} cores",
        "loss": " → ".join(f"{loss:.3g} ({step:,})" for step, loss in points),
        "reached": _numbers(card.metrics),
        "made by": card.command,
        "lies in": str(folder),
    }
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows.items():
        if text:
            table.add_row(label, Text(text))
    out.print(table)
    for sample in card.samples:
        out.print(Panel(Text(sample.strip()), expand=False))


def _numbers(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in metrics.items()) or "no metrics"


def print_assets(out: Console) -> bool:
    """A line for each asset: where it lies, its size, how it was trained, whether it is whole; True if all are."""
    table = Table(box=None, pad_edge=False)
    for column in ("asset", "MB", "trained", "state"):
        table.add_column(column)
    whole = True
    for name, entry in assets.register().items():
        found = assets.damage(name)
        size, trained = "", ""
        try:
            card, folder = assets.card(name), assets.folder(name)
            size = f"{sum(path.stat().st_size for path in folder.iterdir()) / 2**20:.1f}"
            trained = f"{card.minutes:.1f} min" + (f", {card.steps:,} steps" if card.steps else "")
        except AssetError:
            whole = False
        state = f"damaged: {found}" if found else "whole"
        if found and size:
            state += " (yours stands in)"
        table.add_row(f"{name}\n[dim]{escape(entry.title)}[/dim]", size, trained, Text(state))
    out.print(table)
    return whole


def repair(out: Console) -> None:
    """Bring back every damaged asset: from the clone's last commit, else by training it again for the reader.

    It can be stopped and repeated: files are replaced whole, and a training goes on from its state.
    """
    for name in assets.register():
        found = assets.damage(name)
        if not found:
            continue
        say(out, f"{name}: {found}")
        try:
            restored = assets.restore(name)
        except OSError as error:
            say(out, f"{name}: {assets.shipped()} cannot be written ({error.strerror})")
            restored = False
        if restored:
            say(out, f"{name}: restored from the last commit")
        elif not assets.damage(name, assets.own()):
            say(out, f"{name}: your own training stands in")
        else:
            say(out, f"{name}: no copy at hand; it is trained again, into your folder (Ctrl-C keeps its state)")
            card = train_asset(name, out, resume=True, fresh=False, minutes=None, record=False)
            if card is not None:
                print_card(card, assets.folder(name), out)
