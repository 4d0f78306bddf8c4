"""From features to logits: the cosine head, the space it works in, and where its prototypes start.

::

    (1)  L_ik = 10 <z_i / |z_i|, w_k / |w_k|>        logits, as in arXiv 2404.03446: only directions count
    (2)  z = [(x - mean) / scale, 1]                 so that nearness of given features becomes a small angle

(2) is ours: it makes (1) mean something for features that are not the output of a network trained with such a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

LOGIT_FACTOR = 10.0
BLOCK = 4096
Start = Literal["k-means", "random"]
STARTS: tuple[Start, ...] = ("k-means", "random")


class CosineHead(nn.Module):
    r"""A linear layer on directions: features (n, d) -> logits (n, K), no bias.

    .. math:: L_{ik} = 10\,\langle z_i/\|z_i\|,\ w_k/\|w_k\|\rangle

    Parameters
    ----------
    prototypes : tensor (K, d)
        Where the directions :math:`w_k` start; their lengths do not matter. Copied into the parameter ``weight``.

    Raises
    ------
    ValueError
        For prototypes that are not a finite matrix with at least one row.

    References
    ----------
    Zhang, Ren, He: SP2OT (arXiv 2404.03446), implementation details.

    Examples
    --------
    >>> CosineHead(torch.eye(2))(torch.tensor([[3.0, 0.0]])).tolist()
    [[10.0, 0.0]]
    """

    def __init__(self, prototypes: Float[Tensor, "k d"]) -> None:
        super().__init__()
        if prototypes.ndim != 2 or not len(prototypes) or not torch.isfinite(prototypes).all():
            raise ValueError(
                f"prototypes has shape {tuple(prototypes.shape)}: it must be (K, d) finite numbers, K >= 1"
            )
        self.weight = nn.Parameter(prototypes.clone())

    def forward(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Logits (n, K) in [-10, 10]."""
        # (1)
        return LOGIT_FACTOR * functional.normalize(z, dim=1) @ functional.normalize(self.weight, dim=1).T


@dataclass(frozen=True)
class FeatureSpace:
    """The map (2): the scale is the root of the mean squared distance from the mean.

    mean (d,), scale: positive number. Apply to an array (n, d); gives a float32 tensor (n, d + 1).
    """

    mean: np.ndarray
    scale: float

    @classmethod
    def of(cls, X: Float[np.ndarray, "n d"]) -> FeatureSpace:
        """Fit on features (n, d); ValueError for features that are the same in every row, or too large to be squared.

        >>> FeatureSpace.of(np.array([[0.0], [2.0]]))(np.array([[2.0]])).tolist()
        [[1.0, 1.0]]
        """
        with np.errstate(over="ignore", invalid="ignore"):
            mean = X.mean(0, dtype=np.float64)
            blocks = (X[start : start + BLOCK] - mean for start in range(0, len(X), BLOCK))
            scale = float(np.sqrt(sum(float(np.square(block).sum()) for block in blocks) / len(X)))
        if not scale < 1e30:
            raise ValueError("X holds numbers too large to be compared: divide it by a constant")
        if not scale > max(1e-30, 1e-12 * float(np.abs(mean).max())):
            raise ValueError("X is constant: every row holds the same features, so there is nothing to cluster")
        return cls(mean, scale)

    def __call__(self, X: Float[np.ndarray, "n d"]) -> Float[Tensor, "n d1"]:
        """Lifted features (n, d + 1), float32; ValueError for rows too far from the ones it was fitted on."""
        z = np.empty((len(X), X.shape[1] + 1), dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            # (2)
            np.subtract(X, self.mean.astype(X.dtype), out=z[:, :-1], casting="same_kind")
            z[:, :-1] /= self.scale
        z[:, -1] = 1.0
        if not np.isfinite(z).all() or np.abs(z).max() > 1e15:
            raise ValueError("X holds rows more than 1e15 times as far away as the rows it was fitted on are spread")
        return torch.from_numpy(z)


def prototypes(
    z: Float[Tensor, "n d"], n_clusters: int, start: Start, generator: torch.Generator
) -> Float[Tensor, "k d"]:
    """Where the head starts, (n_clusters, d): random directions, as the paper, or the centres of k-means on directions.

    k-means runs once (one k-means++ start, at most 20,000 of the rows). Raises ValueError for an unknown start.
    """
    if start not in STARTS:
        raise ValueError(f"init={start!r} is unknown: choose one of {', '.join(STARTS)}")
    if start == "random":
        return functional.normalize(torch.randn(n_clusters, z.shape[1], generator=generator), dim=1)
    from sklearn.cluster import KMeans

    chosen = torch.randperm(len(z), generator=generator)[:20_000]
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    directions = functional.normalize(z[chosen], dim=1).numpy()
    centres = KMeans(n_clusters, n_init=1, random_state=seed).fit(directions).cluster_centers_
    return functional.normalize(torch.from_numpy(centres), dim=1)


def noisy_views(z: Float[Tensor, "n d"], noise: float, generator: torch.Generator) -> Float[Tensor, "n d"]:
    """A view of lifted features: Gaussian noise of length about ``noise`` in all but the constant coordinate."""
    jitter = torch.randn(z.shape, generator=generator) * (noise / max(1, z.shape[1] - 1) ** 0.5)
    jitter[:, -1] = 0.0
    return z + jitter
