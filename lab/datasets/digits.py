"""Handwritten digits, 8 x 8 pixels: balanced as they come with scikit-learn, or with a long tail of rare classes.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits" (UCI, 1998), the 1797 images of the test part
that scikit-learn carries; each class has 174 to 183 of them.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float, Int

N_CLASSES = 10
SMALLEST_CLASS = 174  # images of the digit 8, the rarest: every class can give as many


@functools.cache
def _all() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    raw = load_digits()
    return (raw.images / 16.0).astype(np.float32), raw.target.astype(np.int64)


def digits() -> tuple[Float[np.ndarray, "n 8 8"], Int[np.ndarray, " n"]]:
    """All 1797 images (n, 8, 8) with ink in [0, 1], and their labels (n,).

    >>> digits()[0].shape
    (1797, 8, 8)
    """
    images, labels = _all()
    return images.copy(), labels.copy()


def class_counts(imbalance: float) -> tuple[int, ...]:
    """Sizes of the ten classes, largest first: floor(174 * imbalance^(-r/9)) for r = 0 ... 9.

    Raises ValueError for an imbalance outside [1, 174].

    >>> class_counts(10)
    (174, 134, 104, 80, 62, 48, 37, 29, 22, 17)
    """
    if not 1 <= imbalance <= SMALLEST_CLASS:
        raise ValueError(f"imbalance={imbalance!r} must lie in [1, {SMALLEST_CLASS}]: largest class over smallest")
    # n_r = 174 * imbalance^(-r/9), rounded down; rounding must not lose an image where the power is exact
    exact = (SMALLEST_CLASS * imbalance ** (-rank / (N_CLASSES - 1)) for rank in range(N_CLASSES))
    return tuple(int(count + 1e-9) for count in exact)


def long_tailed_indices(imbalance: float = 10, seed: int = 0) -> Int[np.ndarray, " n"]:
    """Numbers (n,) of the digits that a long-tailed set selects from all 1797, shuffled; see `long_tailed_digits`."""
    _, labels = _all()
    rng = np.random.default_rng(seed)
    order = rng.permutation(N_CLASSES)
    kept = [
        rng.choice(np.flatnonzero(labels == digit), size, replace=False)
        for digit, size in zip(order, class_counts(imbalance), strict=True)
    ]
    return rng.permutation(np.concatenate(kept))


def long_tailed_digits(
    imbalance: float = 10, seed: int = 0
) -> tuple[Float[np.ndarray, "n 8 8"], Int[np.ndarray, " n"]]:
    """Digits whose class sizes fall geometrically from 174 to 174 / ``imbalance``.

    The seed draws which digit is how frequent, which of its images are selected, and their order.

    Returns images (n, 8, 8), float32 in [0, 1], and labels (n,). ``imbalance=10`` gives n = 707, the rarest class 17.
    Raises ValueError for an imbalance outside [1, 174].

    >>> images, labels = long_tailed_digits(10, seed=0)
    >>> len(images), np.bincount(labels).min()
    (707, np.int64(17))
    """
    images, labels = _all()
    chosen = long_tailed_indices(imbalance, seed)
    return images[chosen], labels[chosen]
