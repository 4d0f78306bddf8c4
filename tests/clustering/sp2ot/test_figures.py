"""Every picture of the room, on small results: traces that show something, a title that follows the data, titled axes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from lab.clustering.sp2ot import figures
from lab.clustering.sp2ot.digits_experiment import CURVES, DigitsResult
from lab.clustering.sp2ot.digits_methods import NAMES
from lab.clustering.sp2ot.experiment import EXPERIMENTS
from lab.clustering.sp2ot.features_experiment import FeaturesResult
from lab.clustering.sp2ot.growth_experiment import GrowthResult
from lab.clustering.sp2ot.metrics import alignment, contingency, scores
from lab.clustering.sp2ot.plan_experiment import PlanResult
from lab.plot import DARK, LIGHT, Theme

RUN = {experiment.key: experiment for experiment in EXPERIMENTS}
METHODS = {"k-means": 0.8, "GMM": 0.9, "spectral": 0.7, "SeLa": 0.5, "UOT": 0.6, "P²OT": 0.65, "SP²OT": 0.75}


@functools.cache
def plan(**knobs: Any) -> PlanResult:
    return RUN["plan"](RUN["plan"].config(**knobs))


@functools.cache
def growth(**knobs: Any) -> GrowthResult:
    return RUN["growth"](RUN["growth"].config(steps=6, **knobs))


def digits(counts: tuple[int, ...] = (60, 30, 15, 8), right: dict[str, float] = METHODS, seed: int = 0) -> DigitsResult:
    """A comparison as it might come out: each method puts a share of the samples right and guesses the rest."""
    k, rng = len(counts), np.random.default_rng(seed)
    truth = np.repeat(np.arange(k), counts)
    labels = {
        name: np.where(rng.random(len(truth)) < share, truth, rng.integers(0, k, len(truth)))
        for name, share in right.items()
    }
    labels = {name: alignment(truth, found, k)[found] for name, found in labels.items()}
    rows = [
        (name, step, 1.0, right[name], right[name] - 0.1, 0.5, 0.5)
        for name in ("SeLa", "UOT", "P²OT", "SP²OT")
        for step in range(8)
    ]
    return DigitsResult(
        scores=pd.DataFrame([{"method": name, **scores(truth, found, k)} for name, found in labels.items()]),
        confusion={name: contingency(truth, found, k) for name, found in labels.items()},
        class_names=tuple(str(3 + rank) for rank in range(k)),
        sizes={name: np.bincount(found, minlength=k) / len(truth) for name, found in labels.items()},
        true_sizes=np.array(counts) / sum(counts),
        curves=pd.DataFrame(rows, columns=list(CURVES)),
        points=rng.standard_normal((len(truth), 2)).astype(np.float32),
        truth=truth.astype(np.uint8),
        labels={name: found.astype(np.uint8) for name, found in labels.items()},
    )


def features(n: int = 60, k: int = 3, classes: int = 3, seed: int = 0) -> FeaturesResult:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    labels[:k] = np.arange(k)
    return FeaturesResult(
        labels=labels,
        confidence=rng.random(n),
        sizes=np.bincount(labels, minlength=k) / n,
        points=rng.standard_normal((n, 2)).astype(np.float32),
        class_names=tuple("abcdef"[:classes]),
        confusion=np.full((classes, k), 2) if classes else np.zeros((0, k), np.int64),
        scores={"balanced_accuracy": 0.5, "nmi": 0.4, "ari": 0.3} if classes else {},
    )


PLAN = ("plan_image", "cluster_map", "cluster_sizes", "objective_descent", "solver_race")
GROWTH = ("growth_map", "growth_precision", "growth_sizes")
DIGITS = ("scores", "head_medium_tail", "confusion", "selected_precision", "digits_map")
FEATURES = ("features_map", "features_sizes")
PULLED = {"semantic_weight": 1.5, "imbalance": 3.0}
# name of the figure -> a result, and another one that must be told apart by its title
CASES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = (
    {name: (plan, functools.partial(plan, rho=0.6, reg=0.3, **PULLED)) for name in PLAN}
    | {name: (growth, functools.partial(growth, imbalance=3.0, rho0=1.0)) for name in GROWTH}
    | {name: (digits, functools.partial(digits, (20, 19, 18), dict.fromkeys(METHODS, 0.3), 1)) for name in DIGITS}
    | {name: (features, functools.partial(features, 50, 5, 0, 1)) for name in FEATURES}
)


def test_seeds_are_dots_and_their_mean_a_stroke() -> None:
    rows = [{f"{method}_tail": 10.0 * place + seed for place, method in enumerate(NAMES)} for seed in range(3)]
    fig = figures.over_seeds(rows, "tail")
    check(fig)
    assert len(fig.data) == len(NAMES) + 1 and list(fig.data[0].x) == [0.0, 0.01, 0.02]
    assert np.allclose(fig.data[-1].x, [0.01 + 0.1 * place for place in range(len(NAMES))])
    assert "3 seeds" in fig.layout.title.text and "SP²OT 61%" in fig.layout.title.text


def test_a_table_with_labels_is_compared_with_them() -> None:
    fig = draw("features_confusion", features(60, 4, 3))
    check(fig)
    assert "50%" in fig.layout.title.text and fig.data[0].z.shape == (3, 4)
    with pytest.raises(ValueError, match="no labels"):
        draw("features_confusion", features(60, 3, 0))


def draw(name: str, result: Any, theme: Theme = LIGHT) -> go.Figure:
    return getattr(figures, name)(result, theme=theme)


def check(fig: go.Figure, limit: int = 300_000) -> None:
    assert fig.data and fig.layout.title.text
    assert "nan" not in fig.layout.title.text.lower()
    for trace in fig.data:
        values = trace.z if trace.type == "heatmap" else trace.y
        assert len(values) and np.isfinite(np.asarray(values, dtype=float)).any()
    assert fig.layout.xaxis.title.text and fig.layout.yaxis.title.text
    assert len(fig.to_json()) < limit


@pytest.mark.parametrize("name", CASES)
def test_shows_something_and_says_what(name: str) -> None:
    first, second = (draw(name, make()) for make in CASES[name])
    for fig in (first, second):
        check(fig, 1_000_000 if name == "growth_map" else 300_000)
    assert first.layout.title.text != second.layout.title.text
    assert len(first.layout.title.text) <= 90


@pytest.mark.parametrize("name", CASES)
def test_both_themes(name: str) -> None:
    result = CASES[name][0]()
    light, dark = draw(name, result, LIGHT), draw(name, result, DARK)
    assert light.layout.font.color != dark.layout.font.color
    assert light.layout.title.text == dark.layout.title.text
    assert [trace.type for trace in light.data] == [trace.type for trace in dark.data]


@pytest.mark.parametrize("name", PLAN)
@pytest.mark.parametrize(
    "knobs", [{"rho": 1.0}, {"imbalance": 100.0, "rho": 0.05}, {"data": "digits", "imbalance": 100.0}], ids=str
)
def test_plans_at_the_ends(name: str, knobs: dict[str, Any]) -> None:
    check(draw(name, plan(**knobs)))


@pytest.mark.parametrize("name", PLAN)
def test_two_clusters_and_a_single_sample_that_is_selected(name: str) -> None:
    base, n = plan(), 12
    handed = np.zeros((n, 3), np.float32)
    handed[:, 2], handed[0] = 1.0, (1.0, 0.0, 0.0)
    small = dataclasses.replace(
        base,
        points=base.points[:n],
        truth=np.arange(n) % 2,
        class_names=("a", "b"),
        plan=handed,
        label=np.zeros(n, dtype=int),
        sizes=np.array([1.0, 0.0]),
        true_sizes=np.array([0.5, 0.5]),
        prior=np.array([0.5, 0.5]),
        mass=1 / n,
    )
    check(draw(name, small))


@pytest.mark.parametrize("name", GROWTH)
@pytest.mark.parametrize("knobs", [{"rho0": 1.0}, {"data": "digits", "imbalance": 100.0}], ids=str)
def test_growth_at_the_ends(name: str, knobs: dict[str, Any]) -> None:
    check(draw(name, growth(**knobs)), 1_000_000)


@pytest.mark.parametrize("name", DIGITS)
def test_two_perfect_classes(name: str) -> None:
    check(draw(name, digits((5, 1), dict.fromkeys(METHODS, 1.0))))


def test_every_method_has_its_confusion_and_map() -> None:
    for method in METHODS:
        assert figures.confusion(digits(), method).layout.title.text.startswith(method)
        assert figures.digits_map(digits(), method).layout.title.text.startswith(method)


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("shape", [(2, 2, 0), (30_000, 100, 3), (10, 2, 5)], ids=str)
def test_tables_small_and_large(name: str, shape: tuple[int, int, int]) -> None:
    check(draw(name, features(*shape)))


def test_the_plans_rows_are_thinned_and_its_columns_include_what_is_set_apart() -> None:
    picture = figures.plan_image(plan()).data[0]
    assert len(picture.z) <= figures.MAX_ROWS and picture.z.dtype == np.float32
    assert list(picture.x)[-1] == "set apart" and picture.z.shape[1] == len(picture.x)
    assert np.allclose(picture.z.sum(1), 1, atol=1e-5)


def test_rises_are_marked_where_they_are() -> None:
    falls = plan(**PULLED)
    table = falls.objective.copy()
    table.loc[2, "total"] = table.loc[1, "total"] + 0.5
    rose = dataclasses.replace(falls, objective=table, rises=(2,))
    fig = figures.objective_descent(rose)
    assert "rose at 1 of" in fig.layout.title.text and "0.5" in fig.layout.title.text
    (marks,) = (trace for trace in fig.data if trace.name == "rose")
    assert list(marks.x) == [2] and marks.yaxis == "y2"
    assert "fell at every one" in figures.objective_descent(falls).layout.title.text


def test_the_player_has_a_frame_a_step_and_stops() -> None:
    result = growth()
    fig = figures.growth_map(result)
    names = [frame.name for frame in fig.frames]
    assert len(names) == len(set(names)) == min(figures.MAX_FRAMES, len(result.rho))
    assert [step.args[0][0] for step in fig.layout.sliders[0].steps] == names
    assert fig.layout.updatemenus[0].buttons[1].args[0] == (None,)
    assert all(len(frame.data[0].marker.color) == len(result.truth) for frame in fig.frames)


def test_sizes_are_drawn_from_the_largest_class_down() -> None:
    got, true, equal = figures.cluster_sizes(plan()).data
    assert np.all(np.diff(true.y) <= 0) and np.isclose(sum(got.y), 1, atol=1e-6)
    assert np.allclose(equal.y, 0.2)
