"""The clusterer: scikit-learn's own test-suite, what its settings mean, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from lab.clustering.sp2ot import SP2OTClustering
from lab.clustering.sp2ot.estimator import BATCH

# The docstring's table: which settings give which method.
P2OT: dict[str, Any] = {"semantic_weight": 0.0}
UOT: dict[str, Any] = {"semantic_weight": 0.0, "rho0": 1.0}
SELA: dict[str, Any] = {"semantic_weight": 0.0, "rho0": 1.0, "reg_m": np.inf}
CHECKS = """
import json
from sklearn.utils.estimator_checks import check_estimator
from lab.clustering.sp2ot import SP2OTClustering
records = check_estimator(SP2OTClustering(max_iter=2), on_fail=None)
failed = [record["check_name"] for record in records if record["status"] == "failed"]
print(json.dumps([sum(record["status"] == "passed" for record in records), failed]))
"""


def blobs(sizes: tuple[int, ...] = (60, 25, 10), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three clear blobs in five dimensions."""
    return make_blobs(list(sizes), n_features=5, cluster_std=1.0, random_state=seed)


def test_scikit_learn_s_checks() -> None:
    """In a process of its own, without the shape checker: one of the checks gives nonsense to `__init__`."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", CHECKS], capture_output=True, text=True, check=True)
    passed, failed = json.loads(done.stdout)
    assert failed == []
    assert passed > 40


@pytest.mark.parametrize("method", [{}, P2OT, UOT], ids=["SP2OT", "P2OT", "UOT"])
def test_clear_clusters_of_unequal_size_are_found(method: dict[str, Any]) -> None:
    X, truth = blobs()
    model = SP2OTClustering(3, **method, max_iter=40, random_state=0).fit(X)
    assert adjusted_rand_score(truth, model.labels_) > 0.95
    assert sorted(model.cluster_sizes_) == [10, 25, 60]
    near = np.linalg.norm(model.cluster_centers_[:, None] - [X[truth == k].mean(0) for k in range(3)], axis=2)
    assert near.min(1).max() < 1.0


def test_uniform_transport_cuts_the_big_cluster_up() -> None:
    X, _ = blobs((90, 9, 9))
    sizes = SP2OTClustering(3, **SELA, max_iter=60, random_state=0).fit(X).cluster_sizes_
    soft = SP2OTClustering(3, **UOT, reg_m=0.1, max_iter=60, random_state=0).fit(X).cluster_sizes_
    assert max(sizes) < 60 < 80 < max(soft)


@pytest.mark.parametrize("method", [{}, P2OT, UOT, SELA], ids=["SP2OT", "P2OT", "UOT", "SeLa"])
def test_predict_is_the_head_s_argmax_and_the_seed_fixes_everything(method: dict[str, Any]) -> None:
    X, _ = blobs()
    model = SP2OTClustering(3, **method, max_iter=8, n_init=2, random_state=3).fit(X)
    assert np.array_equal(model.predict(X), model.labels_)
    assert np.array_equal(model.predict_proba(X).argmax(1), model.labels_)
    assert np.allclose(model.transform(X), -np.log(model.predict_proba(X)), atol=1e-4)
    again = clone(model).fit(X)
    assert np.array_equal(again.labels_, model.labels_) and np.array_equal(again.objective_, model.objective_)
    assert model.cluster_centers_.shape == (3, 5) and model.n_iter_ == 8 == len(model.rho_path_)


def test_the_mass_grows_and_early_picks_have_more_of_it() -> None:
    X, truth = blobs()
    X = np.r_[X, [X[truth == 0].mean(0) / 2 + X[truth == 1].mean(0) / 2]]  # half-way between two
    model = SP2OTClustering(3, **P2OT, rho0=0.2, rho1=0.8, max_iter=30, random_state=0).fit(X)
    assert np.all(np.diff(model.rho_path_) > 0)
    assert model.rho_path_[-1] == pytest.approx(0.8) and model.rho_path_[0] == pytest.approx(0.204, abs=1e-3)
    assert model.selected_mass_.mean() == pytest.approx(model.rho_path_.mean(), abs=1e-3)
    assert model.selected_mass_[-1] < np.median(model.selected_mass_[:-1][np.isin(truth, (1, 2))])
    everything = SP2OTClustering(3, **UOT, max_iter=4, random_state=0).fit(X)
    assert everything.rho_path_.tolist() == [1.0] * 4
    assert everything.selected_mass_ == pytest.approx(1.0, abs=1e-4)


def test_the_semantic_weight_decides_whether_neighbours_count() -> None:
    X, _ = blobs()

    def losses(weight: float, neighbors: int) -> np.ndarray:
        model = SP2OTClustering(3, semantic_weight=weight, n_neighbors=neighbors, max_iter=6, random_state=0)
        return model.fit(X).objective_

    assert np.array_equal(losses(0.0, 20), losses(0.0, 5))
    assert not np.array_equal(losses(0.5, 20), losses(0.5, 5))
    assert not np.array_equal(losses(0.5, 20), losses(0.0, 20))


def test_the_best_restart_is_kept() -> None:
    X, _ = blobs()
    losses = [
        SP2OTClustering(3, **P2OT, init="random", max_iter=10, n_init=n, random_state=1).fit(X).objective_[-1]
        for n in (1, 4)
    ]
    assert losses[1] <= losses[0]


def test_the_features_origin_and_unit_do_not_matter() -> None:
    X, _ = blobs()
    one = SP2OTClustering(3, **P2OT, max_iter=10, random_state=0).fit(X)
    assert np.array_equal(
        SP2OTClustering(3, **P2OT, max_iter=10, random_state=0).fit(1e3 * X + 1e5).labels_, one.labels_
    )


def test_encoder_and_views_of_one_s_own() -> None:
    X, truth = blobs()
    noise = 100 * np.random.default_rng(0).standard_normal((len(X), 1))
    calls = []

    def drop_last(x: torch.Tensor) -> torch.Tensor:
        return x[:, :-1]

    def jitter(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        calls.append(len(x))
        return x + 0.1 * torch.randn(x.shape, generator=generator)

    model = SP2OTClustering(3, **P2OT, encoder=drop_last, view_fn=jitter, max_iter=20, random_state=0).fit(
        np.c_[X, noise]
    )
    assert adjusted_rand_score(truth, model.labels_) > 0.95
    assert len(calls) == 40, "two views a step"


def test_more_samples_than_a_batch_are_labelled_from_a_memory() -> None:
    X, truth = make_blobs([BATCH, 600, 200], n_features=3, random_state=1)
    model = SP2OTClustering(3, **P2OT, max_iter=12, random_state=0).fit(X)
    assert adjusted_rand_score(truth, model.labels_) > 0.9
    assert model.selected_mass_.shape == (len(X),)


def test_a_watcher_sees_each_step_and_may_end_the_fit() -> None:
    def stop(step: Any) -> None:
        if step.index == 2:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        SP2OTClustering(3, **P2OT, max_iter=1000, random_state=0).fit(blobs()[0], watch=stop)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"n_clusters": 0}, "n_clusters"),
        ({"n_clusters": 1000}, "n_clusters"),
        ({"reg": 0.0}, "reg"),
        ({"reg": float("nan")}, "reg"),
        ({"reg_m": -1.0}, "reg_m"),
        ({"rho0": 0.0}, "rho0"),
        ({"rho0": 1.5}, "rho0"),
        ({"rho1": -0.1}, "rho1"),
        ({"rho0": 0.9, "rho1": 0.5}, "rho0"),
        ({"semantic_weight": -0.1}, "semantic_weight"),
        ({"semantic_weight": float("inf")}, "semantic_weight"),
        ({"n_neighbors": 0}, "n_neighbors"),
        ({"lr": 0.0}, "lr"),
        ({"max_iter": 0}, "max_iter"),
        ({"n_init": 0}, "n_init"),
        ({"init": "zeros"}, "init"),
    ],
)
def test_a_bad_argument_is_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named}="):
        SP2OTClustering(**{"n_clusters": 3, "max_iter": 2, **arguments}).fit(blobs()[0])


@pytest.mark.parametrize(
    ("X", "what"),
    [
        (np.zeros((0, 3)), "0 sample"),
        (np.ones((1, 3)), "minimum of 2"),
        (np.ones((20, 3)), "constant"),
        (np.full((20, 3), 1e8), "constant"),
        (np.array([[1.0, np.nan]] * 9), "NaN"),
        (np.array([[1.0, np.inf]] * 9), "infinity"),
        (np.ones(9), "1D array"),
        (1e200 * np.arange(20.0)[:, None], "too large"),
        (1e-40 * np.arange(20.0)[:, None], "constant"),
    ],
)
def test_bad_data_is_refused(X: np.ndarray, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        SP2OTClustering(2, max_iter=2).fit(X)


@pytest.mark.parametrize("unit", [1e-20, 1e25])
def test_features_of_any_usual_size_are_clustered(unit: float) -> None:
    X, truth = blobs()
    model = SP2OTClustering(3, **P2OT, max_iter=20, random_state=0).fit((unit * X).astype(np.float32))
    assert adjusted_rand_score(truth, model.labels_) > 0.9 and np.isfinite(model.cluster_centers_).all()
    with pytest.raises(ValueError, match="1e15 times"):
        model.predict(np.full((2, X.shape[1]), 1e40 * unit))
