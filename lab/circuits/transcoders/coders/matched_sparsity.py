r"""Sparsity against faithfulness: two curves of coders compared where both have been.

Each coder gives a point (L0, added loss). Between neighbouring points a curve is read off log-log; outside what was
trained it is not read at all. Where both curves have values, on an even grid in log L0, the ratio of the added losses is
averaged geometrically.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

GRID = 17
FLOOR = 1e-4  # nats: an added loss below this is noise, and a logarithm needs a positive number


def read_off(l0: Sequence[float], added: Sequence[float], at: np.ndarray) -> np.ndarray:
    """A curve's added loss at some values of L0, log-log between its points; NaN outside them.

    >>> read_off([10.0, 40.0], [0.4, 0.1], np.array([20.0, 50.0])).round(3)
    array([0.2, nan])
    """
    order = np.argsort(l0)
    x, y = np.log(np.asarray(l0, float)[order]), np.log(np.maximum(np.asarray(added, float)[order], FLOOR))
    return np.exp(np.interp(np.log(at), x, y, left=np.nan, right=np.nan))


def matched_ratio(
    l0: Sequence[float], added: Sequence[float], other_l0: Sequence[float], other_added: Sequence[float]
) -> float:
    """The added loss of the first curve over that of the second at matched L0; NaN where they nowhere overlap.

    Raises ValueError for curves of fewer than two points, or of unequal lengths.

    >>> round(matched_ratio([10.0, 40.0], [0.4, 0.1], [20.0, 80.0], [0.4, 0.1]), 3)
    0.5
    """
    for one, two in ((l0, added), (other_l0, other_added)):
        if len(one) != len(two) or len(one) < 2:
            raise ValueError(
                f"a curve needs two points or more, and as many losses as L0s, got {len(one)} and {len(two)}"
            )
    low, high = max(min(l0), min(other_l0)), min(max(l0), max(other_l0))
    if not low < high:
        return math.nan
    at = np.geomspace(low * (1 + 1e-9), high * (1 - 1e-9), GRID)
    return float(np.exp(np.mean(np.log(read_off(l0, added, at)) - np.log(read_off(other_l0, other_added, at)))))
