"""`lab measure` and `lab bench`: run a paper's studies and races, print them, and (maintainers) record them."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import Progress as Bar
from rich.table import Table

from lab import ledger, paths, results, rooms
from lab.catalog import Card
from lab.engine import Row
from lab.experiment import Progress, Study
from lab.ledger import Measurement
from lab.provenance import Record


def measure_paper(
    card: Card, out: Console, *, seeds: int, jobs: int, only: str, fresh: bool, tune: bool, record: bool
) -> None:
    """Measure a paper's studies (and record its shipped results); see `lab measure --help` for the arguments."""
    studies = rooms.studies(card)
    known = set(studies) | {experiment.key for experiment, _ in rooms.recorded_configs(card)}
    if only and only not in known:
        raise rooms.NotReady(f"{card.slug} has no study {only!r}; it has {', '.join(sorted(known))}")
    if record:
        paths.writable(paths.shared("data") / "ledger")
    for key, study in studies.items():
        if only in ("", key):
            measured = _measure_study(study, out, seeds, jobs, fresh, tune)
            if record:
                ledger.record(card.slug, {key: measured})
    if record:
        _record_results(card, out, only, fresh)
    print_standings(card, out)


def _measure_study(study: Study, out: Console, seeds: int, jobs: int, fresh: bool, tune: bool) -> Measurement:
    wanted = study.seeds[:seeds] if seeds else study.seeds
    with Bar(console=out, transient=True) as bar:
        if tune and study.tune is not None:
            ledger.tune(study, _shown_on(bar, f"{study.slug}/{study.key}: tuning"), jobs)
        task = bar.add_task(f"{study.slug}/{study.key}", total=len(wanted))
        rows: list[Row] = []
        for row in ledger.measure(study, wanted, jobs, fresh):
            rows.append(row)
            bar.advance(task)
    rows.sort(key=lambda row: row.seed)
    stamp = Record.now(study.slug, study.key, sum(row.seconds for row in rows)).made_on(rows)
    kept = tuple({"seed": row.seed, "values": row.values, "seconds": row.seconds} for row in rows)
    tuning = ledger.last_tuning(study) if study.tune is not None else None
    return Measurement(record=stamp, replication=study.replication, rows=kept, tuning=tuning)


def _record_results(card: Card, out: Console, only: str, fresh: bool) -> None:
    for experiment, config in rooms.recorded_configs(card):
        folder = results.shipped_folder(experiment, config)
        if only not in ("", experiment.key):
            continue
        if not fresh and (folder / "record.json").exists() and not results.load(folder, experiment.result)[1].stale:
            continue
        with Bar(console=out, transient=True) as bar:
            advance = _shown_on(bar, f"{card.slug}/{experiment.key}: recording")
            results.run_and_store(experiment, config, progress=advance, ship=True)


def _shown_on(bar: Bar, name: str) -> Progress:
    task = bar.add_task(name, total=1.0)

    def advance(fraction: float, note: str = "", partial: Any | None = None) -> None:
        bar.update(task, completed=fraction, description=f"{name} {note}")

    return advance


def print_standings(card: Card, out: Console) -> None:
    """The verdicts, ours beside the reader's."""
    from lab.cli import estimate_text

    table = Table(title=card.short, pad_edge=False)
    for column in ("claim", "rule", "recorded", "verdict", "yours", "your verdict"):
        table.add_column(column, no_wrap=column == "claim")
    for line in ledger.standings(card):
        yours = line.yours
        mine = "–" if yours is None or yours.estimate is None else f"{yours.estimate:.3g} (n={yours.n})"
        table.add_row(
            line.claim.key,
            str(line.claim.rule).partition(":")[0],
            estimate_text(line),
            line.ours.verdict,
            mine,
            yours.verdict if yours else "–",
        )
    out.print(table)


def bench_paper(card: Card, out: Console, *, quick: bool, record: bool) -> None:
    """Run a paper's races and print their ratios; `record` writes them beside its studies."""
    for key, race in rooms.races(card).items():
        start = time.perf_counter()
        with Bar(console=out, transient=True) as bar:
            answer = dict(race.run(quick=quick, progress=_shown_on(bar, f"{card.slug}: {race.title}")))
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
            stamp = Record.now(card.slug, key, time.perf_counter() - start)
            ledger.record(card.slug, {key: Measurement(record=stamp, replication=None, race=answer)})
