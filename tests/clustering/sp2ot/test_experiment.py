"""The room's experiments keep their promises: shapes, sums, what the knobs do, uploads, stopping, studies and card."""

from __future__ import annotations

import io
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from stops import stopper

from lab import catalog, results
from lab.clustering.sp2ot import digits_experiment, digits_methods, tuning
from lab.clustering.sp2ot.experiment import (
    EXPERIMENTS,
    RACES,
    STUDIES,
    DigitsConfig,
    DigitsResult,
    Features,
    FeaturesConfig,
    GrowthConfig,
    PlanConfig,
)
from lab.clustering.sp2ot.metrics import SCORES
from lab.clustering.sp2ot.tuned import CHOSEN
from lab.experiment import Experiment, Stopped, no_progress
from lab.files import FileError
from lab.provenance import Record

BY_KEY: dict[str, Experiment] = {experiment.key: experiment for experiment in EXPERIMENTS}


def plan(**knobs: Any) -> Any:
    return BY_KEY["plan"](PlanConfig(**knobs))


def growth(**knobs: Any) -> Any:
    return BY_KEY["growth"](GrowthConfig(**knobs))


@pytest.mark.parametrize("data", ["blobs", "digits"])
def test_a_plan_gives_each_sample_out_once(data: Any) -> None:
    result = plan(data=data, rho=0.3)
    n, k = len(result.truth), len(result.class_names)
    assert result.plan.shape == (n, k + 1) and result.points.shape == (n, 2)
    assert np.allclose(result.plan.sum(1), 1, atol=1e-5)
    assert result.plan[:, -1].mean() == pytest.approx(0.7, abs=1e-4) and result.mass == pytest.approx(0.3, abs=1e-5)
    assert result.sizes.sum() == pytest.approx(1) == result.true_sizes.sum() == result.prior.sum()
    assert np.array_equal(result.label, result.plan[:, :-1].argmax(1))
    assert result.residual < 1e-4
    frame = result.objective
    assert np.allclose(frame["total"], frame[["transport", "semantic", "kl", "entropy"]].sum(axis=1))
    assert np.isfinite(frame.to_numpy()).all()


def test_the_surest_are_chosen_and_the_threshold_falls_as_the_mass_grows() -> None:
    few, many, all_of_it = (plan(rho=rho) for rho in (0.1, 0.6, 1.0))
    assert few.precision_selected > few.precision_all
    assert few.threshold > many.threshold > all_of_it.threshold == 0.0
    assert all_of_it.precision_selected == pytest.approx(all_of_it.precision_all)
    assert np.allclose(all_of_it.plan[:, -1], 0, atol=1e-6)


def test_a_dear_size_penalty_forces_equal_sizes_and_a_cheap_one_frees_them() -> None:
    hard, free = plan(rho=1.0, reg_m=1000.0), plan(rho=1.0, reg_m=0.01)
    assert np.allclose(hard.sizes, 0.2, atol=1e-4)
    assert np.abs(free.sizes - 0.2).max() > 0.1
    assert free.precision_all > hard.precision_all


def test_the_objective_can_rise_and_the_shift_forbids_it() -> None:
    knobs: dict[str, Any] = {"data": "digits", "rho": 0.3, "semantic_weight": 1.0}
    assert plan(**knobs).rises != ()
    assert plan(**knobs, psd_shift=True).rises == ()


def test_the_accelerated_solver_is_the_first_to_arrive() -> None:
    last = plan().solvers.groupby("solver").last()
    assert set(last.index) == {"anderson", "scaling", "log"}
    assert last.loc["anderson", "error"] < 1e-8
    assert last.loc["anderson", "iteration"] < last.loc["scaling", "iteration"]
    overflowing = plan(rho=0.05, semantic_weight=2.0, reg=0.02, data="digits").solvers
    assert "scaling" not in set(overflowing["solver"]) and np.isfinite(overflowing["error"]).all()


@pytest.mark.parametrize("data", ["blobs", "digits"])
def test_growth_writes_every_step_down(data: Any) -> None:
    result = growth(data=data, steps=8)
    n, k = len(result.truth), len(result.class_names)
    assert result.mass.shape == result.label.shape == (8, n) and result.mass.dtype == np.float32
    assert np.allclose(result.mass.mean(1), result.rho, atol=1e-4) and np.all(np.diff(result.rho) > 0)
    assert result.sizes.shape == (8, k) and np.allclose(result.sizes.sum(1), 1)
    assert result.centres.shape == (8, k if data == "blobs" else 0, 2)
    assert result.precision_selected[-1] == pytest.approx(result.precision_all[-1], abs=0.01)
    assert 0 < result.accuracy.min() <= result.accuracy.max() <= 1


def test_uniform_labels_are_uniform_at_every_step() -> None:
    result = growth(method="sela", steps=5)
    assert np.allclose(result.sizes, 0.2, atol=1e-2)
    assert np.allclose(result.rho, 1)


@pytest.mark.parametrize("key", ["plan", "growth"])
def test_a_seed_fixes_the_result_and_it_can_be_stored(key: str, tmp_path: Path) -> None:
    experiment = BY_KEY[key]
    config = experiment.config(seed=2) if key == "plan" else experiment.config(seed=2, steps=5, method="sp2ot")
    first = experiment(config)
    results.save(tmp_path / "kept", first, Record.now(experiment, 0.0, opened={}))
    kept, _ = results.load(tmp_path / "kept", experiment.result)
    for result in (experiment(config), kept):
        for field in fields(first):
            one, two = getattr(first, field.name), getattr(result, field.name)
            if isinstance(one, pd.DataFrame):
                pd.testing.assert_frame_equal(one, two)
            else:
                np.testing.assert_array_equal(one, two)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison with one start and ten steps of pre-training."""
    monkeypatch.setattr(digits_methods, "PRETRAIN_STEPS", 10)
    monkeypatch.setattr(digits_methods, "RESTARTS", 1)
    monkeypatch.setattr(digits_experiment, "RESTARTS", 1)


def test_the_comparison_and_its_study_agree(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DigitsConfig(steps=20, seed=0)
    once = digits_experiment.compare(config, no_progress)
    monkeypatch.setattr(digits_experiment, "compare", lambda config, progress: once)
    result: DigitsResult = BY_KEY["digits"](config)
    names = list(digits_methods.NAMES.values())
    assert result.scores["method"].tolist() == names == list(result.confusion) == list(result.labels)
    n = len(result.truth)
    assert np.all(np.diff(result.true_sizes) <= 0), "classes from most to least frequent"
    for name in names:
        assert result.confusion[name].shape == (10, 10) and result.confusion[name].sum() == n
        recall = np.diag(result.confusion[name]) / result.confusion[name].sum(1)
        score = result.scores.set_index("method").loc[name]
        assert score["balanced_accuracy"] == pytest.approx(recall.mean())
        assert score["tail"] == pytest.approx(recall[7:].mean())
        assert result.sizes[name].sum() == pytest.approx(1)
    assert result.scores["balanced_accuracy"].min() > 0.25, "all are far better than chance (0.1)"
    assert set(result.curves["method"]) == {"SeLa", "UOT", "P²OT", "SP²OT"}
    assert len(result.curves) == 4 * 20
    columns = digits_experiment.columns(config, no_progress)
    for method, name in digits_methods.NAMES.items():
        for key in SCORES:
            expected = 100 * result.scores.set_index("method").loc[name, key]
            assert columns[f"{method}_{key}"] == pytest.approx(expected)
    assert set(columns) == set(digits_experiment.COLUMNS)
    full_mass = columns["uot_precision_selected"], columns["uot_precision_all"]
    assert full_mass[0] == pytest.approx(full_mass[1], abs=0.5)
    _columns_of_the_card(columns, "digits")


def _columns_of_the_card(columns: Any, study: str) -> None:
    claims = [claim for claim in catalog.get("sp2ot").claims if claim.study == study]
    assert claims
    for claim in claims:
        assert {claim.method, claim.baseline} - {""} <= set(columns), claim.key


@pytest.mark.parametrize("key", ["descent", "certificate"])
def test_exact_studies_measure_what_the_card_names(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.clustering.sp2ot import studies

    everything = list(studies.problems())
    monkeypatch.setattr(studies, "problems", lambda: iter(everything[:2]))
    study = next(study for study in STUDIES if study.key == key)
    assert study.replication is None and study.seeds == (0,)
    columns = study()
    _columns_of_the_card(columns, key)
    assert columns["rise_shifted" if key == "descent" else "first_order"] < 1e-5


def test_the_race_has_the_rows_that_the_card_judges() -> None:
    claims = [claim for claim in catalog.get("sp2ot").claims if claim.rule.name == "race"]
    assert [claim.study for claim in claims] == [RACES[0].key]
    assert set(claims[0].rule.rows) <= set(RACES[0].rows)  # type: ignore[union-attr]


def test_every_method_is_tuned_with_as_many_trials() -> None:
    assert {len(grid) for grid in tuning.GRIDS.values()} == {tuning.TRIALS}
    winner = {"init": "k-means", "lr": 5e-3, "reg": 0.05}
    made: list[dict[str, Any]] = [{"method": "p2ot", "settings": winner, "mean": 0.5}]
    for settings in tuning._semantic_trials(made):
        weight = 1.0 if settings["semantic_weight"] == 0.1 else 0.0
        made.append({"method": "sp2ot", "settings": settings, "mean": weight})
    made = made[1:]
    assert len(made) == tuning.TRIALS
    assert [trial["settings"] for trial in made[:5]] == [{**winner, "semantic_weight": w} for w in tuning.WEIGHTS]
    assert {trial["settings"]["semantic_weight"] for trial in made[5:]} == {0.1}, "the best weight so far"
    assert len({str(trial["settings"]) for trial in made}) == tuning.TRIALS, "none twice"
    study = STUDIES[0]
    assert set(CHOSEN) == set(digits_methods.NAMES) and study.chosen is CHOSEN
    for method, settings in CHOSEN.items():
        if method != "sp2ot":
            assert settings in tuning.GRIDS[method]
    assert not set(tuning.SEEDS) & set(study.seeds) and len(study.seeds) >= 8
    assert [DigitsConfig(seed=seed).seed for seed in study.seeds] == list(study.seeds)


def uploaded(labels: bool = True) -> tuple[Features, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [60, 20, 8])
    frame = pd.DataFrame((8 * np.eye(3)[truth] + rng.standard_normal((88, 3))).round(4), columns=["a", "b", "c"])
    if labels:
        frame["label"] = np.array(["cat", "dog", "owl"])[truth]
    return Features.read(frame.to_csv(index=False).encode(), name="animals.csv"), truth


def test_one_s_own_table_is_clustered_and_written(tmp_path: Path) -> None:
    inputs, _ = uploaded()
    experiment = BY_KEY["features"]
    result = experiment(FeaturesConfig(n_clusters=3, steps=30, starts=1), inputs)
    assert result.scores["balanced_accuracy"] > 0.95 and result.class_names == ("cat", "dog", "owl")
    assert result.confusion.shape == (3, 3) and np.trace(result.confusion) >= 86
    assert result.sizes.sum() == pytest.approx(1) and result.points.shape == (88, 2)
    assert (result.confidence >= 1 / 3).all() and (result.confidence <= 1).all()
    assert experiment.write is not None
    experiment.write(result, tmp_path / "labels.csv")
    written = pd.read_csv(tmp_path / "labels.csv")
    assert list(written.columns) == ["row", "cluster", "confidence"] and len(written) == 88
    assert np.array_equal(written["cluster"], result.labels)


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_columns_of_any_size_count_alike(unit: float) -> None:
    rng, truth = np.random.default_rng(0), np.repeat([0, 1], 30)
    frame = pd.DataFrame({"a": unit * (9 * truth + rng.standard_normal(60)), "b": rng.standard_normal(60)})
    inputs = Features.read(frame.to_csv(index=False).encode(), name="a.csv")
    labels = BY_KEY["features"](FeaturesConfig(n_clusters=2, steps=20, starts=1), inputs).labels
    assert set(map(tuple, np.unique(np.column_stack([truth, labels]), axis=0))) in ({(0, 0), (1, 1)}, {(0, 1), (1, 0)})


def test_a_table_without_labels_and_with_one_column() -> None:
    inputs, _ = uploaded(labels=False)
    result = BY_KEY["features"](FeaturesConfig(n_clusters=5, steps=20, starts=1), inputs)
    assert result.scores == {} and result.confusion.shape == (0, 5) and result.class_names == ()
    narrow = Features.read(b"x\n" + b"\n".join(b"%d" % (i % 7) for i in range(40)), name="x.csv")
    assert BY_KEY["features"](FeaturesConfig(n_clusters=2, steps=20, starts=1), narrow).points.shape == (40, 2)


def test_uploads_are_told_apart_and_refused() -> None:
    labelled, plain = uploaded()[0], uploaded(labels=False)[0]
    assert labelled.fingerprint() == uploaded()[0].fingerprint() != plain.fingerprint()
    with pytest.raises(FileError, match=r"same\.csv holds the same features in every row"):
        Features.read(b"a,b\n1,2\n1,2\n1,2\n", name="same.csv")
    with pytest.raises(FileError, match="two rows"):
        Features.read(b"a,b\n1,2\n", name="one.csv")
    many = b"a,label\n" + b"\n".join(b"%d,id%d" % (i % 7, i) for i in range(600))
    with pytest.raises(FileError, match=r"many\.csv holds 600 different labels"):
        Features.read(many, name="many.csv")
    wide = io.BytesIO()
    np.savez(wide, X=np.random.default_rng(0).standard_normal((3, 513)).astype(np.float32))
    with pytest.raises(FileError, match="513"):
        Features.read(wide.getvalue(), name="wide.npz")
    with pytest.raises(ValueError, match="n_clusters"):
        BY_KEY["features"](FeaturesConfig(n_clusters=100, steps=20), plain)


@pytest.mark.parametrize("after", [1, 5, 30])
def test_stop_is_let_through(quick: None, after: int) -> None:
    with pytest.raises(Stopped):
        BY_KEY["digits"](DigitsConfig(steps=20), progress=stopper(after))
    with pytest.raises(Stopped):
        BY_KEY["features"](FeaturesConfig(n_clusters=3, steps=60), uploaded()[0], progress=stopper(after))
    with pytest.raises(Stopped):
        BY_KEY["growth"](GrowthConfig(steps=60), progress=stopper(after))
