"""The engine behind the estimators: fixed features in, a cosine head trained on its own labels, labels out.

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
from torch import Tensor, nn
from torch.nn import functional

from lab.clustering.sp2ot.deep import PseudoLabeler, Step, self_label
from lab.clustering.sp2ot.heads import STARTS, CosineHead, FeatureSpace, noisy_views, prototypes
from lab.clustering.sp2ot.similarity import knn_similarity
from lab.clustering.sp2ot.transport import METHODS

BATCH = 2048  # up to so many samples are one batch; more are labelled from a memory of ten batches, as published
MEMORY_BATCHES = 10
NOISE = 0.2
SETTLED = 0.1  # restarts are compared by their mean loss over the last tenth of the steps

View = Callable[[Tensor, torch.Generator], Tensor]
Head = Callable[[int, int], nn.Module]


class SelfLabelling(TransformerMixin, ClusterMixin, BaseEstimator):
    """Base of the estimators; they store their arguments and say in `_switches` what the labeler gets."""

    n_clusters: int
    reg: float
    head: str | Head
    encoder: Callable[[Tensor], Tensor] | None
    view_fn: View | None
    max_iter: int
    n_init: int
    init: str
    lr: float
    random_state: Any
    solver: str

    def _switches(self) -> dict[str, Any]:
        """Arguments of PseudoLabeler: schedule, reg_m and, with a semantic term, semantic_weight and n_neighbors."""
        raise NotImplementedError

    def fit(self, X: Any, y: Any = None, *, watch: Callable[[Step], None] = lambda step: None) -> Any:
        """Cluster the rows of ``X`` (n, d); ``y`` is ignored. ValueError for bad data or a bad argument, naming it.

        ``watch`` is called after every training step of every restart; what it raises ends the fit.
        """
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        switches = self._switches()
        self._check(len(X))
        random = check_random_state(self.random_state)
        features = self._encode(X)
        self._space = FeatureSpace.of(features)
        z = self._space(features)
        neighbors = switches.pop("n_neighbors", 0)
        if switches.get("semantic_weight", 0) > 0:
            switches["similarity"] = knn_similarity(features, neighbors)
        runs = [self._train(X, z, switches, int(random.randint(2**31 - 1)), watch) for _ in range(self.n_init)]
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
        if self.n_clusters < 1:
            raise ValueError(f"n_clusters={self.n_clusters!r} must be at least 1")
        if self.n_clusters > n:
            raise ValueError(f"n_clusters={self.n_clusters!r} exceeds the number of samples, n_samples = {n}")
        for name in ("max_iter", "n_init"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least 1")
        for name in ("reg", "lr"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name}={getattr(self, name)!r} must be a positive, finite number")
        for name, known in (("init", STARTS), ("solver", METHODS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown: choose one of {', '.join(known)}")

        if self.head != "cosine" and not callable(self.head):
            raise ValueError(
                f"head={self.head!r} is unknown: give 'cosine' or a function (width, n_clusters) -> Module"
            )

    def _encode(self, X: np.ndarray) -> np.ndarray:
        if self.encoder is None:
            return X
        with torch.no_grad():
            return self.encoder(torch.from_numpy(X.astype(np.float32))).numpy()

    def _new_head(self, z: Tensor, generator: torch.Generator) -> nn.Module:
        if callable(self.head):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(torch.randint(2**31 - 1, (1,), generator=generator)))
                return self.head(z.shape[1], self.n_clusters)
        return CosineHead(prototypes(z, self.n_clusters, self.init, generator))  # type: ignore[arg-type]

    def _train(
        self, X: np.ndarray, z: Tensor, switches: dict[str, Any], seed: int, watch: Callable[[Step], None]
    ) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(seed)
        head = self._new_head(z, generator)
        memory = 0 if len(z) <= BATCH else min(len(z), MEMORY_BATCHES * BATCH)
        labeler = PseudoLabeler(
            self.n_clusters, self.max_iter, reg=self.reg, solver=self.solver, memory=memory, **switches
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
        if self.view_fn is None:
            return noisy_views(z[rows], NOISE, generator)
        seen = self.view_fn(torch.from_numpy(X[rows.numpy()].astype(np.float32)), generator)
        return self._space(self._encode(seen.numpy()))

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
