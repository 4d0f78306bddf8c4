"""Rules and verdicts on rows whose truth is known; records survive damage and interruption."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lab import ledger
from lab.catalog import Claim
from lab.experiment import Study, no_progress
from lab.ledger import Measurement, judge
from lab.provenance import Record


def counts(seed: int, *, progress: object) -> Mapping[str, float]:
    return {"a": float(seed)}


ABOUT = Study("sp2ot", "s", "s", counts, None)


def claim(rule: dict[str, Any], **more: Any) -> Claim:
    base = {"key": "c", "paper": "p", "figure": "f", "where": "w", "metric": "m", "unit": "points", "study": "s"}
    return Claim(**base | {"method": "a", "baseline": "b", "replication": "training", "rule": rule} | more)


def measured(rows: list[dict[str, float]], replication: str | None = "training", seconds: float = 1.0) -> Measurement:
    stamp = Record.now(ABOUT, seconds, opened={})
    kept = tuple({"seed": seed, "values": row, "seconds": seconds} for seed, row in enumerate(rows))
    return Measurement(record=stamp, replication=replication, rows=kept)


def differences(*values: float) -> list[dict[str, float]]:
    return [{"a": 50 + value, "b": 50.0} for value in values]


EXCEEDS = {"name": "exceeds", "margin": 3.0}


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([5.0, 5.1, 4.9, 5.0, 5.1, 4.9, 5.0, 5.1], "shown"),
        ([3.0, 3.5, 2.5, 3.2, 2.8, 3.1, 2.9, 3.0], "direction only"),
        ([5.0, -4.0, 6.0, -5.0, 4.0, -6.0, 5.0, -4.0], "not shown"),
        ([-5.0, -5.1, -4.9, -5.0, -5.1, -4.9, -5.0, -5.1], "opposite"),
        ([math.nan] + [5.0] * 7, "not shown"),
    ],
)
def test_exceeds(values: list[float], verdict: str) -> None:
    assert judge(claim(EXCEEDS), measured(differences(*values))).verdict == verdict


def test_the_interval_is_the_paired_t_interval() -> None:
    from scipy import stats

    values = [1.0, 2.5, 0.5, 3.0, 2.0, 1.5, 2.2, 0.9]
    found = judge(claim(EXCEEDS), measured(differences(*values)))
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert found.estimate == pytest.approx(sum(values) / len(values))


def test_too_few_replicates_or_too_weak_ones_are_direction_only() -> None:
    fine = [5.0, 5.1, 4.9, 5.0, 5.1, 4.9, 5.0, 5.1]
    assert judge(claim(EXCEEDS), measured(differences(*fine[:5]))).verdict == "direction only"
    assert judge(claim(EXCEEDS), measured(differences(*fine[:5]), seconds=60.0)).verdict == "shown"
    assert judge(claim(EXCEEDS), measured(differences(*fine), replication="sampling")).verdict == "direction only"
    assert judge(claim(EXCEEDS), measured(differences(5.0))).verdict == "not shown"


def test_lower_is_better_turns_the_sign_and_log_compares_ratios() -> None:
    rows = [{"a": 10.0 + seed / 10, "b": 20.0 + seed / 5} for seed in range(8)]
    lower = judge(claim({"name": "exceeds", "margin": 0.5}, better="lower", scale="log"), measured(rows))
    assert lower.verdict == "shown"
    assert lower.estimate == pytest.approx(1.0)  # half the time: twice as good, a ratio of 2, minus 1
    assert judge(claim(EXCEEDS, better="higher"), measured(rows)).verdict == "opposite"


def test_not_worse() -> None:
    rule = {"name": "not_worse", "margin": 1.0}
    small = [-0.1, 0.1, 0.0, -0.2, 0.2, 0.1, -0.1, 0.0]
    assert judge(claim(rule), measured(differences(*small))).verdict == "shown"
    assert judge(claim(rule), measured(differences(*[value - 5 for value in small]))).verdict == "opposite"
    assert judge(claim(rule), measured(differences(*[20 * value for value in small]))).verdict == "direction only"


def test_ordered_needs_every_step() -> None:
    rule = {"name": "ordered", "levels": ["a", "b", "c"]}
    rows = [{"a": 1.0 + s / 10, "b": 2.0 + s / 9, "c": 3.0 + s / 8} for s in range(8)]
    assert judge(claim(rule), measured(rows)).verdict == "shown"
    swapped = [{"a": row["c"], "b": row["b"], "c": row["a"]} for row in rows]
    assert judge(claim(rule), measured(swapped)).verdict == "opposite"
    bent = [{"a": row["a"], "b": row["c"], "c": row["b"]} for row in rows]
    assert judge(claim(rule), measured(bent)).verdict == "not shown"


def test_holds_is_exact_and_nan_breaks_it() -> None:
    rule = claim({"name": "holds", "tolerance": 1e-9}, replication=None)
    assert judge(rule, measured([{"a": 1e-12}], replication=None)).verdict == "shown"
    assert judge(rule, measured([{"a": 1e-3}], replication=None)).verdict == "not shown"
    assert judge(rule, measured([{"a": 0.0}, {"a": math.nan}], replication=None)).verdict == "not shown"


@pytest.mark.parametrize(
    ("low", "median", "high", "verdict"),
    [(11, 12, 13, "shown"), (9, 12, 13, "direction only"), (0.8, 1.1, 2, "not shown"), (0.1, 0.2, 0.3, "opposite")],
)
def test_race(low: float, median: float, high: float, verdict: str) -> None:
    rule = claim({"name": "race", "ratio": 10, "peer": "POT", "rows": ["r"]}, replication=None)
    answer = {"rows": [{"key": "r", "ratio": {"median": median, "min": low, "max": high}}]}
    stamp = Record.now(ABOUT, 1.0, opened={})
    assert judge(rule, Measurement(record=stamp, replication=None, race=answer)).verdict == verdict
    assert judge(rule, Measurement(record=stamp, replication=None, race={"rows": []})).verdict == "not measured"


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.7, 0.9, "shown"), (0.6, 0.75, "not shown"), (0.4, 0.6, "opposite")]
)
def test_a_race_that_may_be_lost_by_so_much(low: float, high: float, verdict: str) -> None:
    rule = claim({"name": "race", "ratio": 0.667, "peer": "bare products", "rows": ["r"]}, replication=None)
    answer = {"rows": [{"key": "r", "ratio": {"median": (low + high) / 2, "min": low, "max": high}}]}
    stamp = Record.now(ABOUT, 1.0, opened={})
    assert judge(rule, Measurement(record=stamp, replication=None, race=answer)).verdict == verdict


def test_out_of_reach_and_not_measured() -> None:
    assert judge(claim({"name": "out_of_reach", "why": "raters"}), None).verdict == "out of reach"
    assert judge(claim({"name": "out_of_reach", "why": "raters"}), measured(differences(5.0))).verdict == "out of reach"
    assert judge(claim(EXCEEDS), None).verdict == "not measured"


def test_what_the_lab_cannot_measure_a_reader_may() -> None:
    rated = claim({"name": "out_of_reach", "why": "raters", "yours": EXCEEDS}, replication="sampling")
    rows = measured(differences(5.0, 5.1, 4.9, 5.0, 5.1), replication="sampling", seconds=90)
    assert judge(rated, rows).verdict == "shown" and judge(rated, rows).n == 5
    assert judge(rated, None) == judge(claim({"name": "out_of_reach", "why": "raters"}), None)
    with pytest.raises(ValueError, match="claim c: exceeds needs its unit of replication"):
        claim({"name": "out_of_reach", "why": "raters", "yours": EXCEEDS}, replication=None)
    with pytest.raises(ValueError, match="claim c: exceeds needs study, method and baseline"):
        claim({"name": "out_of_reach", "why": "raters", "yours": EXCEEDS}, baseline="")


def fails_at_three(seed: int, *, progress: object) -> Mapping[str, float]:
    if seed == 3:
        raise KeyboardInterrupt
    return {"a": float(seed)}


def test_an_interrupted_measurement_keeps_what_is_finished() -> None:
    study = Study("sp2ot", "t", "t", fails_at_three, "training", seeds=(1, 2, 3, 4))
    seen = []
    with pytest.raises(KeyboardInterrupt):
        seen.extend(row.seed for row in ledger.measure(study, study.seeds))
    again = Study("sp2ot", "t", "t", counts, "training", seeds=(1, 2, 3, 4))
    rows = {row.seed: row for row in ledger.measure(again, again.seeds)}
    assert sorted(rows) == [1, 2, 3, 4]
    assert [row["seed"] for row in ledger.own("sp2ot")["t"].rows] == [1, 2, 3, 4]


def test_processes_give_the_same_rows_as_one_process(own_home: Path) -> None:
    study = Study("sp2ot", "t", "t", _noise, "sampling", seeds=(5, 6, 7))
    alone = {row.seed: row.values for row in ledger.measure(study, study.seeds)}
    together = {row.seed: row.values for row in ledger.measure(study, study.seeds, jobs=2, fresh=True)}
    assert alone == together


def _noise(seed: int, *, progress: object) -> Mapping[str, float]:
    import numpy as np

    sample = np.random.default_rng(seed).normal(size=(200, 200))
    return {"norm": float(np.linalg.norm(sample @ sample))}


def test_a_damaged_row_is_measured_again(own_home: Path) -> None:
    study = Study("sp2ot", "t", "t", counts, "training", seeds=(1,))
    list(ledger.measure(study, study.seeds))
    (row,) = own_home.rglob("1.json")
    row.write_text("{")
    assert ledger.own("sp2ot") == {}
    assert [found.values for found in ledger.measure(study, study.seeds)] == [{"a": 1.0}]
    assert json.loads(row.read_text())["values"] == {"a": 1.0}


def search(*, progress: object, jobs: int) -> Mapping[str, Any]:
    return {"chosen": {"a": {"lr": 0.1}}, "trials": [{"jobs": jobs}], "seeds": [0]}


def test_a_search_is_kept_as_soon_as_it_is_finished(own_home: Path) -> None:
    study = Study("sp2ot", "t", "t", fails_at_three, "training", seeds=(3,), tune=search)
    shipped = ledger.last_tuning(study)
    assert shipped is None
    found = ledger.tune(study, no_progress, jobs=2)
    with pytest.raises(KeyboardInterrupt):
        list(ledger.measure(study, study.seeds))
    assert ledger.last_tuning(study) == found == search(progress=no_progress, jobs=2)
    assert ledger.own("sp2ot") == {}, "a search is no measurement"
    (kept,) = own_home.rglob("tuning.json")
    kept.write_text("{")
    assert ledger.last_tuning(study) is None, "a damaged search counts as none"
