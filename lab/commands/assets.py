"""`lab assets`: list the trained models that the lab ships, print one's card, verify and repair them."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lab import assets
from lab.assets import AssetError
from lab.commands.terminal import say
from lab.commands.train import numbers, print_card, train_asset


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
        "reached": numbers(card.metrics),
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
