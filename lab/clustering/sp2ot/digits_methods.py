"""Seven ways to cluster long-tailed digits, from the same features: what the `digits` experiment and study run.

For every seed anew: the long tail is drawn, the encoder is pre-trained on those images without labels, every method
starts from its features. The four transport methods train the encoder's last layer and a cosine head on stored views;
they differ only in how labels are given. k-means, a Gaussian mixture and spectral clustering take the features as such.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from torch.nn import functional

from lab.clustering.sp2ot.deep import PseudoLabeler, Step, self_label
from lab.clustering.sp2ot.encoder import EMBEDDING, DigitEncoder, distort, pretrain
from lab.clustering.sp2ot.heads import CosineHead, prototypes
from lab.clustering.sp2ot.schedule import RhoSchedule
from lab.clustering.sp2ot.similarity import knn_similarity
from lab.datasets.digits import N_CLASSES, long_tailed_digits
from lab.experiment import Progress, no_progress

PRETRAIN_STEPS = 300
STORED_VIEWS = 10
RESTARTS = 4  # of the transport methods; the one with the lowest loss over rho wins. k-means and GMM have their own
SETTLED = 0.1  # a restart's loss is the mean over the last tenth of its steps
NEIGHBORS = 20
NAMES = {
    "kmeans": "k-means",
    "gmm": "GMM",
    "spectral": "spectral",
    "sela": "SeLa",
    "uot": "UOT",
    "p2ot": "P²OT",
    "sp2ot": "SP²OT",
}
TRANSPORT = ("sela", "uot", "p2ot", "sp2ot")


@dataclass(frozen=True)
class Prepared:
    """What all methods start from, for one seed.

    images (n, 8, 8); truth (n,); encoder, pre-trained on the images; body (n, 256), its features before the last layer, and
    views (10, n, 256), those of ten distortions of each image; embedded (n, 128), its output; similarity (n, n), their S.
    """

    seed: int
    images: np.ndarray
    truth: np.ndarray
    encoder: DigitEncoder
    body: Tensor
    views: Tensor
    embedded: Tensor
    similarity: Any


@dataclass(frozen=True)
class Published:
    """What the transport methods have in common; the defaults are the papers' values, but for ``steps``."""

    steps: int = 120
    rho0: float = 0.1
    reg_m: float = 1.0


def prepare(imbalance: float, seed: int, progress: Progress = no_progress) -> Prepared:
    """Draw the data and pre-train the encoder on it, without labels; about 7 s on one core."""
    images, truth = long_tailed_digits(imbalance, seed)
    encoder = pretrain(images, steps=PRETRAIN_STEPS, seed=seed, progress=progress)
    data, generator = torch.from_numpy(images), torch.Generator().manual_seed(seed)
    views = torch.stack([encoder.features(distort(data, generator)) for _ in range(STORED_VIEWS)])
    body = encoder.features(data)
    embedded = encoder.last(body)
    return Prepared(seed, images, truth, encoder, body, views, embedded, knn_similarity(embedded.numpy(), NEIGHBORS))


def labels_of(
    method: str,
    prepared: Prepared,
    settings: Mapping[str, Any],
    published: Published = Published(),
    watch: Callable[[int, Step, nn.Module], None] = lambda restart, step, model: None,
) -> tuple[np.ndarray, int]:
    """Cluster labels (n,) of a method (a key of `NAMES`) with its tuned settings, and which restart gave them.

    ``watch(restart, step, model)`` is called after every training step of the transport methods.
    """
    if method in TRANSPORT:
        runs = [_train(method, prepared, settings, published, restart, watch) for restart in range(RESTARTS)]
        best = min(range(RESTARTS), key=lambda restart: runs[restart][0])
        return runs[best][1], best
    return _CLASSICAL[method](prepared, **settings), 0


def _train(
    method: str,
    prepared: Prepared,
    settings: Mapping[str, Any],
    published: Published,
    restart: int,
    watch: Callable[[int, Step, nn.Module], None],
) -> tuple[float, np.ndarray]:
    """One restart of a transport method: its final loss over rho, and its labels (n,)."""
    generator = torch.Generator().manual_seed(1000 * prepared.seed + restart)
    last = copy.deepcopy(prepared.encoder.last).requires_grad_(True)
    model = nn.Sequential(last, CosineHead(prototypes(prepared.embedded, N_CLASSES, settings["init"], generator)))
    grows = method in ("p2ot", "sp2ot")
    labeler = PseudoLabeler(
        N_CLASSES,
        published.steps,
        reg=settings["reg"],
        schedule=RhoSchedule(published.rho0) if grows else RhoSchedule(kind="fixed"),
        reg_m=np.inf if method == "sela" else published.reg_m,
        semantic_weight=settings.get("semantic_weight", 0.0),
        similarity=prepared.similarity,
    )

    def views(rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        which = torch.randint(STORED_VIEWS, (2, len(rows)), generator=generator)
        return prepared.views[which[0], rows], prepared.views[which[1], rows]

    relative = []
    for step in self_label(model, labeler, views, len(prepared.truth), lr=settings["lr"], generator=generator):
        relative.append(step.loss / step.rho)
        watch(restart, step, model)
    with torch.no_grad():
        labels = model(prepared.body).argmax(1).numpy()
    return float(np.mean(relative[-max(1, round(SETTLED * len(relative))) :])), labels


def _features(prepared: Prepared, layer: str, directions: bool, pca: int) -> np.ndarray:
    """Features (n, d) for a classical method: of a layer, as directions or not, with so many principal axes (0: all)."""
    given = prepared.body if layer == "body" else prepared.embedded
    x = (functional.normalize(given, dim=1) if directions else given).double().numpy()
    if not pca:
        return x
    return PCA(min(pca, EMBEDDING), random_state=prepared.seed).fit_transform(x)


def _kmeans(prepared: Prepared, layer: str, directions: bool, pca: int) -> np.ndarray:
    return KMeans(N_CLASSES, n_init=20, random_state=prepared.seed).fit_predict(
        _features(prepared, layer, directions, pca)
    )


def _gmm(prepared: Prepared, covariance: str, pca: int) -> np.ndarray:
    mixture = GaussianMixture(
        N_CLASSES, covariance_type=covariance, n_init=5, reg_covar=1e-4, random_state=prepared.seed
    )
    return mixture.fit_predict(_features(prepared, "embedding", True, pca))


def _spectral(prepared: Prepared, layer: str, neighbors: int) -> np.ndarray:
    graph = SpectralClustering(
        N_CLASSES, affinity="nearest_neighbors", n_neighbors=neighbors, n_init=20, random_state=prepared.seed
    )
    with warnings.catch_warnings():  # a graph in several pieces is fine: classes that lie apart make one
        warnings.filterwarnings("ignore", "Graph is not fully connected", UserWarning)
        return graph.fit_predict(_features(prepared, layer, True, 0)).astype(np.int64)


_CLASSICAL: dict[str, Callable[..., np.ndarray]] = {"kmeans": _kmeans, "gmm": _gmm, "spectral": _spectral}
