"""The ledger: measures what claims rest on, judges them by rule, keeps the records.

Verdicts are computed whenever they are read, never stored and never edited.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from lab import catalog, engine, paths
from lab.catalog import Card, Claim, Verdict
from lab.experiment import Progress, Race, Replication, Study
from lab.provenance import Declared, Record, code_of

VERDICTS: Mapping[Verdict, str] = {
    "shown": "the rule holds by its whole interval",
    "direction only": "the sign is right, but the interval touches the bound, or there are too few replicates",
    "not shown": "the interval spans zero, or the sign is unclear",
    "opposite": "the interval lies on the wrong side",
    "out of reach": "it takes human raters or billions of parameters; the claim says why",
    "not measured": "nothing is recorded yet",
}
MIN_REPLICATES = 5
MIN_REPLICATES_FAST = 8
FAST_SECONDS = 20.0
_STRENGTH = {"sampling": 0, "data": 1, "training": 2, None: 3}


class Measurement(BaseModel):
    """What is stored of one study: a record and a row of named numbers per seed; for a race, its whole answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    record: Record
    replication: str | None
    rows: tuple[dict[str, Any], ...] = ()
    race: dict[str, Any] | None = None
    tuning: dict[str, Any] | None = None


@dataclass(frozen=True)
class Judgement:
    """A claim's standing: how many replicates, the estimate, its 95 % interval, the verdict and why."""

    n: int
    estimate: float | None
    interval: tuple[float, float] | None
    verdict: Verdict
    reason: str = ""

    def text(self, claim: Claim) -> str:
        """The estimate with its unit and interval; an en dash where there is none."""
        if self.estimate is None:
            return "–"
        unit = "×" if claim.rule.name == "race" else f" {claim.unit}".rstrip()
        interval = f" [{self.interval[0]:.3g}, {self.interval[1]:.3g}]" if self.interval else ""
        return f"{self.estimate:.3g}{unit}{interval}"


@dataclass(frozen=True)
class Standing:
    """One line of the ledger."""

    card: Card
    claim: Claim
    ours: Judgement
    yours: Judgement | None
    record: Record | None

    @property
    def stale(self) -> str:
        """Why our number may be another one today; empty when it is not. Found out when asked: it reads much code."""
        return self.record.stale if self.record else ""


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % t interval of independent replicates; (mean, -inf, inf) for fewer than two.

    >>> t_interval([1.0, 2.0, 3.0])
    (2.0, -0.48..., 4.48...)
    """
    from scipy.special import stdtrit

    sample = np.asarray(values, dtype=float)
    mean = float(sample.mean())
    if len(sample) < 2:
        return mean, -math.inf, math.inf
    half = float(stdtrit(len(sample) - 1, 0.975) * sample.std(ddof=1) / math.sqrt(len(sample)))
    return mean, mean - half, mean + half


def judge(claim: Claim, measurement: Measurement | None) -> Judgement:
    """Apply a claim's rule to what was measured; what the lab cannot measure a reader may, if the claim has a rule for it."""
    rule = claim.rule
    if rule.name == "out_of_reach":
        if rule.yours is None or measurement is None:
            return Judgement(0, None, None, "out of reach", rule.why)
        return judge(claim.model_copy(update={"rule": rule.yours}), measurement)
    if measurement is None:
        return Judgement(0, None, None, "not measured", "nothing recorded yet")
    if rule.name == "race":
        return _judge_race(claim, measurement)
    rows = [row["values"] for row in measurement.rows]
    if rule.name == "holds":
        worst = float(np.max([row[claim.method] for row in rows]))
        kept = worst <= rule.tolerance  # false for NaN
        return Judgement(
            len(rows), worst, None, "shown" if kept else "not shown", "" if kept else "the bound is broken"
        )
    if rule.name == "ordered":
        steps = list(zip(rule.levels, rule.levels[1:], strict=False))
        parts = [_interval(claim, rows, better, worse) for worse, better in steps]
        estimate, low, high = min(parts, key=lambda part: part[1])
        verdict = _verdict_ordered(parts)
    else:
        estimate, low, high = _interval(claim, rows, claim.method, claim.baseline)
        bound = rule.margin if rule.name == "exceeds" else -rule.margin
        verdict = _verdict(estimate, low, high, bound, exceeds=rule.name == "exceeds")
    if verdict == "shown":
        verdict, reason = _enough(claim, measurement)
    else:
        reason = claim.why
    if not math.isfinite(low) or not math.isfinite(high):
        return Judgement(len(rows), estimate, None, "not shown", "one replicate has no interval")
    return Judgement(len(rows), estimate, (low, high), verdict, reason)


def _interval(claim: Claim, rows: list[dict[str, float]], better: str, worse: str) -> tuple[float, float, float]:
    """Paired difference (or log ratio, reported as a ratio minus 1) in the better direction."""
    sign = 1.0 if claim.better == "higher" else -1.0
    if claim.scale == "log":
        parts = t_interval([sign * (math.log(row[better]) - math.log(row[worse])) for row in rows])
        return tuple(math.expm1(part) for part in parts)  # type: ignore[return-value]
    return t_interval([sign * (row[better] - row[worse]) for row in rows])


def _verdict(estimate: float, low: float, high: float, bound: float, *, exceeds: bool) -> Verdict:
    if low > bound:
        return "shown"
    if high < min(bound, 0.0):
        return "opposite"
    right_sign = low > 0 if exceeds else estimate > bound
    return "direction only" if right_sign else "not shown"


def _verdict_ordered(parts: list[tuple[float, float, float]]) -> Verdict:
    if all(low > 0 for _, low, _ in parts):
        return "shown"
    if all(high < 0 for _, _, high in parts):
        return "opposite"
    return "direction only" if all(estimate > 0 and high > 0 for estimate, _, high in parts) else "not shown"


def _enough(claim: Claim, measurement: Measurement) -> tuple[Verdict, str]:
    """A rule that is met counts as shown only with enough replicates of the right kind."""
    seconds = float(np.median([row["seconds"] for row in measurement.rows]))
    needed = MIN_REPLICATES_FAST if seconds < FAST_SECONDS else MIN_REPLICATES
    if len(measurement.rows) < needed:
        return "direction only", f"{len(measurement.rows)} replicates of the {needed} needed"
    if _STRENGTH[measurement.replication] < _STRENGTH[claim.replication]:
        return (
            "direction only",
            f"the claim is about {claim.replication}, the study replicates {measurement.replication}",
        )
    return "shown", ""


def _judge_race(claim: Claim, measurement: Measurement) -> Judgement:
    rule = claim.rule
    assert rule.name == "race"
    rows = {row["key"]: row["ratio"] for row in (measurement.race or {}).get("rows", ())}
    missing = [key for key in rule.rows if key not in rows]
    if missing:
        return Judgement(0, None, None, "not measured", f"the record lacks {', '.join(missing)}")
    worst = min((rows[key] for key in rule.rows), key=lambda ratio: ratio["median"])
    low, high = worst["min"], worst["max"]
    verdict: Verdict = "not shown"
    if low >= rule.ratio:
        verdict = "shown"
    elif high < min(1, rule.ratio):  # an aim below 1 allows the method to be that much slower
        verdict = "opposite"
    elif low > 1:
        verdict = "direction only"
    return Judgement(len(rule.rows), worst["median"], (low, high), verdict, "" if verdict == "shown" else claim.why)


def shipped_path(slug: str) -> Path:
    """The shipped record of a paper."""
    return paths.record_file(slug)


def shipped(slug: str) -> dict[str, Measurement]:
    """Our measurements by study key; ValueError naming the file when it is damaged."""
    path = shipped_path(slug)
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {key: Measurement.model_validate(value) for key, value in content.items()}
    except (ValueError, ValidationError, AttributeError) as error:
        raise ValueError(f"the ledger record {path} is damaged ({error})") from error


def rows(slug: str, study: str) -> list[dict[str, float]]:
    """The named numbers of a shipped study, one dictionary per seed; empty where nothing is recorded."""
    measurement = shipped(slug).get(study)
    return [row["values"] for row in measurement.rows] if measurement else []


def own(slug: str) -> dict[str, Measurement]:
    """The reader's measurements by study key, made with today's code and assets; unreadable rows are left out."""
    try:
        root = paths.user_folder("ledger", slug)
    except OSError:
        return {}
    found: dict[str, Measurement] = {}
    for folder in sorted(path for path in root.glob("*/*") if path.is_dir()):
        rows = [row for row in _stored_rows(folder) if not row["record"].stale]
        if rows:
            records = [row.pop("record") for row in rows]
            replication = rows[0].pop("replication", None)
            rows = [{key: value for key, value in row.items() if key != "replication"} for row in rows]
            found[folder.parent.name] = Measurement(record=records[-1], replication=replication, rows=tuple(rows))
    return found


def _stored_rows(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stem.zfill(12)):
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            row["record"] = Record.model_validate(row["record"])
            row["values"] = {str(key): float(value) for key, value in row["values"].items()}
            yield {"seed": int(row["seed"]), "seconds": float(row["seconds"]), **row}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue


def own_folder(about: Declared) -> Path:
    """Where the reader's rows of a study lie that today's code has measured."""
    code = code_of(about.slug, about.kind, about.key) or "undeclared"
    return paths.user_folder("ledger", about.slug, about.key, code)


def keep(
    about: Declared, seed: int, values: Mapping[str, float], record: Record, *, replication: Replication | None
) -> None:
    """Store one measured row in the reader's folder."""
    content = {
        "seed": seed,
        "values": dict(values),
        "seconds": record.seconds,
        "replication": replication,
        "record": record.model_dump(),
    }
    paths.write_atomic(own_folder(about) / f"{seed}.json", json.dumps(content))


def measure(study: Study, seeds: Sequence[int], jobs: int = 1, fresh: bool = False) -> Iterator[engine.Row]:
    """Measure a study seed by seed; each row is stored in the reader's folder as it arrives, so Ctrl-C keeps it.

    Rows that the present code has already measured here, with the present assets, are handed over from the store unless
    `fresh`.
    """
    wanted = list(seeds) if study.replication else [0]
    stored = [] if fresh else [row for row in _stored_rows(own_folder(study)) if not row["record"].stale]
    known = {row["seed"]: row for row in stored}
    for seed in wanted:
        if seed in known:
            made = known[seed]["record"]
            yield engine.Row(
                seed, known[seed]["values"], known[seed]["seconds"], made.machine, made.versions, made.opened
            )
    for row in engine.replicate(study, [seed for seed in wanted if seed not in known], jobs):
        record = Record.now(study, row.seconds, opened=row.opened).made_on([row])
        keep(study, row.seed, row.values, record, replication=study.replication)
        yield row


def unknown_columns(card: Card, declared: Study | Race) -> list[str]:
    """The columns (of a race: rows) that a card's claims judge and a study does not have: a typo, found before measuring."""
    known = declared.rows if isinstance(declared, Race) else declared.columns
    judged: list[str] = []
    for rule, claim in ((claim.rule, claim) for claim in card.claims if claim.study == declared.key):
        if rule.name == "race":
            judged += rule.rows
        elif rule.name == "ordered":
            judged += rule.levels
        elif rule.name != "out_of_reach":
            judged += [name for name in (claim.method, claim.baseline) if name]
    return [name for name in dict.fromkeys(judged) if name not in known] if known else []


def tune(study: Study, progress: Progress, jobs: int = 1) -> dict[str, Any]:
    """Repeat the search behind a study's tuned knobs; kept in the reader's folder as soon as it is finished."""
    assert study.tune is not None
    path = paths.user_folder("ledger", study.slug, study.key) / "tuning.json"
    found = dict(study.tune(progress=progress, jobs=jobs))
    paths.write_atomic(path, json.dumps(found, indent=1))
    return found


def last_tuning(study: Study) -> dict[str, Any] | None:
    """The search as it was last repeated here, else as it was shipped; None where there is neither."""
    path = paths.user_folder("ledger", study.slug, study.key) / "tuning.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        pass  # never repeated here, or damaged
    kept = shipped(study.slug).get(study.key)
    return kept.tuning if kept else None


def record(slug: str, measurements: Mapping[str, Measurement]) -> Path:
    """Write measurements into the paper's shipped record, keeping the other studies' entries."""
    path = shipped_path(slug)
    paths.writable(path.parent)
    merged = shipped(slug) | dict(measurements)
    content = {key: merged[key].model_dump(mode="json") for key in sorted(merged)}
    paths.write_atomic(path, json.dumps(content, indent=1) + "\n")
    return path


def standings(card: Card) -> list[Standing]:
    """Every claim of a card with our verdict, the reader's (if measured) and staleness.

    What is damaged in another package's paper makes its claims unmeasured; in the lab's own it is an error.
    """
    if not card.claims:
        return []
    try:
        return _standings(card)
    except (OSError, ValueError, LookupError) as error:
        if not card.package:
            raise
        nothing = Judgement(0, None, None, "not measured", f"{card.package} is damaged: {error}")
        return [Standing(card, claim, nothing, None, None) for claim in card.claims]


def _standings(card: Card) -> list[Standing]:
    recorded, measured = shipped(card.slug), own(card.slug)
    lines = []
    for claim in card.claims:
        base, mine = recorded.get(claim.study), measured.get(claim.study)
        lines.append(
            Standing(
                card=card,
                claim=claim,
                ours=judge(claim, base),
                yours=judge(claim, mine) if mine else None,
                record=base.record if base else None,
            )
        )
    return lines


def all_standings() -> list[Standing]:
    """The whole ledger, in the catalog's order."""
    return [line for card in catalog.cards() for line in standings(card)]
