"""SP2OT as a scikit-learn clusterer: features in, a cosine head trained on its own labels, labels out.

A view of a sample is its features with a little noise, unless `view_fn` makes better ones. Restarts are compared as in
arXiv 2404.03446: lowest training loss over rho.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClusterMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from torch.nn import functional

from lab.clustering.sp2ot.deep import PseudoLabeler, Step, self_label
from lab.clustering.sp2ot.heads import STARTS, CosineHead, FeatureSpace, noisy_views, prototypes
from lab.clustering.sp2ot.schedule import RhoSchedule
from lab.clustering.sp2ot.similarity import knn_similarity

BATCH = 2048  # up to so many samples are one batch; more are labelled from a memory of ten batches, as published
MEMORY_BATCHES = 10
NOISE = 0.2
SETTLED = 0.1  # restarts are compared by their mean loss over the last tenth of the steps

Encoder = Callable[[Tensor], Tensor]
View = Callable[[Tensor, torch.Generator], Tensor]


class SP2OTClustering(TransformerMixin, ClusterMixin, BaseEstimator):
    r"""Imbalanced clustering by a head that learns its own transport labels; neighbours attract, the mass grows.

    Every step solves, for the head's predictions P (N, K) of two noisy views,

    .. math:: \min_Q \langle Q,-\log P\rangle - \lambda_1\langle S,QQ^T\rangle + \gamma\,KL(Q^T1\,\|\,\rho/K)
              + \text{entropy}\quad\text{s.t.}\quad Q1\le 1/N,\ 1^TQ1=\rho(t),\quad \lambda_1=w\,N(1-\rho),

    and trains the head on N Q. Features are centred, divided by their mean length and lifted by a constant coordinate;
    they are not whitened: columns of different units are yours to scale.

    Its predecessors are settings of it::

                 semantic_weight   rho0   reg_m
        SP2OT    > 0               < 1    finite    neighbours attract     (arXiv 2404.03446)
        P2OT     0                 < 1    finite    the mass grows         (arXiv 2401.09266)
        UOT      0                 1      finite    sizes are soft
        SeLa     0                 1      inf       all sizes are equal    (after arXiv 1911.05371)

    Parameters
    ----------
    n_clusters : int >= 1
        K; 1 is allowed, as in KMeans, and puts everything together.
    reg, reg_m : float > 0, float >= 0 or inf
        Entropy :math:`\varepsilon` and size penalty :math:`\gamma`, in the unit of -log P.
    rho0, rho1 : float in (0, 1]
        Labelled mass at the first and at the last step.
    semantic_weight : float >= 0
        w; the published absolute weight 1000 with 5120 samples is 0.195. Large values merge small clusters.
    n_neighbors : int >= 1
        Neighbours per sample in S (Gaussian kernel on the unlifted features).
    encoder : callable, optional
        Frozen map from a float32 tensor (n, d) to features (n, p); default: the rows themselves.
    max_iter : int
        Training steps. Up to 2048 samples make one batch; more are labelled from a memory of ten batches.
    n_init : int
        Restarts; the one with the lowest final loss over rho wins.
    init : "k-means" or "random"
        Where the prototypes start; the papers start at random.
    lr : float > 0
        Adam's rate, falling to a thousandth by a cosine.
    view_fn : callable, optional
        ``view_fn(X, generator) -> X'`` on float32 tensors (b, d): a random distortion. Default: Gaussian noise on the
        features, of length 0.2 where their root mean square length is 1.
    random_state : int, RandomState or None
        Seed of the prototypes' start and of the views.

    Attributes
    ----------
    labels_ : (n,) int
        Cluster of each row.
    cluster_sizes_ : (K,) int
        Rows per cluster.
    cluster_centers_ : (K, d)
        Means of X weighted by probability.
    rho_path_, objective_ : (max_iter,)
        Mass and training loss of each step of the winning restart.
    selected_mass_ : (n,) in [0, 1]
        Share of each sample that was labelled, on average over training: early picks have more.
    n_iter_, n_features_in_ : int
        Training steps; columns of X.

    Raises
    ------
    ValueError
        In ``fit``, naming the argument: too few rows, NaN or inf, constant features, n_clusters < 1 or > n, a rho
        outside (0, 1], a negative semantic_weight, reg <= 0.

    References
    ----------
    C. Zhang, H. Ren, X. He: SP2OT, arXiv 2404.03446.

    Examples
    --------
    >>> X = np.r_[np.zeros((20, 2)), np.ones((4, 2))] + np.random.default_rng(0).normal(0, 0.1, (24, 2))
    >>> sorted(SP2OTClustering(2, max_iter=30, random_state=0).fit(X).cluster_sizes_.tolist())
    [4, 20]
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        reg: float = 0.1,
        reg_m: float = 1.0,
        rho0: float = 0.1,
        rho1: float = 1.0,
        semantic_weight: float = 0.05,
        n_neighbors: int = 20,
        encoder: Encoder | None = None,
        max_iter: int = 120,
        n_init: int = 1,
        init: str = "k-means",
        lr: float = 0.02,
        view_fn: View | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.reg = reg
        self.reg_m = reg_m
        self.rho0 = rho0
        self.rho1 = rho1
        self.semantic_weight = semantic_weight
        self.n_neighbors = n_neighbors
        self.encoder = encoder
        self.max_iter = max_iter
        self.n_init = n_init
        self.init = init
        self.lr = lr
        self.view_fn = view_fn
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, *, watch: Callable[[Step], None] = lambda step: None) -> Any:
        """Cluster the rows of ``X`` (n, d) and return self; ``y`` is ignored. ValueError for bad data or a bad argument.

        ``watch`` is called after every training step of every restart; what it raises ends the fit.
        """
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        self._check(len(X))
        schedule = RhoSchedule(self.rho0, self.rho1)
        random = check_random_state(self.random_state)
        features = self._encode(X)
        self._space = FeatureSpace.of(features)
        z = self._space(features)
        similarity = knn_similarity(features, self.n_neighbors) if self.semantic_weight > 0 else None
        runs = [
            self._train(X, z, schedule, similarity, int(random.randint(2**31 - 1)), watch) for _ in range(self.n_init)
        ]
        best = min(runs, key=lambda run: run["score"])
        self._head = best["head"]
        self.objective_, self.rho_path_, self.selected_mass_ = best["objective"], best["rho"], best["mass"]
        self.n_iter_ = self.max_iter
        probabilities = functional.softmax(self._head(z), dim=1).numpy()
        self.labels_ = probabilities.argmax(1)
        self.cluster_sizes_ = np.bincount(self.labels_, minlength=self.n_clusters)
        self.cluster_centers_ = (probabilities / np.maximum(probabilities.sum(0), 1e-30)).T @ X
        return self

    def _check(self, n: int) -> None:
        """ValueError for an argument that does not suit n rows, naming it."""
        if self.n_clusters < 1:
            raise ValueError(f"n_clusters={self.n_clusters!r} must be at least 1")
        if self.n_clusters > n:
            raise ValueError(f"n_clusters={self.n_clusters!r} exceeds the number of samples, n_samples = {n}")
        for name in ("max_iter", "n_init", "n_neighbors"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least 1")
        for name in ("reg", "lr"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name}={getattr(self, name)!r} must be a positive, finite number")
        if not 0 <= self.semantic_weight < np.inf:
            raise ValueError(f"semantic_weight={self.semantic_weight!r} must be a finite number >= 0")
        if self.init not in STARTS:
            raise ValueError(f"init={self.init!r} is unknown: choose one of {', '.join(STARTS)}")

    def _encode(self, X: np.ndarray) -> np.ndarray:
        """Features (n, p) of the rows: the frozen encoder's, or the rows themselves."""
        if self.encoder is None:
            return X
        with torch.no_grad():
            return self.encoder(torch.from_numpy(X.astype(np.float32))).numpy()

    def _train(
        self,
        X: np.ndarray,
        z: Tensor,
        schedule: RhoSchedule,
        similarity: Any,
        seed: int,
        watch: Callable[[Step], None],
    ) -> dict[str, Any]:
        """One restart: the trained head, labelled mass per sample (n,), rho and loss per step, and its score."""
        generator = torch.Generator().manual_seed(seed)
        head = CosineHead(prototypes(z, self.n_clusters, self.init, generator))  # type: ignore[arg-type]
        labeler = PseudoLabeler(
            self.n_clusters,
            self.max_iter,
            schedule=schedule,
            reg=self.reg,
            reg_m=self.reg_m,
            semantic_weight=self.semantic_weight,
            similarity=similarity,
            memory=0 if len(z) <= BATCH else min(len(z), MEMORY_BATCHES * BATCH),
        )

        def views(rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            return self._view(X, z, rows, generator), self._view(X, z, rows, generator)

        losses, masses = [], []
        labelled, seen = torch.zeros(len(z)), torch.zeros(len(z))
        for step in self_label(head, labeler, views, len(z), lr=self.lr, generator=generator, batch=BATCH):
            labelled[step.rows] += step.targets.sum(1)
            seen[step.rows] += 1
            losses.append(step.loss)
            masses.append(step.rho)
            watch(step)
        loss, rho = np.array(losses), np.array(masses)
        return {
            "head": head.requires_grad_(False),
            "mass": (labelled / seen.clamp(min=1)).numpy(),
            "score": float((loss / rho)[-max(1, round(SETTLED * len(rho))) :].mean()),
            "rho": rho,
            "objective": loss,
        }

    def _view(self, X: np.ndarray, z: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
        """A random view of some rows, as lifted features (b, p + 1)."""
        if self.view_fn is None:
            return noisy_views(z[rows], NOISE, generator)
        distorted = self.view_fn(torch.from_numpy(X[rows.numpy()].astype(np.float32)), generator)
        return self._space(self._encode(distorted.numpy()))

    def _logits(self, X: Any) -> Tensor:
        check_is_fitted(self, "labels_")
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return self._head(self._space(self._encode(X)))

    def predict(self, X: Any) -> np.ndarray:
        """Labels (n,) of the rows of ``X`` (n, d): the head's largest logit. No transport is solved."""
        return self._logits(X).argmax(1).numpy()

    def predict_proba(self, X: Any) -> Float[np.ndarray, "n k"]:
        """Probabilities (n, K) of the clusters: the softmax of the head's logits."""
        return functional.softmax(self._logits(X), dim=1).numpy()

    def transform(self, X: Any) -> Float[np.ndarray, "n k"]:
        """Costs -log P (n, K) >= 0 of the rows of ``X``, as the transport sees them, in the dtype of ``X``."""
        dtype = np.float32 if getattr(X, "dtype", None) == np.float32 else np.float64
        return functional.log_softmax(self._logits(X), dim=1).neg().numpy().astype(dtype)
