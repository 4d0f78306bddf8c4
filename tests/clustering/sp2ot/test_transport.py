"""Partial transport: invariants, limits, first-order condition, reference numbers, independent solvers as oracles."""

import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from lab.clustering.sp2ot import kernel as kernels
from lab.clustering.sp2ot.arrays import Arrays
from lab.clustering.sp2ot.certificate import first_order_spread
from lab.clustering.sp2ot.kernel import Kernel
from lab.clustering.sp2ot.transport import partial_uot

LOGITS = np.array([[2, 0, -1], [1.5, 0.5, 0], [0, 1, 0.2], [3, -1, 0], [0.1, 0, 2], [1, 1, 1.0]])
MASSES = [0.05, 0.5, 0.9, 1.0]


def cost(n: int = 30, k: int = 5, seed: int = 0) -> np.ndarray:
    return -np.log(np.random.default_rng(seed).dirichlet(np.ones(k), n))


def softmax_cost(logits: np.ndarray) -> np.ndarray:
    return np.log(np.exp(logits).sum(1, keepdims=True)) - logits


def total(Q: np.ndarray, M: np.ndarray, rho: float, reg: float, reg_m: float, b: np.ndarray, a: np.ndarray) -> float:
    """The objective, written out on its own."""
    full = np.column_stack([Q, np.clip(a - Q.sum(1), 0, None)]) if rho < 1 else Q
    c = Q.sum(0)
    kl = 0.0 if np.isinf(reg_m) else reg_m * float((c * np.log(c / (rho * b)) - c + rho * b).sum())
    entropy = float((full * (np.log(np.where(full > 0, full, 1)) - 1)).sum())
    return float((Q * M).sum()) + kl + reg * entropy


# ---------------------------------------------------------------------------------------------- the plan's invariants


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 25),
    k=st.integers(1, 7),
    rho=st.floats(0.01, 1.0),
    reg=st.sampled_from([0.05, 0.1, 1.0]),
    reg_m=st.sampled_from([0.0, 0.1, 1.0, 10.0, np.inf]),
    scale=st.sampled_from([0.1, 1.0, 5.0]),
    seed=st.integers(0, 2**16),
    single=st.booleans(),
)
def test_plan_is_feasible_for_any_problem(
    n: int, k: int, rho: float, reg: float, reg_m: float, scale: float, seed: int, single: bool
) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(k))
    M = (scale * rng.standard_normal((n, k))).astype(np.float32 if single else np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        Q = partial_uot(M, rho, reg=reg, reg_m=reg_m, a=a, b=b)
    assert Q.dtype == M.dtype and Q.shape == M.shape
    assert (Q >= 0).all()
    assert abs(Q.sum(dtype=float) - rho) < 2e-6
    assert (Q.sum(1) <= a * (1 + 1e-5) + 1e-12).all()


@pytest.mark.parametrize("rho", MASSES)
@pytest.mark.parametrize("method", ["anderson", "scaling", "log"])
def test_all_methods_agree(method: str, rho: float) -> None:
    M = cost()
    Q, info = partial_uot(M, rho, method=method, tol=1e-13, max_iter=20000, log=True)
    P, other = partial_uot(M, rho, tol=1e-13, log=True)
    np.testing.assert_allclose(Q, P, atol=1e-12)
    np.testing.assert_allclose(info["g"][:5], other["g"][:5], atol=1e-9)
    assert info["converged"] and len(info["err"]) == info["n_iter"]
    assert (info["g"][5] == -np.inf) == (rho == 1.0)


def test_virtual_column_takes_what_is_left() -> None:
    M, rho = cost(), 0.3
    Q, info = partial_uot(M, rho, tol=1e-13, log=True)
    weight = np.exp(info["g"] - np.column_stack([M, np.zeros(len(M))]) / 0.1)
    full = weight / weight.sum(1, keepdims=True) / len(M)
    np.testing.assert_allclose(full[:, :-1], Q, atol=1e-14)
    assert full[:, -1].sum() == pytest.approx(1 - rho, abs=1e-12)


@pytest.mark.parametrize("rho", MASSES)
def test_limits_of_the_column_weight(rho: float) -> None:
    M = cost()
    hard = partial_uot(M, rho, reg_m=np.inf, tol=1e-12)
    np.testing.assert_allclose(hard.sum(0), rho / 5, rtol=1e-10)
    np.testing.assert_allclose(partial_uot(M, rho, reg_m=1e7, tol=1e-11), hard, atol=1e-7)
    free = partial_uot(M, rho, reg_m=0.0, tol=1e-12)
    np.testing.assert_allclose(partial_uot(M, rho, reg_m=1e-8, tol=1e-12), free, atol=1e-8)
    ratio = np.log(free) + M / 0.1  # free columns: rows are plain softmaxes
    np.testing.assert_allclose(ratio - ratio[:, :1], 0, atol=1e-10)


@pytest.mark.parametrize("rho", [0.2, 1.0])
def test_equivariance(rho: float) -> None:
    M, rng = cost(), np.random.default_rng(1)
    a, b = rng.dirichlet(np.ones(30)), rng.dirichlet(np.ones(5))
    Q = partial_uot(M, rho, a=a, b=b, tol=1e-12)
    i, j = rng.permutation(30), rng.permutation(5)
    np.testing.assert_allclose(partial_uot(M[i][:, j], rho, a=a[i], b=b[j], tol=1e-12), Q[i][:, j], atol=1e-12)


@pytest.mark.parametrize("rho", MASSES)
def test_constants_added_to_the_cost(rho: float) -> None:
    M = cost()
    Q = partial_uot(M, rho, tol=1e-13)
    np.testing.assert_allclose(partial_uot(M + 7.0, rho, tol=1e-13), Q, atol=1e-13)
    change = np.abs(partial_uot(M + np.linspace(0, 1, 30)[:, None], rho, tol=1e-13) - Q).sum()
    assert (change > 0.01) == (rho < 1)  # rows compete with the virtual column, unless there is none


# ------------------------------------------------------------------------------------------- optimality, known numbers


def test_first_order_condition_of_a_fixed_case() -> None:
    rng = np.random.RandomState(0)
    M = softmax_cost(rng.randn(8, 3))
    for rho in (0.2, 0.5, 0.9):
        Q, info = partial_uot(M, rho, tol=1e-14, log=True)
        v = 1 / 8 - Q.sum(1, keepdims=True)
        number = M + 0.1 * np.log(Q / v) + np.log(Q.sum(0) / (rho / 3))
        assert np.ptp(number) < 1e-11
        assert first_order_spread(Q, M, rho) == pytest.approx(np.ptp(number), abs=1e-12)
        assert info["residual"] < 1e-12


@pytest.mark.parametrize("reg_m", [0.0, 0.5, np.inf])
@pytest.mark.parametrize("rho", MASSES)
def test_residual_certifies(rho: float, reg_m: float) -> None:
    M = cost()
    for tol in (1e-2, 1e-5, 1e-11):
        Q, info = partial_uot(M, rho, reg_m=reg_m, tol=tol, log=True)
        assert first_order_spread(Q, M, rho, reg_m=reg_m) < max(2 * info["residual"], 1e-9)
        assert info["residual"] < 40 * tol
    Q = partial_uot(M, rho, reg_m=reg_m, tol=1e-12)
    wrong = Q * np.linspace(0.9, 1.1, 5)
    assert first_order_spread(wrong * rho / wrong.sum(), M, rho, reg_m=reg_m) > 1e-3


@pytest.mark.parametrize("method", ["anderson", "scaling", "log"])
def test_reference_numbers(method: str) -> None:
    Q = partial_uot(softmax_cost(LOGITS), 0.5, method=method, tol=1e-13)
    np.testing.assert_allclose(6 * Q.sum(1), [0.507213, 0.051803, 0.745737, 0.744307, 0.929106, 0.021834], atol=6e-7)
    np.testing.assert_allclose(Q.sum(0), [0.2171565, 0.1275429, 0.1553006], atol=6e-8)
    np.testing.assert_allclose([Q[0, 0], Q[2, 1], Q[4, 2]], [0.08453551, 0.12428368, 0.15485092], atol=1e-8)


@pytest.mark.parametrize("reg_m", [0.3, np.inf])
@pytest.mark.parametrize("rho", [0.4, 1.0])
def test_convex_solver_finds_nothing_better(rho: float, reg_m: float) -> None:
    import cvxpy as cp

    n, k, reg = 5, 3, 0.2
    M, rng = cost(n, k, 3), np.random.default_rng(4)
    a, b = rng.dirichlet(np.ones(n) * 5), rng.dirichlet(np.ones(k) * 5)
    X = cp.Variable((n, k), nonneg=True)
    v = a - cp.sum(X, axis=1)
    columns = cp.sum(X, axis=0)
    value = cp.sum(cp.multiply(M, X)) - reg * (cp.sum(cp.entr(X)) + cp.sum(X))
    constraints = [cp.sum(X) == rho]
    if rho < 1:
        value = value - reg * (cp.sum(cp.entr(v)) + cp.sum(v))
    else:
        constraints = [v == 0]
    if np.isinf(reg_m):
        constraints = [*constraints, columns == rho * b]
    else:
        value = value + reg_m * cp.sum(cp.kl_div(columns, rho * b))
    cp.Problem(cp.Minimize(value), constraints).solve(solver=cp.CLARABEL)
    Q = partial_uot(M, rho, reg=reg, reg_m=reg_m, a=a, b=b, tol=1e-12)
    assert total(Q, M, rho, reg, reg_m, b, a) == pytest.approx(total(X.value, M, rho, reg, reg_m, b, a), abs=1e-6)
    np.testing.assert_allclose(Q, X.value, atol=1e-4)


def test_peers_from_pot() -> None:
    import ot

    M, rng = cost(), np.random.default_rng(2)
    a, b = rng.dirichlet(np.ones(30)), rng.dirichlet(np.ones(5))
    balanced = ot.sinkhorn(a, b, M, 0.1, stopThr=1e-13, numItermax=20000)
    np.testing.assert_allclose(partial_uot(M, 1.0, reg_m=np.inf, a=a, b=b, tol=1e-13), balanced, atol=1e-11)
    relaxed = ot.unbalanced.sinkhorn_unbalanced(
        a, b, M, 0.1, (np.inf, 1.0), reg_type="entropy", stopThr=1e-15, numItermax=20000
    )
    np.testing.assert_allclose(partial_uot(M, 1.0, a=a, b=b, tol=1e-13), relaxed, atol=1e-11)


def test_one_weight_for_all_columns_misses_the_mass() -> None:
    """The virtual column needs an infinite weight of its own: with one weight for all the mass drifts."""
    import ot

    M, rho = cost(200, 10), 0.2
    extended = np.column_stack([M, np.zeros(200)])
    target = np.append(np.full(10, rho / 10), 1 - rho)
    scalar = ot.unbalanced.sinkhorn_unbalanced(
        np.full(200, 1 / 200), target, extended, 0.1, (np.inf, 1.0), reg_type="entropy", numItermax=5000
    )
    assert abs(scalar[:, :-1].sum() - rho) > 0.01
    assert partial_uot(M, rho).sum() == pytest.approx(rho, abs=1e-9)


# ------------------------------------------------------------------------------------------------ numbers and machines


def test_huge_costs_and_rare_columns_stay_finite() -> None:
    M = 500.0 * cost(50, 4)
    M[:, 3] += 4000.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for dtype in (np.float32, np.float64):
            for rho in (0.3, 1.0):
                Q = partial_uot(M.astype(dtype), rho)
                assert np.isfinite(Q).all() and Q.sum() == pytest.approx(rho, abs=1e-5)
    # A column that underflows at first and must be full at the end: the kernel is built again on the way.
    far = np.array([[0.0, 90.0], [0.0, 95.0], [1.0, 80.0]])
    for dtype in (np.float32, np.float64):
        Q, info = partial_uot(far.astype(dtype), 1.0, reg_m=np.inf, reg=0.5, tol=1e-5, log=True)
        np.testing.assert_allclose(Q.sum(0), 0.5, rtol=1e-4)
        assert info["converged"]


def test_scaling_says_when_it_cannot() -> None:
    with pytest.raises(ValueError, match="anderson"):
        partial_uot(1000.0 + cost(), 1.0, method="scaling")


def test_empty_rows_and_columns() -> None:
    M, a, b = cost(), np.full(30, 1 / 20), np.array([0.5, 0.5, 0, 0, 0.0])
    a[20:] = 0
    for rho in (0.4, 1.0):
        Q, info = partial_uot(M, rho, a=a, b=b, tol=1e-10, log=True)
        assert info["converged"] and (Q[20:] == 0).all() and (Q[:, 2:] == 0).all() and Q.sum() == pytest.approx(rho)


def test_mass_just_below_one_meets_one() -> None:
    M = cost()
    np.testing.assert_allclose(partial_uot(M, 1 - 1e-9, tol=1e-10), partial_uot(M, 1.0, tol=1e-10), atol=1e-6)


@pytest.mark.parametrize("rho", MASSES)
@pytest.mark.parametrize("method", ["anderson", "scaling", "log"])
def test_torch_gives_what_numpy_gives(method: str, rho: float) -> None:
    M = cost()
    kw = {"method": method, "tol": 1e-12, "max_iter": 20000}
    Q = partial_uot(torch.tensor(M, requires_grad=True), rho, **kw)
    assert Q.dtype == torch.float64 and not Q.requires_grad
    np.testing.assert_allclose(Q.numpy(), partial_uot(M, rho, **kw), atol=1e-11)
    assert partial_uot(torch.tensor(M, dtype=torch.bfloat16), rho).dtype == torch.float32


@pytest.mark.parametrize("rho", MASSES)
def test_float32_is_near_float64(rho: float) -> None:
    M = cost(2000, 20).astype(np.float32)
    Q, info = partial_uot(M, rho, log=True)
    assert Q.dtype == np.float32 and info["converged"]
    assert np.abs(Q - partial_uot(M.astype(np.float64), rho, tol=1e-12)).sum() < 2e-6
    assert partial_uot((M * 10).astype(int), rho).dtype == np.float64


def test_layout_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    M = cost(300, 5)
    Q = partial_uot(M, 0.5)
    np.testing.assert_allclose(partial_uot(np.asfortranarray(M), 0.5), Q, atol=1e-15)
    monkeypatch.setattr(kernels, "BLOCK_ELEMENTS", 7 * 5)
    np.testing.assert_allclose(partial_uot(M, 0.5), Q, atol=1e-13)


def test_warm_start_saves_iterations() -> None:
    M = cost(200)
    _, cold = partial_uot(M, 0.5, log=True)
    _, warm = partial_uot(M + 1e-4 * cost(200, seed=1), 0.5, warm_start=cold["g"], log=True)
    assert warm["n_iter"] < cold["n_iter"]
    _, again = partial_uot(M, 1.0, warm_start=cold["g"], log=True)
    _, back = partial_uot(M, 0.9, warm_start=again["g"], log=True)  # through rho = 1 and its -inf
    assert again["converged"] and back["converged"]


@pytest.mark.parametrize(("rho", "reg", "reg_m"), [(1.0, 0.05, np.inf), (0.7, 0.02, 100.0)])
def test_sharp_costs_with_hard_sizes_converge(rho: float, reg: float, reg_m: float) -> None:
    for seed in range(10):  # long-tailed, nearly linear programs: full Newton steps overshoot here
        rng = np.random.default_rng(seed)
        share = 10.0 ** (-np.arange(10) / 9)
        truth = rng.choice(10, 300, p=share / share.sum())
        logits = 8 * np.eye(10)[truth] + 1.5 * rng.standard_normal((300, 10))
        cost = np.log(np.exp(logits).sum(1, keepdims=True)) - logits
        options = {"reg": reg, "reg_m": reg_m, "tol": 1e-6, "log": True}
        plan, log = partial_uot(cost, rho, **options)
        assert log["converged"] and log["n_iter"] < 200
        assert first_order_spread(plan, cost, rho, reg=reg, reg_m=reg_m, floor=1e-12) < 1e-3
        nearby = partial_uot(cost + 0.05 * rng.standard_normal(cost.shape), rho, **options)[1]["g"]
        assert partial_uot(cost, rho, warm_start=nearby, **options)[1]["converged"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rho", [0.3, 1.0])
def test_potentials_from_far_away_do_not_overflow(dtype: type, rho: float) -> None:
    rng = np.random.default_rng(0)
    cost = (10 * rng.random((200, 6))).astype(dtype)
    near = partial_uot(cost, rho, tol=1e-5)
    for far in (-600.0, -60.0, 60.0, 600.0):
        start = np.append(far + 100 * rng.standard_normal(6), 0.0)
        assert np.abs(partial_uot(cost, rho, warm_start=start, tol=1e-5) - near).sum() < 1e-4


@pytest.mark.parametrize("start", [1e300, -1e300, 1e8, np.inf])
def test_an_absurd_warm_start_is_no_worse_than_none(start: float) -> None:
    cost = 3 * np.random.default_rng(0).random((40, 4))
    for dtype, tolerance in ((np.float64, 1e-6), (np.float32, 1e-5)):
        for far in (np.full(5, start), np.array([start, -start, 0.0, 1.0, start])):
            plan, log = partial_uot(cost.astype(dtype), 0.5, warm_start=far, log=True)
            assert log["converged"] and np.abs(plan - partial_uot(cost, 0.5)).sum() < tolerance


def test_empty_rows_and_columns_are_no_cause_for_warnings() -> None:
    cost = np.random.default_rng(0).random((6, 3))
    a, b = np.array([0, 1, 1, 1, 1, 1]) / 5, np.array([0.0, 0.5, 0.5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plans = [partial_uot(cost, 0.5, a=a, b=b, method=method, tol=1e-9) for method in ("anderson", "log")]
    assert np.allclose(*plans, atol=1e-8) and not plans[1][0].any() and not plans[1][:, 0].any()


def test_a_plan_that_misses_its_mass_has_not_converged() -> None:
    cost = np.random.default_rng(0).random((30, 4))
    with pytest.warns(ConvergenceWarning):
        log = partial_uot(cost, 1e-9, method="log", log=True)[1]
    assert not log["converged"] and log["residual"] > 1e-3
    assert partial_uot(cost, 1e-9, log=True)[1]["converged"]


@pytest.mark.parametrize("M", [torch.zeros(2, 2, dtype=torch.complex64), torch.eye(2).to_sparse()], ids=["i", "sparse"])
def test_tensors_that_are_no_dense_real_matrix_are_refused(M: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="^M is a .*dense and real"):
        partial_uot(M, 0.5)


@pytest.mark.parametrize(("dtype", "exponent", "weight"), [(np.float64, 200.0, 360.0), (np.float32, 30.0, 50.0)])
def test_squares_of_small_entries_with_large_weights_do_not_overflow(
    dtype: type, exponent: float, weight: float
) -> None:
    cost = np.full((5, 2), exponent, dtype)
    kernel = Kernel(cost, 1.0, Arrays.of(cost))
    kernel.absorb(np.zeros(2))
    sums, squares = kernel.column_sums(np.ones(5), np.full(5, np.exp(weight)))
    assert np.allclose(np.log(sums), np.log(5) - exponent, rtol=1e-5)
    assert squares is not None and np.allclose(np.log(squares), np.log(5) + 2 * (weight - exponent), rtol=1e-5)


def test_few_iterations_where_scaling_needs_hundreds() -> None:
    M = cost(3000, 40)
    for rho in (0.1, 0.5, 0.9, 1.0):
        assert partial_uot(M, rho, log=True)[1]["n_iter"] <= 30


def test_memory_is_that_of_input_and_plan() -> None:
    M = np.random.default_rng(0).random((50_000, 40), dtype=np.float32)
    partial_uot(M[:100], 0.5)
    tracemalloc.start()
    partial_uot(M, 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 1 + peak / M.nbytes < 3


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"M": np.ones(3)}, "M has shape"),
        ({"M": np.ones((0, 3))}, "M has shape"),
        ({"M": np.ones((3, 0))}, "M has"),
        ({"M": np.array([[1, np.nan]])}, "M has a cost"),
        ({"M": np.array([[1, np.inf]])}, "M has a cost"),
        ({"M": np.array([["a", "b"]])}, "M has dtype"),
        ({"rho": 0.0}, "rho=0.0"),
        ({"rho": 1.1}, "rho=1.1"),
        ({"rho": -0.1}, "rho="),
        ({"rho": np.nan}, "rho=nan"),
        ({"reg": 0.0}, "reg=0.0"),
        ({"reg": -1.0}, "reg="),
        ({"reg": np.nan}, "reg=nan"),
        ({"reg_m": -1.0}, "reg_m=-1.0"),
        ({"reg_m": np.nan}, "reg_m=nan"),
        ({"a": np.ones(4) / 4}, "a has shape"),
        ({"a": np.ones(3)}, "a sums to"),
        ({"a": [2.0, -1, 0]}, "a has the"),
        ({"b": np.ones(3) / 3}, "b has shape"),
        ({"b": np.ones(2)}, "b sums to"),
        ({"b": [np.nan, 1.0]}, "b has the"),
        ({"method": "newton"}, "method='newton'"),
        ({"tol": 0.0}, "tol=0.0"),
        ({"max_iter": 0}, "max_iter=0"),
        ({"warm_start": np.zeros(2)}, "warm_start has shape"),
    ],
)
@pytest.mark.parametrize("method", ["anderson", "log"])
def test_bad_input_names_the_argument(method: str, change: dict, message: str) -> None:
    arguments = {"M": cost(3, 2), "rho": 0.5, "method": method, **change}
    with pytest.raises(ValueError, match=message):
        partial_uot(**arguments)


def test_a_certificate_needs_plan_and_cost_of_one_shape() -> None:
    for Q in (np.ones((3, 2)), np.ones(8)):
        with pytest.raises(ValueError, match="^Q has shape"):
            first_order_spread(Q, np.ones((4, 2)), 0.5)


@pytest.mark.parametrize("method", ["anderson", "scaling", "log"])
def test_no_convergence_is_said(method: str) -> None:
    with pytest.warns(ConvergenceWarning, match=r"residual .*max_iter"):
        Q, info = partial_uot(cost(), 0.5, method=method, max_iter=2, tol=1e-12, log=True)
    assert not info["converged"] and np.isfinite(Q).all()


# ------------------------------------------------------------------------------------------------------------- the race


def test_peers_of_the_race_solve_the_same_problem() -> None:
    from lab.clustering.sp2ot import peers, races

    M = peers.long_tailed_cost(200).astype(np.float64)
    assert np.exp(-M).sum(1) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(peers.plain_scaling(M, 0.5, 3000), partial_uot(M, 0.5, tol=1e-12), atol=1e-9)
    np.testing.assert_allclose(peers.pot_unbalanced(M, 1e-12), partial_uot(M, 1.0, tol=1e-12), atol=1e-8)
    reference = partial_uot(M, 0.9, tol=1e-13)
    sweeps, error = races.sweeps_needed(M, 0.9, reference)
    assert error <= races.ERROR < np.abs(peers.plain_scaling(M, 0.9, int(sweeps * 0.9)) - reference).sum()
    assert races.loosest(lambda tol: partial_uot(M, 0.9, tol=tol), [1.0, 1e-9], reference)[0] == 1e-9
    assert races.loosest(lambda tol: reference + tol, [1.0], reference) is None
