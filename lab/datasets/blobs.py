"""Gaussian blobs in the plane with long-tailed sizes: data one can see whole."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

LARGEST = 300
SPREADS = (1.0, 0.8, 0.7, 0.55, 0.45)  # standard deviations, largest blob first
RADIUS = 3.2  # distance of the outer blobs' centres from the largest one's
N_BLOBS = len(SPREADS)


def long_tailed_blobs(imbalance: float = 40, seed: int = 0) -> tuple[Float[np.ndarray, "n 2"], Int[np.ndarray, " n"]]:
    """Five blobs, the largest in the middle; blob r has floor(300 * imbalance^(-r/4)) points, r = 0 ... 4.

    Returns points (n, 2), float32, and labels (n,), 0 the largest blob. The seed draws the points and where the smaller
    blobs stand around the largest. Raises ValueError for an imbalance outside [1, 100].

    >>> points, labels = long_tailed_blobs(40, seed=0)
    >>> points.shape, np.bincount(labels).tolist()
    ((491, 2), [300, 119, 47, 18, 7])
    """
    if not 1 <= imbalance <= 100:
        raise ValueError(f"imbalance={imbalance!r} must lie in [1, 100]: largest blob over smallest")
    rng = np.random.default_rng(seed)
    ranks = np.arange(N_BLOBS)
    # n_r = floor(300 * imbalance^(-r/4)); rounding must not lose a point where the power is exact
    sizes = (LARGEST * float(imbalance) ** (-ranks / (N_BLOBS - 1)) + 1e-9).astype(int)
    angles = 2 * np.pi * (rng.permutation(N_BLOBS - 1) + 0.15 * rng.standard_normal(N_BLOBS - 1)) / (N_BLOBS - 1)
    ring = RADIUS * np.column_stack([np.cos(angles), np.sin(angles)])
    centres = np.concatenate([np.zeros((1, 2)), ring])  # (5, 2)
    labels = np.repeat(ranks, sizes)
    points = centres[labels] + np.array(SPREADS)[labels][:, None] * rng.standard_normal((len(labels), 2))
    order = rng.permutation(len(labels))
    return points[order].astype(np.float32), labels[order].astype(np.int64)
