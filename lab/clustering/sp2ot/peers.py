"""What the solver is raced against, and on which problem: plain scaling as published, and POT."""

from __future__ import annotations

import warnings

import numpy as np

CLUSTERS = 100
REG, REG_M = 0.1, 1.0


def long_tailed_cost(n: int, seed: int = 0) -> np.ndarray:
    """Cost -log softmax (n, 100), float32, of logits with a raised true class; class sizes fall by a factor of 100."""
    rng = np.random.default_rng(seed)
    share = 100.0 ** (-np.arange(CLUSTERS) / (CLUSTERS - 1))
    out = np.empty((n, CLUSTERS), np.float32)
    for start in range(0, n, 10_000):
        x = rng.standard_normal((min(10_000, n - start), CLUSTERS), dtype=np.float32)
        x[np.arange(len(x)), rng.choice(CLUSTERS, len(x), p=share / share.sum())] += 1 + 4 * rng.random(len(x))
        peak = x.max(1, keepdims=True)
        out[start : start + len(x)] = peak + np.log(np.exp(x - peak).sum(1, keepdims=True)) - x
    return out


def plain_scaling(M: np.ndarray, rho: float, n_iter: int) -> np.ndarray:
    """The published iteration for a given number of sweeps, without a stop rule, in the dtype of M."""
    n, k = M.shape
    dtype = M.dtype.type
    kernel = np.empty((n, k + 1), M.dtype)
    np.multiply(M, dtype(-1 / REG), out=kernel[:, :k])
    np.exp(kernel[:, :k], out=kernel[:, :k])
    kernel[:, k] = 1
    target = np.append(np.full(k, rho / k), 1 - rho).astype(M.dtype)
    f = np.append(np.full(k, REG_M / (REG_M + REG)), 1.0).astype(M.dtype)
    b, share = np.full(k + 1, 1 / (k + 1), M.dtype), dtype(1 / n)
    for _ in range(n_iter):
        # (1) and (2) of `published`, in one line
        b = (target / ((share / (kernel @ b)) @ kernel)) ** f
    kernel *= (share / (kernel @ b))[:, None]
    kernel *= b
    return kernel[:, :k]


def pot_unbalanced(M: np.ndarray, stop: float) -> np.ndarray:
    """POT's unbalanced Sinkhorn with exact rows (rho = 1)."""
    import ot

    n, k = M.shape
    a, b = np.full(n, 1 / n, M.dtype), np.full(k, 1 / k, M.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ot.unbalanced.sinkhorn_unbalanced(
            a, b, M, REG, (np.inf, REG_M), reg_type="entropy", stopThr=stop, numItermax=3000
        )
