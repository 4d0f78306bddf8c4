"""Experiment `features`: cluster a table of your own with SP2OT."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import PCA

from lab.clustering.sp2ot.estimator import SP2OTClustering
from lab.clustering.sp2ot.heads import Start
from lab.clustering.sp2ot.metrics import contingency, scores
from lab.experiment import Config, Progress, experiment, knob
from lab.files import FileError, Table, read_table

MAX_LABELS = 500  # classes that clusters are compared with: the comparison's table has as many rows and columns
BLOCK = 4096
MAP_ROWS = 20_000  # rows that fit the principal axes of the map; all rows are drawn on it


@dataclass(frozen=True)
class Features:
    """A table of features: CSV, NPZ or Parquet, up to 50,000 rows of 512 numbers; labels serve for scores only."""

    accept: ClassVar[tuple[str, ...]] = (".csv", ".npz", ".parquet")
    max_megabytes: ClassVar[int] = 120

    table: Table

    @classmethod
    def read(cls, source: Path | bytes, *, name: str) -> Features:
        """Parse a file; FileError, in one sentence, for what cannot be read, is too large, or has nothing to cluster."""
        table = read_table(source, name=name)
        if len(table.label_names) > MAX_LABELS:
            raise FileError(
                f"the label column of {name} holds {len(table.label_names):,} different labels, more than "
                f"{MAX_LABELS}; leave it out, or rename it if it is a feature"
            )
        if not np.ptp(table.values, axis=0).any():
            raise FileError(
                f"{name} holds the same features in every row, to the seven digits of float32, so there is nothing to "
                "cluster; subtract a constant from columns that vary in later digits only"
            )
        return cls(table)

    def fingerprint(self) -> str:
        """Hex digits that name the numbers and the labels."""
        digest = hashlib.sha256(repr((self.table.values.shape, self.table.label_names)).encode())
        digest.update(np.ascontiguousarray(self.table.values).tobytes())
        if self.table.labels is not None:
            digest.update(np.ascontiguousarray(self.table.labels).tobytes())
        return digest.hexdigest()[:16]


class FeaturesConfig(Config):
    """Knobs of `SP2OTClustering`."""

    primary: ClassVar[tuple[str, ...]] = ("n_clusters", "rho0", "reg_m", "semantic_weight")

    n_clusters: int = knob(10, "clusters to find", ge=2, le=100)
    rho0: float = knob(
        0.1,
        "share of the samples that is labelled at first; it grows to 1",
        label="first mass ρ₀",
        ge=0.02,
        le=1.0,
        step=0.02,
    )
    reg_m: float = knob(
        1.0, "how hard cluster sizes are pulled to equal", label="size weight γ", ge=0.01, le=100.0, scale="log"
    )
    semantic_weight: float = knob(
        0.05, "how strongly neighbours share a label", label="neighbour weight λ", ge=0.0, le=1.0, step=0.01
    )
    reg: float = knob(0.1, "how soft the labels are", label="entropy ε", ge=0.02, le=1.0, scale="log")
    neighbors: int = knob(20, "neighbours per sample in the similarity", ge=2, le=50)
    standardize: bool = knob(True, "give every column variance 1 first; off if the columns share a unit")
    steps: int = knob(120, "training steps", ge=20, le=1000)
    starts: int = knob(2, "restarts; the one with the lowest loss is kept", ge=1, le=10)
    init: Start = knob("k-means", "where the prototypes start")
    seed: int = knob(0, "draws the starts and the views", ge=0, le=99)


@dataclass(frozen=True)
class FeaturesResult:
    """n rows in K clusters.

    labels (n,); confidence (n,) in [0, 1], the head's probability of that label; sizes (K,) shares; points (n, 2)
    principal components; and, when labels came, scores (empty if there are more classes than clusters) and confusion
    (C, K) of the classes class_names.
    """

    labels: np.ndarray
    confidence: np.ndarray
    sizes: np.ndarray
    points: np.ndarray
    class_names: tuple[str, ...]
    confusion: np.ndarray
    scores: dict[str, float]


def write(result: FeaturesResult, path: Path) -> None:
    """Write `labels.csv`: row (from 0), cluster, confidence."""
    rows = {"row": np.arange(len(result.labels)), "cluster": result.labels, "confidence": result.confidence.round(4)}
    pd.DataFrame(rows).to_csv(path, index=False)


@experiment("features", "Your own table", cost="run", small={"n_clusters": 3, "steps": 20, "starts": 1}, write=write)
def run_features(config: FeaturesConfig, inputs: Features, *, progress: Progress) -> FeaturesResult:
    """Fit, and draw the rows on their principal axes. Raises ValueError for more clusters than rows."""
    X = _standardized(inputs.table.values) if config.standardize else inputs.table.values
    progress(0.0, "looking for neighbours" if config.semantic_weight else "starting")
    total = config.steps * config.starts
    steps = itertools.count(1)

    def count(_: object) -> None:
        step = next(steps)
        progress(0.05 + 0.9 * min(1.0, step / total), f"step {step} of {total}")

    model = SP2OTClustering(
        config.n_clusters,
        reg=config.reg,
        reg_m=config.reg_m,
        rho0=config.rho0,
        n_neighbors=config.neighbors,
        semantic_weight=config.semantic_weight,
        max_iter=config.steps,
        n_init=config.starts,
        init=config.init,
        random_state=config.seed,
    )
    model.fit(X, watch=count)
    probabilities = model.predict_proba(X)
    sample = np.random.default_rng(config.seed).permutation(len(X))[:MAP_ROWS]
    axes = PCA(min(2, X.shape[1]), random_state=config.seed).fit(X[sample])
    points = np.zeros((len(X), 2), np.float32)
    points[:, : axes.n_components_] = axes.transform(X)
    confusion, agreement = _against_truth(inputs.table, model.labels_, config.n_clusters)
    progress(1.0, "done")
    return FeaturesResult(
        labels=model.labels_,
        confidence=probabilities.max(1),
        sizes=model.cluster_sizes_ / len(X),
        points=points,
        class_names=inputs.table.label_names,
        confusion=confusion,
        scores=agreement,
    )


def _standardized(X: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and variance 1, reckoned in float64: squares of large and of small numbers leave float32."""
    blocks = [slice(start, start + BLOCK) for start in range(0, len(X), BLOCK)]
    mean = X.mean(0, dtype=np.float64)
    spread = np.sqrt(sum(np.square(X[rows] - mean).sum(0) for rows in blocks) / len(X))
    out = np.empty_like(X)
    for rows in blocks:
        out[rows] = (X[rows] - mean) / np.where(spread > 0, spread, 1.0)
    return out


def _against_truth(table: Table, labels: np.ndarray, n_clusters: int) -> tuple[np.ndarray, dict[str, float]]:
    """Confusion (C, K), clusters in the order of their classes, and the scores; empty without labels."""
    if table.labels is None:
        return np.zeros((0, n_clusters), np.int64), {}
    size = max(len(table.label_names), n_clusters)
    counts = contingency(table.labels, labels, size)
    _, columns = linear_sum_assignment(-counts)
    return counts[: len(table.label_names), columns], scores(table.labels, labels, size)
