"""`lab measure`: run a paper's studies, print its verdicts, and (maintainers) record both studies and results."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress as Bar
from rich.table import Table

from lab import ledger, paths, results, rooms
from lab.catalog import Card
from lab.commands.terminal import shown_on
from lab.engine import Row
from lab.experiment import Study
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
        paths.writable(card.record.parent)
    for key, study in studies.items():
        if only in ("", key):
            if unknown := ledger.unknown_columns(card, study):
                raise rooms.NotReady(f"the card of {card.slug} judges {unknown[0]!r}, which {key} does not measure")
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
            ledger.tune(study, shown_on(bar, f"{study.slug}/{study.key}: tuning"), jobs)
        task = bar.add_task(f"{study.slug}/{study.key}", total=len(wanted))
        rows: list[Row] = []
        for row in ledger.measure(study, wanted, jobs, fresh):
            rows.append(row)
            bar.advance(task)
    rows.sort(key=lambda row: row.seed)
    opened = {name: checksum for row in rows for name, checksum in row.opened.items()}
    stamp = Record.now(study, sum(row.seconds for row in rows), opened=opened).made_on(rows)
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
            advance = shown_on(bar, f"{card.slug}/{experiment.key}: recording")
            results.run_and_store(experiment, config, progress=advance, ship=True)


def print_standings(card: Card, out: Console) -> None:
    """The verdicts, ours beside the reader's."""
    table = Table(title=card.short, pad_edge=False)
    for column in ("claim", "rule", "recorded", "verdict", "yours", "your verdict"):
        table.add_column(column, no_wrap=column == "claim")
    for line in ledger.standings(card):
        yours = line.yours
        mine = "–" if yours is None or yours.estimate is None else f"{yours.estimate:.3g} (n={yours.n})"
        table.add_row(
            line.claim.key,
            str(line.claim.rule).partition(":")[0],
            line.ours.text(line.claim),
            line.ours.verdict,
            mine,
            yours.verdict if yours else "–",
        )
    out.print(table)
