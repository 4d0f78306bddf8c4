"""The semantic term: majorize-minimize descends where it must, its caveat is recorded, the similarity is checked."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from lab.clustering.sp2ot.semantic import objective, relative_weight, sp2ot_plan
from lab.clustering.sp2ot.similarity import knn_similarity
from lab.clustering.sp2ot.transport import partial_uot


def problem(n: int = 60, k: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return -np.log(rng.dirichlet(np.ones(k), n)), rng.standard_normal((n, 4))


def psd(X: np.ndarray) -> np.ndarray:
    return np.exp(-((X[:, None] - X[None]) ** 2).sum(-1) / 8)


@pytest.mark.parametrize("rho", [0.3, 1.0])
@pytest.mark.parametrize("lam", [0.5, 50.0])
def test_descends_with_a_positive_semidefinite_similarity(rho: float, lam: float) -> None:
    M, X = problem()
    _, info = sp2ot_plan(M, psd(X), rho, lam, mm_tol=1e-12, log=True)
    assert np.diff(info["objective"]).max() <= 1e-9
    assert info["rises"] == [] and len(info["objective"]) == info["n_mm"] + 1


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), rho=st.floats(0.05, 1.0), lam=st.floats(0.0, 100.0))
def test_shift_makes_any_neighbour_similarity_descend(seed: int, rho: float, lam: float) -> None:
    M, X = problem(30, 4, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        Q, info = sp2ot_plan(M, knn_similarity(X, 5), rho, lam, psd_shift=True, max_mm=10, log=True)
    assert np.diff(info["objective"]).max() <= 1e-9
    assert np.isfinite(Q).all() and Q.sum() == pytest.approx(rho, abs=1e-8)
    S = knn_similarity(X, 5).toarray()
    assert np.linalg.eigvalsh((S + S.T) / 2 + info["shift"] * np.eye(30)).min() > -1e-9


def test_neighbour_similarity_can_rise_and_says_so() -> None:
    M, X = problem(200, 6)
    S = knn_similarity(X, 10)
    assert np.linalg.eigvalsh((S + S.T).toarray()).min() < 0
    with pytest.warns(ConvergenceWarning, match="psd_shift"):
        _, info = sp2ot_plan(M, S, 0.5, 1000.0, max_mm=40, log=True)
    F = np.array(info["objective"])
    assert info["rises"] == (np.flatnonzero(np.diff(F) > 1e-9) + 1).tolist() != []
    assert not info["converged"]


def test_objective_is_the_sum_of_its_four_terms() -> None:
    M, X = problem()
    S = knn_similarity(X, 5)
    Q, info = sp2ot_plan(M, S, 0.4, 3.0, reg=0.2, reg_m=0.7, log=True)
    terms = objective(Q, M, S, 0.4, 3.0, 0.2, 0.7)
    assert terms["total"] == pytest.approx(info["objective"][-1], abs=1e-13)
    for name, history in info["terms"].items():
        assert terms[name] == pytest.approx(history[-1], abs=1e-13)
    c, v = Q.sum(0), 1 / 60 - Q.sum(1)
    assert terms["transport"] == pytest.approx((Q * M).sum())
    assert terms["semantic"] == pytest.approx(-3.0 * (S.toarray() * (Q @ Q.T)).sum())
    assert terms["column_kl"] == pytest.approx(0.7 * (c * np.log(c / 0.08)).sum(), abs=1e-9)
    assert terms["entropy"] == pytest.approx(0.2 * ((Q * (np.log(Q) - 1)).sum() + (v * (np.log(v) - 1)).sum()))


def test_stationary_point_solves_its_own_linearisation() -> None:
    M, X = problem()
    S = psd(X)
    Q = sp2ot_plan(M, S, 0.5, 2.0, mm_tol=1e-15, tol=1e-13, max_mm=500)
    np.testing.assert_allclose(partial_uot(M - 2.0 * (S + S.T) @ Q, 0.5, tol=1e-13), Q, atol=1e-6)


def test_no_weight_is_plain_partial_transport() -> None:
    M, X = problem()
    Q, info = sp2ot_plan(M, knn_similarity(X, 5), 0.5, 0.0, log=True)
    np.testing.assert_array_equal(Q, partial_uot(M, 0.5))
    assert info["n_mm"] == 1 and info["converged"]


def test_neighbours_come_to_share_a_label() -> None:
    M, X = problem(200, 6)
    S = knn_similarity(X, 10)
    plans = [sp2ot_plan(M, S, 0.5, lam) for lam in (0.0, 5.0, 20.0)]
    agreement = [float((S.toarray() * (Q @ Q.T)).sum()) for Q in plans]
    assert agreement[0] < agreement[1] < agreement[2]


def test_official_absolute_weight_at_fifty_samples_stays_finite() -> None:
    M, X = problem(50, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for dtype in (np.float64, np.float32):
            Q, info = sp2ot_plan(M.astype(dtype), knn_similarity(X, 10), 0.2, 1000.0, log=True)
            assert np.isfinite(Q).all() and np.isfinite(info["objective"]).all()
            assert Q.sum() == pytest.approx(0.2, abs=1e-6)


def test_similarity_formats_and_torch_agree() -> None:
    M, X = problem()
    S = knn_similarity(X, 5)
    Q = sp2ot_plan(M, S, 0.5, 2.0)
    coo = torch.tensor(S.toarray()).to_sparse_coo()
    for other in (S.toarray(), sp.coo_matrix(S), sp.csr_array(S)):
        np.testing.assert_allclose(sp2ot_plan(M, other, 0.5, 2.0), Q, atol=1e-12)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support")
        for other in (S, coo, coo.to_sparse_csr(), torch.tensor(S.toarray())):
            P = sp2ot_plan(torch.tensor(M), other, 0.5, 2.0)
            assert P.dtype == torch.float64
            np.testing.assert_allclose(P.numpy(), Q, atol=1e-10)
        single = sp2ot_plan(torch.tensor(M, dtype=torch.float32), S, 0.5, 2.0)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), Q, atol=1e-6)


def test_gaussian_neighbours_by_brute_force() -> None:
    X = np.random.default_rng(0).standard_normal((40, 3))
    gram = np.exp(-((X[:, None] - X[None]) ** 2).sum(-1) / (2 * 1.5**2 * 3))
    np.fill_diagonal(gram, 0)
    keep = gram >= np.sort(gram, 1)[:, -7][:, None]
    S = knn_similarity(X, 7, bandwidth=1.5)
    assert sp.issparse(S) and S.format == "csr" and S.nnz == 40 * 7
    np.testing.assert_allclose(S.toarray(), gram * keep, atol=1e-12)


def test_constant_features_and_few_samples() -> None:
    S = knn_similarity(np.ones((6, 2)), k=3)
    assert S.diagonal().sum() == 0 and S.sum(1).tolist() == [[3.0]] * 6
    assert knn_similarity(np.random.default_rng(0).random((4, 2)), k=20).nnz == 12
    assert knn_similarity(torch.rand(5, 2), k=2).dtype == np.float32


def test_relative_weight_and_the_published_one() -> None:
    assert relative_weight(1000 / 5120, 5120, 0.0) == pytest.approx(1000)
    assert relative_weight(0.2, 700, 1.0) == 0.0
    with pytest.raises(ValueError, match="semantic_weight=-1"):
        relative_weight(-1.0, 10, 0.5)
    with pytest.raises(ValueError, match="n=0"):
        relative_weight(0.2, 0, 0.5)
    with pytest.raises(ValueError, match=r"rho=2\.0"):
        relative_weight(0.2, 10, 2.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"S": -np.eye(4)}, "S has the negative"),
        ({"S": np.full((4, 4), np.nan)}, "S has a similarity"),
        ({"S": np.eye(3)}, "S has shape"),
        ({"S": np.ones(4)}, "S has shape"),
        ({"lam": -1.0}, "lam="),
        ({"lam": np.nan}, "lam=nan"),
        ({"max_mm": 0}, "max_mm=0"),
        ({"mm_tol": -1.0}, "mm_tol="),
        ({"rho": 0.0}, "rho=0.0"),
        ({"reg": -1.0}, "reg=-1.0"),
        ({"M": np.full((4, 2), np.nan)}, "M has a cost"),
        ({"M": np.ones(4)}, "M has shape"),
    ],
)
def test_bad_plan_input_names_the_argument(change: dict, message: str) -> None:
    arguments = {"M": np.ones((4, 2)), "S": np.eye(4), "rho": 0.5, "lam": 1.0, **change}
    with pytest.raises(ValueError, match=message):
        sp2ot_plan(**arguments)


def test_objective_checks_its_plan() -> None:
    with pytest.raises(ValueError, match="Q has shape"):
        objective(np.ones((3, 2)), np.ones((4, 2)), np.eye(4), 0.5, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.ones(3)}, "X has shape"),
        ({"X": np.ones((1, 2))}, "X has shape"),
        ({"X": np.ones((3, 0))}, "X has"),
        ({"X": np.array([[np.nan], [1.0]])}, "X has entries"),
        ({"k": 0}, "k=0"),
        ({"bandwidth": 0.0}, r"bandwidth=0\.0"),
        ({"bandwidth": np.nan}, "bandwidth=nan"),
    ],
)
def test_bad_features_name_the_argument(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        knn_similarity(**{"X": np.ones((4, 2)), "k": 2, **change})
