"""The published iteration, in kernel form and in logarithms: slower than the default, and the measure of it.

With the virtual column appended (cost 0, target 1 - rho) and M = exp(-C~ / eps), (N, K+1), repeat::

    (1)  u_i = a_i / (M b)_i
    (2)  b_j = (target_j / (M^T u)_j)^f_j,   f_j = gamma / (gamma + eps) for j <= K,   f_{K+1} = 1
    (3)  Q = diag(u) M diag(b), without its last column

(arXiv 2401.09266, the scaling algorithm of partial transport; arXiv 2404.03446 uses it inside majorize-minimize.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lab.clustering.sp2ot.arrays import Arrays


def scaling(
    cost: Any,
    a: Any,
    target: np.ndarray,
    f: np.ndarray,
    reg: float,
    g: np.ndarray,
    tol: float,
    max_iter: int,
    arrays: Arrays,
) -> tuple[Any, np.ndarray, list[float]]:
    """Plan (N, K), log b (K or K+1,) and the history of the published stop rule ``norm(b - b_previous)``.

    ``target`` and ``f`` have K+1 entries, or K at rho = 1, where the virtual column (its target is 0) is left out.
    Costs of more than about 88 reg (float32) or 700 reg (float64) over- or underflow: ValueError.
    """
    n, k = cost.shape
    columns = len(target)
    kernel = arrays.empty((n, columns))
    arrays.xp.multiply(cost, -1.0 / reg, out=kernel[:, :k])
    arrays.xp.exp(kernel[:, :k], out=kernel[:, :k])
    kernel[:, k:] = 1.0
    target, f, b = arrays.put(target), arrays.put(f), arrays.put(np.exp(g))
    a = arrays.put(a)
    errors: list[float] = []
    for _ in range(max_iter):
        with np.errstate(all="ignore"):  # what overflows is refused below
            u = a / (kernel @ b)  # (1), (N,)
            previous, b = b, (target / (u @ kernel)) ** f  # (2), (K+1,)
        errors.append(float(((b - previous) ** 2).sum()) ** 0.5)
        if not np.isfinite(errors[-1]):
            raise ValueError('M / reg leaves the range of the dtype: use method="anderson" or "log", or a larger reg')
        if errors[-1] < tol:
            break
    u = a / (kernel @ b)  # (1): after it the rows are exact
    kernel *= u[:, None]  # (3)
    kernel *= b
    with np.errstate(divide="ignore"):
        return kernel[:, :k], np.log(arrays.host(b)), errors


def log_domain(
    cost: Any,
    a: Any,
    target: np.ndarray,
    f: np.ndarray,
    reg: float,
    g: np.ndarray,
    tol: float,
    max_iter: int,
    arrays: Arrays,
) -> tuple[Any, np.ndarray, list[float]]:
    """The same iteration on g = log b, sums as log-sum-exp in float64: nothing overflows. Errors: max |change of g|."""
    xp = arrays.xp
    n, k = cost.shape
    columns = len(target)
    exponent = arrays.put(np.zeros((n, columns)), double=True)
    exponent[:, :k] = -arrays.put(cost, double=True) / reg
    if not bool(xp.isfinite(exponent).all()):
        raise ValueError("M has a cost that is NaN or infinite: make it finite")
    with np.errstate(divide="ignore"):
        log_a, log_target = xp.log(arrays.put(a, double=True)), np.log(target)
    errors: list[float] = []
    for _ in range(max_iter):
        log_u = log_a - _lse(exponent + arrays.put(g, double=True), 1, xp)  # log of (1), (N,)
        previous, log_sums = g, arrays.host(_lse(exponent + log_u[:, None], 0, xp))  # log (M^T u), (K+1,)
        with np.errstate(invalid="ignore"):  # a column whose share is 0 stands at -inf
            g = np.where(f > 0, f * (log_target - log_sums), 0.0)  # log of (2)
            errors.append(float(np.abs(np.where(np.isfinite(g), g - previous, 0.0)).max()))
        if errors[-1] < tol:
            break
    exponent += arrays.put(g, double=True)  # log of (3)
    exponent += (log_a - _lse(exponent, 1, xp))[:, None]
    return arrays.put(xp.exp(exponent)[:, :k]), g, errors


def _lse(x: Any, axis: int, xp: Any) -> Any:
    """log(sum(exp(x))) along ``axis``; a slice of -inf gives -inf."""
    peak = xp.amax(x, axis, keepdims=True) if xp is np else xp.amax(x, axis, keepdim=True)
    peak = xp.where(xp.isfinite(peak), peak, xp.zeros_like(peak))
    with np.errstate(divide="ignore"):
        total = xp.log(xp.exp(x - peak).sum(axis))
    return total + (peak[:, 0] if axis else peak[0])
