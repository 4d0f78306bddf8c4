"""What the search in `tuning` chose for the digits comparison; the record shows the trials behind it."""

from __future__ import annotations

from typing import Any

CHOSEN: dict[str, dict[str, Any]] = {
    "kmeans": {"layer": "body", "directions": False, "pca": 16},
    "gmm": {"covariance": "tied", "pca": 16},
    "spectral": {"layer": "body", "neighbors": 5},
    "sela": {"init": "k-means", "lr": 5e-4, "reg": 0.05},
    "uot": {"init": "k-means", "lr": 5e-3, "reg": 0.1},
    "p2ot": {"init": "random", "lr": 5e-3, "reg": 0.1},
    "sp2ot": {"init": "k-means", "lr": 5e-3, "reg": 0.05, "semantic_weight": 0.2},
}
