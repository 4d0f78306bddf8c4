"""Partial transport of a fixed mass with soft column sums: one step's pseudo-labels (arXiv 2401.09266, 2404.03446).

Each sample may give at most its share, the most confident ones give first, and the cluster sizes are pulled towards
their target by a Kullback-Leibler penalty rather than forced. The inequality of the rows becomes an equality by one more
column, the virtual cluster, which takes what a row does not give (equations of this file; the papers give them as
"virtual cluster" and "scaling algorithm")::

    (1)  C~ = [C, 0],   target~ = [rho b, 1 - rho],   weights~ = [gamma, ..., gamma, inf]
    (2)  Q~ = diag(u) exp(-C~ / eps) diag(exp g),   f_j = gamma_j / (gamma_j + eps): the exponent of a column's scaling
    (3)  C_ij + eps log(Q_ij / v_i) + gamma log(c_j / (rho b_j)) is the same for all i, j  (first-order condition;
         v_i what row i keeps back, c_j the column sums)

`published` iterates the papers' scaling, `anderson` reaches the same plan in fewer steps, `certificate` checks (3).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from lab.clustering.sp2ot import anderson, published
from lab.clustering.sp2ot.arrays import Arrays, is_tensor
from lab.clustering.sp2ot.kernel import Kernel

METHODS = ("anderson", "scaling", "log")
MISS = 1e-3  # a plan that misses the mass by more, relatively, has not converged, whatever the stop rule says


def partial_uot(
    M: Any,
    rho: float,
    *,
    reg: float = 0.1,
    reg_m: float = 1.0,
    a: Any = None,
    b: Any = None,
    method: str = "anderson",
    warm_start: Any = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
    log: bool = False,
) -> Any:
    r"""Plan of entropic partial transport with total mass ``rho`` and soft column sums.

    .. math:: \min_{Q\ge 0}\ \langle Q,M\rangle + \gamma\,KL(Q^T1\,\|\,\rho b)
              + \varepsilon\sum_{ij}\tilde Q_{ij}(\log\tilde Q_{ij}-1)
              \quad\text{s.t.}\quad Q1\le a,\ 1^TQ1=\rho,

    where :math:`\tilde Q=[Q,\ a-Q1]` has the virtual column that takes the mass left out. Special cases: ``rho=1`` is
    unbalanced transport (no virtual column, rows exact); ``reg_m=inf`` partial transport with hard column sums; both
    together balanced Sinkhorn (SeLa); ``reg_m=0`` leaves the columns free.

    Parameters
    ----------
    M : array (N, K), NumPy or torch, float32 or float64
        Cost, for instance ``-log`` of predicted probabilities. May be a ``numpy.memmap``. No gradient is taken.
    rho : float in (0, 1]
        Total mass to transport.
    reg : float > 0
        Entropy weight :math:`\varepsilon`, in the unit of the cost.
    reg_m : float >= 0, or inf
        Weight :math:`\gamma` of the column penalty, in the unit of the cost.
    a, b : array (N,), (K,), optional
        Row capacities and column shares, nonnegative, each summing to 1. Default: uniform.
    method : "anderson", "scaling" or "log"
        The accelerated solver; the published iteration; the latter in logarithms (float64, slow: an oracle).
    warm_start : array (K+1,), optional
        Potentials ``g`` of an earlier solve, of any N, rho or method.
    tol : float
        Stop when one more plain sweep would move no column potential (in units of ``reg``) by more than this; "scaling"
        keeps its published rule, the 2-norm of the change of b. In float32 no less than 16 machine epsilons (2e-6).
    max_iter : int
        Largest number of iterations.
    log : bool
        Also return the dictionary below.

    Returns
    -------
    Q : array (N, K)
        The plan, in the library, dtype and device of ``M``. ``N * Q.sum(1)`` in [0, 1] is each sample's confidence.
    log : dict, if ``log=True``
        ``g`` (K+1,) potentials over reg, the virtual one last (-inf at rho = 1); ``n_iter``; ``err`` per iteration;
        ``mass``; ``residual``, the spread over columns of the first-order condition
        :math:`M+\varepsilon\log(Q/v)+\gamma\log(c/\rho b)` (in the unit of the cost; for hard columns the largest
        relative miss of a column sum) or the relative miss of the mass if larger; ``converged``.

    Raises
    ------
    ValueError
        For an argument out of range, naming it. A solve that does not converge gives sklearn's ConvergenceWarning.

    References
    ----------
    Zhang, Ren, He: P2OT (arXiv 2401.09266) and SP2OT (arXiv 2404.03446). Chizat et al., Scaling algorithms for
    unbalanced optimal transport (arXiv 1607.05816).

    Examples
    --------
    >>> import numpy as np
    >>> partial_uot(np.array([[0.0, 2.0], [2.0, 1.0]]), 0.5).round(3)
    array([[0.349, 0.   ],
           [0.   , 0.151]])
    """
    _check_scalars(rho, reg, reg_m, method, tol, max_iter)
    cost, arrays = check_cost(M)
    n, k = cost.shape
    rows, shares = check_weights("a", a, n, arrays), arrays.host(check_weights("b", b, k, arrays))
    f = 1.0 if np.isinf(reg_m) else reg_m / (reg_m + reg)  # (2), of the real columns
    g = _check_warm_start(warm_start, k, 40.0 if arrays.eps > 1e-10 else 300.0)
    floor = max(tol, 16 * arrays.eps)
    if method == "anderson":
        plan, g, columns, err = _accelerated(cost, rows, rho, f, reg, shares, g, floor, max_iter, arrays)
    else:
        size = k if rho == 1 else k + 1
        target = np.append(rho * shares, 1.0 - rho)[:size]  # (1): target~
        exponents = np.append(np.full(k, f), 1.0)[:size]  # (2): 1 for the virtual column, whose gamma is infinite
        iterate = published.scaling if method == "scaling" else published.log_domain
        plan, g, err = iterate(cost, rows, target, exponents, reg, g[:size], floor, max_iter, arrays)
        g = np.append(g, -np.inf) if rho == 1 else g
        columns = _column_sums(plan, arrays)
    mass = float(columns.sum())
    residual = _residual(columns, g[:k], rho, shares, reg, reg_m)
    converged = bool(err[-1] < floor and abs(mass / rho - 1.0) < MISS)
    if not converged:
        _warn(method, len(err), err[-1], floor, residual)
    if not log:
        return plan
    return plan, {
        "g": g,
        "n_iter": len(err),
        "err": err,
        "mass": mass,
        "residual": residual,
        "converged": converged,
    }


def _accelerated(
    cost: Any,
    rows: Any,
    rho: float,
    f: float,
    reg: float,
    shares: np.ndarray,
    g: np.ndarray,
    tol: float,
    max_iter: int,
    arrays: Arrays,
) -> tuple[Any, np.ndarray, np.ndarray, list[float]]:
    """The plan (N, K), g (K+1,), column sums (K,) and the error per iteration, by `anderson`."""
    k = len(shares)
    # A share of 0 forces its column to be empty, unless the columns are free.
    empty = (shares == 0) & (f > 0)
    with np.errstate(divide="ignore"):
        log_target = np.log(rho * shares)
    kernel = Kernel(cost, reg, arrays)
    g = g - np.median(g[:k])  # a common shift changes nothing, but it costs digits
    start = anderson.State(np.where(empty, -np.inf, g[:k]), float(g[k]))
    state, err = anderson.solve(kernel, arrays.put(rows, double=True), rho, f, log_target, start, tol, max_iter)
    # The plan fixes the potentials up to a constant. Take the one at which plain scaling stands still: its step
    # g_j <- f (log target_j - log c_j + g_j) changes nothing where phi_j = 0 in `anderson`'s (4): g = h - phi / (1 - f).
    columns = np.exp(state.log_columns)
    offset = float(columns @ state.phi) / float(columns.sum()) / (1.0 - f) if f < 1 else float(np.mean(state.h[~empty]))
    g = np.append(state.h, state.log_theta if rho < 1 else -np.inf) - offset
    return kernel.into_plan(state.u, state.b), g, columns, err


def _column_sums(plan: Any, arrays: Arrays) -> np.ndarray:
    """c (K,), summed in float64 over blocks of rows."""
    step = max(1, 2**20 // plan.shape[1])
    return np.sum([arrays.host(plan[i : i + step].sum(0)) for i in range(0, len(plan), step)], axis=0)


def _residual(columns: np.ndarray, h: np.ndarray, rho: float, shares: np.ndarray, reg: float, reg_m: float) -> float:
    """Spread of (3) from K numbers: rows are exact, so C_ij + eps log(Q_ij / v_i) is eps (h_j - g_virtual)."""
    miss = abs(float(columns.sum()) / rho - 1.0)
    if np.isinf(reg_m):
        return max(miss, float(np.abs(columns / rho - shares).max() / shares[shares > 0].min()))
    used = (columns > 0) & (shares > 0)
    condition = reg * h[used]
    if reg_m > 0:
        condition = condition + reg_m * np.log(columns[used] / (rho * shares[used]))
    return max(miss, float(np.ptp(condition)) if used.any() else 0.0)


def _warn(method: str, n_iter: int, err: float, tol: float, residual: float) -> None:
    from sklearn.exceptions import ConvergenceWarning

    advice = "raise max_iter, tol or reg" + ("" if method == "anderson" else ', or use method="anderson"')
    warnings.warn(
        f'partial_uot(method="{method}") stopped after {n_iter} iterations at an error of {err:.2g} (tol={tol:.2g}; '
        f"first-order residual {residual:.2g}): {advice}",
        ConvergenceWarning,
        stacklevel=3,
    )


def _check_scalars(rho: float, reg: float, reg_m: float, method: str, tol: float, max_iter: int) -> None:
    if not 0.0 < rho <= 1.0:
        raise ValueError(f"rho={rho!r} is not a mass: it must lie in (0, 1]")
    if not 0.0 < reg < np.inf:
        raise ValueError(f"reg={reg!r} must be a positive, finite entropy weight")
    if not reg_m >= 0.0:
        raise ValueError(f"reg_m={reg_m!r} must be a weight >= 0 (inf for hard column sums)")
    if method not in METHODS:
        raise ValueError(f"method={method!r} is unknown: choose one of {', '.join(METHODS)}")
    if not tol > 0.0:
        raise ValueError(f"tol={tol!r} must be positive")
    if max_iter < 1:
        raise ValueError(f"max_iter={max_iter!r} must be at least 1")


def check_cost(M: Any) -> tuple[Any, Arrays]:
    """The cost (N, K) in its working dtype, and the library it is solved in; ValueError for anything but a cost matrix."""
    M = M.detach() if is_tensor(M) else np.asarray(M)
    if is_tensor(M) and (M.is_complex() or str(M.layout) != "torch.strided"):
        raise ValueError(f"M is a {M.dtype} tensor with layout {M.layout}: it must be dense and real")
    if M.ndim != 2 or 0 in M.shape:
        raise ValueError(f"M has shape {tuple(M.shape)}: it must be a cost matrix (N, K) with N, K >= 1")
    if not is_tensor(M) and M.dtype.kind not in "fiub":
        raise ValueError(f"M has dtype {M.dtype}: it must be real numbers")
    arrays = Arrays.of(M)
    return (M if M.dtype == arrays.dtype else arrays.put(M)), arrays


def check_weights(name: str, weights: Any, size: int, arrays: Arrays) -> Any:
    """Weights (size,) in float64, summing to 1; uniform for None. ValueError for what sums to something else."""
    if weights is None:
        return arrays.put(np.full(size, 1.0 / size), double=True)
    weights = arrays.put(weights, double=True)
    if tuple(weights.shape) != (size,):
        raise ValueError(f"{name} has shape {tuple(weights.shape)}: it must be ({size},), one weight each")
    if not float(weights.min()) >= 0.0:
        raise ValueError(f"{name} has the entry {float(weights.min())!r}: weights must be >= 0 and not NaN")
    total = float(weights.sum())
    if not abs(total - 1.0) < 1e-5:
        raise ValueError(f"{name} sums to {total!r}: it must sum to 1")
    return weights / total


def _check_warm_start(g: Any, k: int, farthest: float) -> np.ndarray:
    """Potentials to begin with: the ones given, brought near each other where they are too far apart to be of help."""
    if g is None:
        return np.zeros(k + 1)
    g = np.array(g.detach().cpu() if is_tensor(g) else g, dtype=np.float64)
    if g.shape != (k + 1,) or np.isnan(g).any():
        raise ValueError(
            f"warm_start has shape {g.shape}{' and holds NaN' if np.isnan(g).any() else ''}: it must be the potentials "
            f"g ({k + 1},) of an earlier solve"
        )
    g = np.where(np.isfinite(g), g, 0.0)
    if np.abs(g).max() <= farthest:
        return g
    return np.clip(g - np.median(g[:k]), -farthest, farthest)
