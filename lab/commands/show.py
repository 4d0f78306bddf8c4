"""`lab show`: one paper, its idea and every claim beside what the lab measured."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab import ledger
from lab.catalog import Card

_VERDICT_STYLE = {"shown": "green", "direction only": "cyan", "not shown": "yellow", "opposite": "red"}


def print_paper(card: Card, out: Console, as_json: bool) -> None:
    """The card as text with a table of its claims, or as JSON."""
    lines = ledger.standings(card)
    if as_json:
        print(json.dumps(_card_json(card, lines), ensure_ascii=False, indent=1))
        return
    out.print(Text(card.title, style="bold"))
    where = " · ".join(part for part in (", ".join(card.authors), str(card.year), card.venue, card.link) if part)
    out.print(Text(where, style="dim"))
    out.print()
    out.print(Text(card.idea))
    for note in card.notes:
        out.print(Text(f"· {note}", style="dim"))
    if not lines:
        out.print(Text("\nNo claims yet: the room is planned.", style="dim"))
        return
    table = Table(pad_edge=False, show_lines=True)
    for column in ("verdict", "claim", "rule", "lab (95 %)", "n"):
        table.add_column(column)
    for line in lines:
        verdict = Text(line.ours.verdict, style=_VERDICT_STYLE.get(line.ours.verdict, "dim"))
        stale = f"\n({line.stale})" if line.stale else ""
        table.add_row(
            verdict, line.claim.paper + stale, str(line.claim.rule), line.ours.text(line.claim), str(line.ours.n)
        )
    out.print(table)


def _card_json(card: Card, lines: list[Any]) -> dict[str, Any]:
    claims = [
        {
            "key": line.claim.key,
            "paper": line.claim.paper,
            "figure": line.claim.figure,
            "where": line.claim.where,
            "rule": str(line.claim.rule),
            "unit": line.claim.unit,
            "n": line.ours.n,
            "lab": line.ours.estimate,
            "interval": list(line.ours.interval) if line.ours.interval else None,
            "verdict": line.ours.verdict,
            "reason": line.ours.reason,
            "stale": line.stale,
        }
        for line in lines
    ]
    identity = card.model_dump(mode="json", exclude={"claims", "tour"})
    return identity | {"status": card.status, "claims": claims}
