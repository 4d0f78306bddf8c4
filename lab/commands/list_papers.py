"""`lab list`: the papers by theme, with what is ready and what is planned."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from lab import catalog


def print_papers(out: Console, as_json: bool) -> None:
    """The papers as a table, or as a list of JSON objects."""
    rows = [{"slug": c.slug, "theme": c.theme, "title": c.title, "status": c.status} for c in catalog.cards()]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    columns = ("paper", "slug", "theme", "status") if out.width >= 60 else ("paper", "slug", "status")
    for column in columns:
        table.add_column(column, no_wrap=column in ("slug", "status"), overflow="fold")
    for card in catalog.cards():
        cells = {"paper": f"{card.short} ({card.year})", "slug": card.slug, "theme": catalog.THEMES[card.theme]}
        cells["status"] = card.status
        table.add_row(*(cells[column] for column in columns), style="" if card.status == "ready" else "dim")
    out.print(table)
