"""`lab bench`: run a paper's races, print their ratios, and (maintainers) record them."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import Progress as Bar
from rich.table import Table

from lab import ledger, rooms
from lab.catalog import Card
from lab.commands.terminal import shown_on
from lab.ledger import Measurement
from lab.provenance import Record, opened_files


def bench_paper(card: Card, out: Console, *, quick: bool, record: bool) -> None:
    """Run a paper's races and print their ratios; `record` writes them beside its studies."""
    for key, race in rooms.races(card).items():
        start = time.perf_counter()
        with Bar(console=out, transient=True) as bar, opened_files() as opened:
            answer = race(quick=quick, progress=shown_on(bar, f"{card.slug}: {race.title}"))
        table = Table(title=f"{card.short}: {race.title}", pad_edge=False)
        for column in ("race", "method", "peer", "ratio (median)", "min", "max", "aim"):
            table.add_column(column, no_wrap=column == "race")
        for row in answer["rows"]:
            ratio = row["ratio"]
            table.add_row(
                row["key"],
                row["method"],
                row["peer"],
                f"{ratio['median']:.1f}×",
                f"{ratio['min']:.1f}",
                f"{ratio['max']:.1f}",
                f"≥ {row['target']:g}×",
            )
        out.print(table)
        for name, value in answer.items():
            if name != "rows":
                out.print(f"{name}: {value}", highlight=False)
        if record:
            stamp = Record.now(race, time.perf_counter() - start, opened=opened)
            ledger.record(card.slug, {key: Measurement(record=stamp, replication=None, race=answer)})
