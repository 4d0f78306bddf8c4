"""The `rounding` and `digits` experiments: the race's rows are the methods', what cannot move does not, pictures in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from stops import stopper

from lab import results
from lab.experiment import Stopped, no_progress
from lab.knobs import controls
from lab.plot import DARK, LIGHT, Theme
from lab.provenance import Record
from lab.quantization.baselines import RTN
from lab.quantization.flexround import digits_experiment, digits_tuning, figures, rounding_experiment, tuned
from lab.quantization.flexround import studies as flexround_studies
from lab.quantization.flexround.digits_experiment import DigitsConfig, DigitsResult, build, enlarge, prepare, quantize
from lab.quantization.flexround.experiment import EXPERIMENTS, STUDIES
from lab.quantization.flexround.method import FlexRound
from lab.quantization.flexround.rounding_experiment import FITTED_BY, RoundingConfig, RoundingResult
from lab.quantization.flexround.trace import FOLLOWED, LayerData, follow
from lab.quantization.one_layer import examine
from lab.quantization.rounding import AdaRound, RoundingMethod

ROUNDING = ("rounding_lens", "rounding_flow", "rounding_scatter", "rounding_deciles", "rounding_codes", "rounding_race")
DIGITS = ("digits_accuracy", "digits_error", "digits_s4")


OUTPUTS = 32


@pytest.fixture(autouse=True, scope="module")
def narrow() -> Iterator[None]:
    """A quarter of the outputs, and a third of the tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounding_experiment, "OUTPUTS", OUTPUTS)
        patch.setattr(rounding_experiment, "FITTED", 768)
        _forget()
        yield
    _forget()


def _forget() -> None:
    rounding_experiment._layer_data.cache_clear()
    rounding_experiment._trace.cache_clear()


def rounding(**knobs: Any) -> RoundingResult:
    return rounding_experiment.rounding(RoundingConfig(**knobs), progress=no_progress)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def toy() -> LayerData:
    """Sixteen outputs of twenty-four inputs, correlated, every third weight 0."""
    weight = draw(16, 24) * 0.1
    weight.view(-1)[::3] = 0.0
    return LayerData.of(weight, draw(512, 24, seed=1) @ draw(24, 24, seed=2), 512)


def fits(bits: int, steps: int) -> dict[str, RoundingMethod]:
    rates = {"flexround": 0.03, "adaround": 0.1, "adaquant": 0.03, "signround": 0.03}
    return {key: FITTED_BY[key](bits=bits, steps=steps, lr=rate) for key, rate in rates.items()}  # type: ignore[index]


@pytest.mark.parametrize("knobs", [{}, {"per": "row", "bits": 3}, {"init": "minmax", "big": 50}], ids=str)
def test_the_race_starts_where_rounding_to_nearest_is(knobs: dict[str, Any]) -> None:
    """And that row is the pipeline's own method's, on the same inputs."""
    config = RoundingConfig(steps=2, **knobs)
    result = rounding_experiment.rounding(config, progress=no_progress)
    layer = rounding_experiment._layer_data(config.part, config.block, config.seed, config.big)
    nearest = examine(layer.work, RTN(bits=config.bits, per=config.per, init=config.init))
    rows = result.race[result.race["method"] == "rtn"]["error"]
    assert len(rows) == 3 and rows.nunique() == 1
    assert rows.iloc[0] == pytest.approx(nearest.error, rel=1e-3)
    for key in FITTED_BY:
        first = result.race[(result.race["method"] == key) & (result.race["step"] == 0)]["error"].item()
        assert first == pytest.approx(rows.iloc[0], rel=1e-3), key


def test_what_is_followed_ends_where_the_method_ends(toy: LayerData) -> None:
    for key, fitted in fits(3, 8).items():
        trace, found = follow(toy, fitted), examine(toy.work, fitted)
        assert torch.equal(trace.rounded, found.rounded), key
        assert trace.error[-1] == pytest.approx(found.error, rel=1e-3), key
        assert len(trace.error) == 9 == len(trace.position) and trace.gradient.shape == (8, trace.position.shape[1])
        apart = np.abs(trace.position - trace.code)
        kept = np.abs(trace.position) < 3  # the others may be clipped
        assert (apart[kept] <= 0.5 + 1e-4).all(), f"{key}: a code is the nearest to its place"


def test_zeros_never_move_and_adaround_goes_one_point_at_most(toy: LayerData) -> None:
    zeros = (toy.weight == 0).numpy()
    places = toy.evenly(FOLLOWED).numpy()
    for sgd in (False, True):
        trace = follow(toy, FlexRound(bits=6, steps=40, lr=0.05), sgd=sgd)
        assert (trace.move[zeros] == 0).all() and (trace.final[zeros] == 0).all() and (trace.move[~zeros] != 0).any()
        assert (trace.gradient[:, zeros.reshape(-1)[places]] == 0).all()
        assert np.abs(trace.move).max() >= 2
    assert np.abs(follow(toy, AdaRound(bits=6, steps=40, lr=0.5)).move).max() == 1


def test_plain_descent_takes_longer_steps_for_larger_weights(toy: LayerData) -> None:
    """Adam evens them out: in log space its steps are alike."""
    size = toy.weight.abs().flatten()[toy.evenly(FOLLOWED)].numpy()
    large, small = size > np.quantile(size, 0.9), (size > 0) & (size < np.quantile(size[size > 0], 0.3))
    ratio = {}
    for sgd in (False, True):
        fitted = FlexRound(bits=8, steps=1, lr=0.01, use_s3=False, learn_s1=False, init="minmax")
        places = follow(toy, fitted, sgd=sgd).position
        step = np.abs(np.log(np.abs(places[1][size > 0] / places[0][size > 0])))
        all_steps = np.zeros(len(size))
        all_steps[size > 0] = step
        ratio[sgd] = all_steps[large].mean() / all_steps[small].mean()
    assert ratio[False] == pytest.approx(1, abs=0.2) and ratio[True] > 2


def test_the_result_adds_up() -> None:
    result = rounding(steps=12, weight=97)
    n = OUTPUTS * 384
    assert result.before.sum() == result.after.sum() == n and len(result.points) == 16
    assert result.race.groupby("method").size().eq(13).all() and set(result.race["method"]) == {"rtn", *FITTED_BY}
    ours = result.deciles[result.deciles["method"] == "flexround"]
    share = result.methods.set_index("method")["far"]["flexround"]
    assert ours["decile"].tolist() == list(range(1, 11)) and ours["size"].is_monotonic_increasing
    assert ours["far"].mean() == pytest.approx(share, abs=1e-3)
    assert (result.deciles.query("method in ('adaround', 'signround')")["mean"] <= 1).all()
    place = np.flatnonzero(np.isclose(result.places[:, :], result.place[:, None]).all(0))
    assert len(place) >= 1 and result.place.shape == result.code.shape == (13,) and result.gradient.shape == (12,)
    assert result.sizes[place[0]] * result.weight > 0


def test_a_huge_weight_takes_the_grid_and_only_a_learned_step_gets_some_of_it_back() -> None:
    """With the whole range as first grid all other weights are stored as 0; AdaRound's step stays."""
    knobs: dict[str, Any] = {"big": 50, "init": "minmax", "rate": 3, "weight": 100}
    result, fixed = rounding(**knobs), rounding(**knobs, method="adaround")
    zero = result.points == 0
    assert result.before[~zero].sum() == 1, "the huge one"
    assert result.step[-1] < 0.9 * result.step[0] and fixed.step[-1] == fixed.step[0]
    assert result.after[~zero].sum() > 10 * fixed.after[~zero].sum()
    sizes = np.sort(result.scatter_size)
    assert abs(result.weight) == pytest.approx(float(sizes[-1])) and sizes[-1] > 20 * sizes[-2]


def test_a_seed_fixes_the_result_and_it_can_be_stored(tmp_path: Path) -> None:
    config = RoundingConfig(steps=6, optimizer="sgd")
    first = rounding_experiment.rounding(config, progress=no_progress)
    _forget()
    again = rounding_experiment.rounding(config, progress=no_progress)
    results.save(tmp_path / "kept", first, Record.now(rounding_experiment.rounding, 0.0, opened={}))
    _same(first, again)
    _same(first, results.load(tmp_path / "kept", RoundingResult)[0])


def _same(one: Any, other: Any) -> None:
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, pd.DataFrame):
            pd.testing.assert_frame_equal(a, b)
        else:
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("last", "theme"), [(False, LIGHT), (True, DARK)], ids=["low", "high"])
def test_all_knobs_at_both_ends(last: bool, theme: Theme) -> None:
    """All at once, once at each end; few steps."""
    knobs: dict[str, Any] = {}
    for control in controls(RoundingConfig):
        ends = control.options or (control.low, control.high) if control.kind != "toggle" else (False, True)
        value = ends[-1 if last else 0]
        knobs[control.name] = int(value) if control.kind in ("int", "number") else value
    result = rounding(**knobs | {"steps": 8 if last else 0})
    assert result.methods["error"].between(0, 1e4).all()
    for name in ROUNDING:
        fig = getattr(figures, name)(result, theme)
        assert len(fig.layout.title.text) > 15 and fig.data, name


def test_knobs_do_something() -> None:
    base = {"steps": 10}
    start = rounding(**base).methods.set_index("method")["error"]
    for knobs in ({"learn_s1": False}, {"use_s3": False}, {"optimizer": "sgd"}):
        other = rounding(**base, **knobs).methods.set_index("method")["error"]
        assert other["flexround"] != start["flexround"] and other["adaround"] == start["adaround"], knobs
    for knobs in ({"rate": 3.0}, {"per": "row"}, {"init": "minmax"}, {"bits": 5}):
        assert (rounding(**base, **knobs).methods["error"].to_numpy()[1:] != start.to_numpy()[1:]).all(), knobs


def test_the_largest_network_channel_is_enlarged_and_the_network_computes_the_same() -> None:
    torch.manual_seed(0)
    network = build(6)
    images = torch.rand(5, 1, 8, 8)
    before, largest = network(images), float(network[1][0].weight.detach().abs().max())
    enlarge(network, 20.0)
    assert torch.allclose(network(images), before, atol=1e-5)
    assert float(network[1][0].weight.detach().abs().max()) == pytest.approx(20 * largest, rel=1e-5)


@pytest.fixture(scope="module")
def task() -> digits_experiment.Task:
    return prepare(3, epochs=3)


def test_every_rounding_of_the_network(task: digits_experiment.Task) -> None:
    assert task.accuracy(task.network) > 0.6 and len(task.labels) == 450 and len(task.calibration) == 512
    start = quantize(task, "rtn", 3)[0]
    for key in digits_experiment.LEARNERS:
        same = quantize(task, key, 3, steps=0)[0]
        assert task.error(same) == pytest.approx(task.error(start), rel=0.5), f"{key} starts near rounding to nearest"
        for fit in ("network", "layer"):
            network, learned = quantize(task, key, 3, steps=16, fit=fit)  # type: ignore[arg-type]
            assert task.error(network) < task.error(start), (key, fit)
            for layer, one in zip((stage[0] for stage in network), learned, strict=True):
                assert not hasattr(layer, "parametrizations")
                assert torch.allclose(layer.weight.flatten(1), one.finish().dequantize(), atol=1e-6)
                assert len(layer.weight.unique()) <= 8
    assert task.network[0][0].weight.unique().numel() > 100, "the network given stays as it was"


def test_only_convolutions_have_a_factor_for_each_input_channel(task: digits_experiment.Task) -> None:
    learned = quantize(task, "flexround", 3, steps=3)[1]
    assert [tuple(one.s4.shape) for one in learned] == [(1, 1), (1, 1), (1, 16), (1, 512)]  # type: ignore[attr-defined]
    assert [one.d4 is not None for one in learned] == [True, True, True, False]  # type: ignore[attr-defined]
    assert all(one.d4 is None for one in quantize(task, "flexround_no_s4", 3, steps=3)[1])  # type: ignore[attr-defined]


def test_the_digits_with_tiny_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(digits_experiment, "BITS", (3, 8))
    config = DigitsConfig(epochs=2, steps=4, huge=1.0, calibration=64)
    result: DigitsResult = digits_experiment.digits(config, progress=no_progress)
    assert len(result.scores) == 2 * len(digits_experiment.TITLES) and result.scores["accuracy"].between(0, 1).all()
    by = result.scores.set_index(["method", "bits"])
    assert by.loc[("rtn", 8), "accuracy"] == pytest.approx(result.full, abs=0.01)
    assert by.loc[("rtn", 8), "error"] < by.loc[("rtn", 3), "error"]
    assert result.s4.groupby("bits").size().eq(16).all() and (result.s4["factor"] > 0).all()
    results.save(tmp_path / "kept", result, Record.now(digits_experiment.digits, 0.0, opened={}))
    _same(result, results.load(tmp_path / "kept", DigitsResult)[0])
    for name in DIGITS:
        for theme in (LIGHT, DARK):
            fig = getattr(figures, name)(result, theme)
            assert len(fig.layout.title.text) > 15 and fig.data, name


def test_the_study_measures_what_claims_may_name(monkeypatch: pytest.MonkeyPatch) -> None:
    study = next(study for study in STUDIES if study.key == "digits")
    assert set(flexround_studies.DIGITS_BITS) == {2, 3, 4}
    monkeypatch.setattr(flexround_studies, "DIGITS_BITS", (2, 3))
    monkeypatch.setattr(digits_experiment, "prepare", lambda seed, **kept: prepare(seed, epochs=2))
    real = digits_experiment.quantize
    monkeypatch.setattr(digits_experiment, "quantize", lambda *given, **kept: real(*given, **kept, steps=3))
    columns = study.run(100, progress=no_progress)
    wanted = {
        f"{key}_{bits}_{what}" for key in digits_experiment.TITLES for bits in (2, 3) for what in ("accuracy", "error")
    }
    assert set(columns) == wanted | {"full_accuracy"} and all(value >= 0 for value in columns.values())
    for theme in (LIGHT, DARK):
        for bits in (2, 3):
            fig = figures.digits_seeds([columns, columns], bits, theme)
            assert "2 trainings" in fig.layout.title.text


def test_the_search_is_fair_and_apart_from_the_ledger() -> None:
    study = next(study for study in STUDIES if study.key == "digits")
    assert {len(grid) for grid in digits_tuning.GRIDS.values()} == {6}
    assert set(digits_tuning.GRIDS) == set(digits_experiment.LEARNERS) == set(tuned.DIGITS)
    for key, settings in tuned.DIGITS.items():
        assert settings in digits_tuning.GRIDS[key], key
    assert study.chosen is tuned.DIGITS and not set(digits_tuning.SEEDS) & set(study.seeds)
    assert len(study.seeds) >= 8 and study.replication == "training"
    ours, theirs = (set(range(1797)[part]) for part, _ in digits_experiment.POOLS.values())
    assert not ours & theirs


@pytest.mark.parametrize("after", [1, 3])
def test_stop_is_let_through(after: int) -> None:
    for experiment in EXPERIMENTS:
        if experiment.key in ("rounding", "digits"):
            with pytest.raises(Stopped):
                experiment(experiment.config(), progress=stopper(after))
