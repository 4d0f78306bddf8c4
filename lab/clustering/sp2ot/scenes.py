"""What the live experiments look at: a data set with its features, a map to draw it on, and a half-trained head.

Everything here is computed once per data set, so that a moving knob pays only for the transport.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lab.cache import cached
from lab.clustering.sp2ot.deep import PseudoLabeler, self_label
from lab.clustering.sp2ot.encoder import load_encoder
from lab.clustering.sp2ot.heads import CosineHead, FeatureSpace, noisy_views, prototypes
from lab.clustering.sp2ot.metrics import alignment
from lab.clustering.sp2ot.schedule import RhoSchedule
from lab.clustering.sp2ot.similarity import knn_similarity
from lab.datasets.blobs import N_BLOBS, long_tailed_blobs
from lab.datasets.digits import N_CLASSES, digits, long_tailed_indices

DataName = Literal["blobs", "digits"]
MAX_IMBALANCE = 100.0
LR, NOISE = 0.02, 0.2
HALF_TRAINED = 12  # steps: the head then knows the easy samples and errs on the rest


@dataclass(frozen=True)
class Scene:
    """A data set as the experiments see it.

    points (n, 2) the map; truth (n,); class_names; z (n, d) lifted features; features (n, d-1) for the similarity;
    flat: the features are the map itself, so that cluster centres can be drawn on it
    """

    points: np.ndarray
    truth: np.ndarray
    class_names: tuple[str, ...]
    z: Tensor
    features: np.ndarray
    flat: bool

    @property
    def n_clusters(self) -> int:
        """As many clusters as true classes."""
        return len(self.class_names)

    @property
    def true_sizes(self) -> np.ndarray:
        """Shares (K,) of the true classes."""
        return np.bincount(self.truth, minlength=self.n_clusters) / len(self.truth)


@cached(maxsize=8)
def scene(data: DataName, imbalance: float, seed: int) -> Scene:
    """Blobs, or digits as the shipped encoder sees them, with a long tail."""
    if data == "blobs":
        points, truth = long_tailed_blobs(imbalance, seed)
        names = tuple(f"blob {rank + 1}" for rank in range(N_BLOBS))
        return Scene(points, truth, names, FeatureSpace.of(points)(points), points, flat=True)
    chosen = long_tailed_indices(imbalance, seed)
    features = _embedded()[chosen]
    names = tuple(str(digit) for digit in range(N_CLASSES))
    points = load_encoder()[1][chosen]
    return Scene(points, digits()[1][chosen], names, FeatureSpace.of(features)(features), features, flat=False)


@cached(maxsize=None)
def _embedded() -> np.ndarray:
    return load_encoder()[0](torch.from_numpy(digits()[0])).numpy()


@cached(maxsize=8)
def similarity(data: DataName, imbalance: float, seed: int, neighbors: int) -> Any:
    """S of a scene, CSR (n, n)."""
    return knn_similarity(scene(data, imbalance, seed).features, neighbors)


@cached(maxsize=8)
def half_trained(data: DataName, imbalance: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cost -log P (n, K), float64, of a head after a few P2OT steps from k-means; columns in class order.

    The columns are matched to the true classes once, by the head's own choices, so that colours stay when knobs move.
    """
    dataset = scene(data, imbalance, seed)
    generator = torch.Generator().manual_seed(seed)
    head = CosineHead(prototypes(dataset.z, dataset.n_clusters, "k-means", generator))
    labeler = PseudoLabeler(dataset.n_clusters, 4 * HALF_TRAINED, schedule=RhoSchedule(0.1, 1.0))
    training = self_label(head, labeler, views_of(dataset.z), len(dataset.z), lr=LR, generator=generator)
    for _ in zip(range(HALF_TRAINED), training, strict=False):
        pass
    with torch.no_grad():
        cost = -functional.log_softmax(head(dataset.z).double(), dim=1).numpy()
    order = columns_in_class_order(dataset.truth, cost.argmin(1), dataset.n_clusters)
    return cost[:, order], order


def views_of(z: Tensor) -> Any:
    """Two noisy views of the rows asked for."""

    def views(rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return noisy_views(z[rows], NOISE, generator), noisy_views(z[rows], NOISE, generator)

    return views


def columns_in_class_order(truth: np.ndarray, labels: np.ndarray, n_clusters: int) -> np.ndarray:
    """Cluster columns (K,) ordered so that column k is the one matched to class k."""
    return np.argsort(alignment(truth, labels, n_clusters))
