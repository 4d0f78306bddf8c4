"""SP2OT and its relatives as scikit-learn clusterers: one engine, four settings of its switches.

                mass rho         cluster sizes    neighbours
SP2OTClustering grows            soft             attract      arXiv 2404.03446
P2OTClustering  grows            soft             -            arXiv 2401.09266
UOTClustering   1                soft             -
SeLaClustering  1                equal            -            after arXiv 1911.05371
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from lab.clustering.sp2ot.schedule import RhoSchedule
from lab.clustering.sp2ot.self_labelling import Head, SelfLabelling, View

_Encoder = Callable[[Tensor], Tensor] | None


class SP2OTClustering(SelfLabelling):
    r"""Imbalanced clustering by a head that learns its own transport labels; neighbours attract, the mass grows.

    Every step solves, for the head's predictions P (N, K) of two noisy views,

    .. math:: \min_Q \langle Q,-\log P\rangle - \lambda_1\langle S,QQ^T\rangle + \gamma\,KL(Q^T1\,\|\,\rho/K)
              + \text{entropy}\quad\text{s.t.}\quad Q1\le 1/N,\ 1^TQ1=\rho(t),\quad \lambda_1=w\,N(1-\rho),

    and trains the head on N Q. Features are centred, divided by their mean length and lifted by a constant coordinate;
    they are not whitened: columns of different units are yours to scale.

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
    head : "cosine" or callable
        The cosine head, or ``head(width, n_clusters) -> nn.Module`` giving logits; width is d + 1.
    encoder : callable, optional
        Frozen map from a float32 tensor (n, d) to features (n, p); default: the rows themselves.
    max_iter : int
        Training steps. Up to 2048 samples make one batch; more are labelled from a memory of ten batches.
    n_init : int
        Restarts; the one with the lowest final loss over rho is kept.
    init : "k-means" or "random"
        Where the prototypes start; the papers start at random.
    lr : float > 0
        Adam's rate, falling to a thousandth by a cosine.
    view_fn : callable, optional
        ``view_fn(X, generator) -> X'`` on float32 tensors (b, d): a random distortion. Default: Gaussian noise on the
        features, of length 0.2 where their root mean square length is 1.
    random_state : int, RandomState or None
    solver : "anderson", "scaling" or "log"
        ``method`` of :func:`partial_uot`.

    Attributes
    ----------
    labels_ (n,), cluster_sizes_ (K,) counts, cluster_centers_ (K, d) means of X weighted by probability,
    rho_path_ (max_iter,), objective_ (max_iter,) training loss, selected_mass_ (n,) in [0, 1] the share of each sample
    that was labelled, on average over training: early picks have more. n_iter_, n_features_in_.

    Raises
    ------
    ValueError
        In ``fit``, naming the argument: too few rows, NaN or inf, constant features, n_clusters < 1 or > n, a rho
        outside (0, 1], a negative semantic_weight, reg <= 0.

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
        head: str | Head = "cosine",
        encoder: _Encoder = None,
        max_iter: int = 120,
        n_init: int = 1,
        init: str = "k-means",
        lr: float = 0.02,
        view_fn: View | None = None,
        random_state: Any = None,
        solver: str = "anderson",
    ) -> None:
        self.n_clusters = n_clusters
        self.reg = reg
        self.reg_m = reg_m
        self.rho0 = rho0
        self.rho1 = rho1
        self.semantic_weight = semantic_weight
        self.n_neighbors = n_neighbors
        self.head = head
        self.encoder = encoder
        self.max_iter = max_iter
        self.n_init = n_init
        self.init = init
        self.lr = lr
        self.view_fn = view_fn
        self.random_state = random_state
        self.solver = solver

    def _switches(self) -> dict[str, Any]:
        if self.n_neighbors < 1:
            raise ValueError(f"n_neighbors={self.n_neighbors!r} must be at least 1")
        if not 0 <= self.semantic_weight < np.inf:
            raise ValueError(f"semantic_weight={self.semantic_weight!r} must be a finite number >= 0")
        return {
            "schedule": RhoSchedule(self.rho0, self.rho1),
            "reg_m": self.reg_m,
            "semantic_weight": self.semantic_weight,
            "n_neighbors": self.n_neighbors,
        }


class P2OTClustering(SelfLabelling):
    """`SP2OTClustering` without the semantic term (arXiv 2401.09266); parameters and attributes as there.

    >>> P2OTClustering(2, max_iter=5, random_state=0).fit(np.eye(4)).rho_path_.round(2).tolist()
    [0.11, 0.15, 0.36, 0.76, 1.0]
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        reg: float = 0.1,
        reg_m: float = 1.0,
        rho0: float = 0.1,
        rho1: float = 1.0,
        head: str | Head = "cosine",
        encoder: _Encoder = None,
        max_iter: int = 120,
        n_init: int = 1,
        init: str = "k-means",
        lr: float = 0.02,
        view_fn: View | None = None,
        random_state: Any = None,
        solver: str = "anderson",
    ) -> None:
        self.n_clusters = n_clusters
        self.reg = reg
        self.reg_m = reg_m
        self.rho0 = rho0
        self.rho1 = rho1
        self.head = head
        self.encoder = encoder
        self.max_iter = max_iter
        self.n_init = n_init
        self.init = init
        self.lr = lr
        self.view_fn = view_fn
        self.random_state = random_state
        self.solver = solver

    def _switches(self) -> dict[str, Any]:
        return {"schedule": RhoSchedule(self.rho0, self.rho1), "reg_m": self.reg_m}


class UOTClustering(SelfLabelling):
    """All samples labelled from the first step, cluster sizes soft; parameters and attributes of `SP2OTClustering`.

    >>> UOTClustering(2, max_iter=5, random_state=0).fit(np.eye(4)).rho_path_.tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        reg: float = 0.1,
        reg_m: float = 1.0,
        head: str | Head = "cosine",
        encoder: _Encoder = None,
        max_iter: int = 120,
        n_init: int = 1,
        init: str = "k-means",
        lr: float = 0.02,
        view_fn: View | None = None,
        random_state: Any = None,
        solver: str = "anderson",
    ) -> None:
        self.n_clusters = n_clusters
        self.reg = reg
        self.reg_m = reg_m
        self.head = head
        self.encoder = encoder
        self.max_iter = max_iter
        self.n_init = n_init
        self.init = init
        self.lr = lr
        self.view_fn = view_fn
        self.random_state = random_state
        self.solver = solver

    def _switches(self) -> dict[str, Any]:
        return {"schedule": RhoSchedule(kind="fixed"), "reg_m": self.reg_m}


class SeLaClustering(SelfLabelling):
    """All samples labelled, all clusters equally large (SeLa, arXiv 1911.05371); otherwise as `SP2OTClustering`.

    >>> SeLaClustering(2, max_iter=5, random_state=0).fit([[0, 0], [0, 1], [9, 0], [9, 1]]).cluster_sizes_.tolist()
    [2, 2]
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        reg: float = 0.1,
        head: str | Head = "cosine",
        encoder: _Encoder = None,
        max_iter: int = 120,
        n_init: int = 1,
        init: str = "k-means",
        lr: float = 0.02,
        view_fn: View | None = None,
        random_state: Any = None,
        solver: str = "anderson",
    ) -> None:
        self.n_clusters = n_clusters
        self.reg = reg
        self.head = head
        self.encoder = encoder
        self.max_iter = max_iter
        self.n_init = n_init
        self.init = init
        self.lr = lr
        self.view_fn = view_fn
        self.random_state = random_state
        self.solver = solver

    def _switches(self) -> dict[str, Any]:
        return {"schedule": RhoSchedule(kind="fixed"), "reg_m": np.inf}
