"""Is this plan optimal? The first-order condition, read off the plan alone.

At the optimum of partial transport with soft columns (arXiv 2401.09266) the number ::

    (1)  mu_ij = C_ij + eps log(Q_ij / v_i) + gamma log(c_j / (rho b_j)),   v_i = a_i - sum_j Q_ij,   c_j = sum_i Q_ij

is the same for all (i, j). At rho = 1 there is no virtual mass v_i and the number is free in each row, so it
must only agree along rows. A hard column (gamma infinite) has a number of its own, and its sum must be met instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def first_order_spread(
    Q: Any,
    M: Any,
    rho: float,
    *,
    reg: float = 0.1,
    reg_m: float = 1.0,
    a: Any = None,
    b: Any = None,
    floor: float = 1e-30,
) -> float:
    r"""Largest violation of the first-order condition of a plan, in the unit of the cost; 0 at the optimum.

    .. math:: \mu_{ij} = M_{ij} + \varepsilon\log\frac{Q_{ij}}{v_i} + \gamma\log\frac{c_j}{\rho\,b_j}
              \quad\text{is the same for all } i, j;\qquad v_i=a_i-\sum_j Q_{ij},\quad c_j=\sum_i Q_{ij}.

    Parameters
    ----------
    Q, M : array (N, K)
        Plan and cost.
    rho, reg, reg_m, a, b
        As in :func:`lab.clustering.sp2ot.transport.partial_uot`.
    floor : float
        Entries below ``floor`` times the largest one are left out: their logarithm is rounding, or -inf. Raise it for
        a plan in float32, or one that was stopped early.

    Returns
    -------
    float
        max - min of :math:`\mu` over the entries that count (per row where the row is free; per column where the column
        is hard), or the largest relative miss of a hard column sum or of the total mass, whichever is larger.

    Raises
    ------
    ValueError
        Q and M are not matrices of one shape.

    Examples
    --------
    >>> import numpy as np
    >>> first_order_spread(np.full((2, 2), 0.25), np.ones((2, 2)), 1.0)
    0.0
    """
    Q, M = (np.asarray(x.detach().cpu() if hasattr(x, "detach") else x, dtype=np.float64) for x in (Q, M))
    if Q.ndim != 2 or Q.shape != M.shape:
        raise ValueError(f"Q has shape {Q.shape}: it must be a matrix of M's shape, {M.shape}")
    n, k = Q.shape
    a = np.full(n, 1.0 / n) if a is None else np.asarray(a, dtype=np.float64)
    b = np.full(k, 1.0 / k) if b is None else np.asarray(b, dtype=np.float64)
    columns = Q.sum(0)  # c, (K,)
    virtual = a - Q.sum(1)  # v, (N,)
    miss = abs(columns.sum() / rho - 1.0)
    counts = Q.max() * floor < Q
    if rho < 1:
        # A row that gave (almost) all its mass has a virtual mass of pure rounding: it says nothing.
        counts &= (virtual > 64 * np.finfo(np.float64).eps * a)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        # (1), (N, K); a term that is the same along what is free is left out
        mu = M + reg * np.log(Q)
        if rho < 1:
            mu = mu - reg * np.log(virtual)[:, None]
        if np.isinf(reg_m):
            miss = max(miss, float(np.abs(columns - rho * b).max() / (rho * b[b > 0].min())))
        elif reg_m > 0:
            mu = mu + reg_m * np.log(columns / (rho * b))
    if not counts.any():
        return float(miss)
    mu = np.where(counts, mu, np.nan)
    return float(max(miss, _spread(mu, free_rows=rho == 1, free_columns=bool(np.isinf(reg_m)))))


def _spread(mu: np.ndarray, free_rows: bool, free_columns: bool) -> float:
    """Max - min of ``mu`` after removing the freedom of each row and column, NaN entries left out."""
    mu = mu[:, ~np.isnan(mu).all(0)]
    mu = mu[~np.isnan(mu).all(1)]
    for _ in range(1000 if free_rows and free_columns else 1):  # with gaps, both at once need a few rounds
        before = mu
        mu = mu - np.nanmean(mu, 1, keepdims=True) if free_rows else mu
        mu = mu - np.nanmean(mu, 0, keepdims=True) if free_columns else mu
        if np.nanmax(np.abs(mu - before)) < 1e-14:
            break
    return float(np.nanmax(mu) - np.nanmin(mu))
