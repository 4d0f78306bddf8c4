"""How good is a clustering whose true classes are known and unequal: agreement after the best one-to-one matching.

The measures of arXiv 2404.03446: "ACC" is the mean recall of the classes (balanced accuracy), so that rare classes count
as much as frequent ones; head, medium and tail are that mean over the 30 % most frequent classes, the next 40 % and the
last 30 %::

    (1)  p = argmax over permutations of sum_cluster counts[p(cluster), cluster]      the matching, by linear assignment
    (2)  recall_k = counts[k, k] / sum_j counts[k, j]
    (3)  ACC = mean over classes of recall_k
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, f1_score, normalized_mutual_info_score

HEAD, MEDIUM = 0.3, 0.7
SCORES = ("balanced_accuracy", "f1", "nmi", "ari", "head", "medium", "tail")


def alignment(truth: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], n_clusters: int) -> Int[np.ndarray, " k"]:
    """Permutation ``p`` (n_clusters,) with ``p[cluster] = class``: the matching with the most samples in agreement.

    ``truth`` and ``labels`` (n,) lie in 0 .. n_clusters - 1; raises ValueError otherwise.

    >>> alignment(np.array([0, 0, 1, 2]), np.array([2, 2, 0, 1]), 3)
    array([1, 2, 0])
    """
    counts = contingency(truth, labels, n_clusters)
    classes, clusters = linear_sum_assignment(-counts)  # (1)
    matched = np.empty(n_clusters, dtype=np.int64)
    matched[clusters] = classes
    return matched


def contingency(truth: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], n_classes: int) -> Int[np.ndarray, "k k"]:
    """Counts (k, k): row = true class, column = label. Raises ValueError for a value outside 0 .. n_classes - 1."""
    for name, values in (("truth", truth), ("labels", labels)):
        if len(values) and not (values.min() >= 0 and values.max() < n_classes):
            raise ValueError(f"{name} holds a value outside 0 .. {n_classes - 1}")
    flat = truth.astype(np.int64) * n_classes + labels
    return np.bincount(flat, minlength=n_classes**2).reshape(n_classes, n_classes)


def by_frequency(truth: Int[np.ndarray, " n"], n_classes: int) -> Int[np.ndarray, " k"]:
    """The classes from most to least frequent, (k,); ties keep their order.

    >>> by_frequency(np.array([1, 1, 0, 2, 2, 2]), 3)
    array([2, 1, 0])
    """
    return np.argsort(-np.bincount(truth, minlength=n_classes), kind="stable")


def recalls(truth: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], n_classes: int) -> np.ndarray:
    """Recall of each class, (k,), of labels that are already aligned; NaN for a class without samples."""
    table = contingency(truth, labels, n_classes)
    with np.errstate(invalid="ignore"):
        return np.diag(table) / table.sum(1)  # (2)


def balanced_accuracy(truth: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], n_classes: int) -> float:
    """Mean recall of the classes, of labels that are already aligned.

    >>> balanced_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]), 2)
    0.5
    """
    return float(np.nanmean(recalls(truth, labels, n_classes)))  # (3)


def precision(truth: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], mass: np.ndarray | None = None) -> float:
    """Share of the mass (n,) that carries the right, already aligned label; ``mass=None`` weighs all samples alike."""
    right = truth == labels
    return float(right.mean()) if mass is None else float((mass * right).sum() / mass.sum())


def scores(truth: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], n_classes: int) -> dict[str, float]:
    """All of `SCORES`, each in [0, 1] (ARI in [-0.5, 1]), of raw cluster labels; aligns them first.

    >>> scores(np.array([0, 0, 1, 2]), np.array([2, 2, 0, 1]), 3)["balanced_accuracy"]
    1.0
    """
    aligned = alignment(truth, labels, n_classes)[labels]
    recall = recalls(truth, aligned, n_classes)[by_frequency(truth, n_classes)]
    head, medium = round(HEAD * n_classes), round(MEDIUM * n_classes)
    return {
        "balanced_accuracy": float(np.nanmean(recall)),
        "f1": float(f1_score(truth, aligned, labels=np.unique(truth), average="macro", zero_division=0)),
        "nmi": float(normalized_mutual_info_score(truth, labels)),
        "ari": float(adjusted_rand_score(truth, labels)),
        "head": _mean(recall[:head]),
        "medium": _mean(recall[head:medium]),
        "tail": _mean(recall[medium:]),
    }


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
