r"""What a coder is trained down: error and sparsity, and a remedy for features that have fallen silent.

$$ \mathcal L=\frac1{BD}\sum_{b,k}\frac{(\hat y_{bk}-y_{bk})^2}{\lVert y_b\rVert_2}+\lambda\,\frac1B\sum_b\sum_i z_{bi}
   \;(+\ \text{a term for dead features}) $$

The paper's prose has a plain squared error; the division by the target's norm is the official code's and our default.
With it both terms are of degree one in the scale of y, so lambda does not depend on that scale; because the error is a
mean over D, the constant that carries over to another width is lambda D.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lab.circuits.transcoders.coders.coder import Transcoder
from lab.circuits.transcoders.errors import CircuitError

Error = Literal["normed", "plain"]
DeadFeatureLoss = Literal["none", "auxk", "ghost"]
OFFICIAL_LAMBDA_D = 1.4e-4 * 768  # of the GPT2-small example: what carries over to another width
TINY = 1e-6


def official_lambda(d_out: int) -> float:
    """The official example's lambda for a target of another width: 0.1075 / d_out.

    >>> f"{official_lambda(128):.2g}"
    '0.00084'
    """
    return OFFICIAL_LAMBDA_D / d_out


@dataclass(frozen=True)
class TranscoderLoss:
    """The loss of one batch: ``error + lam * l1``, and the term of a remedy for dead features (Section 2, official code).

    lam    lambda, the sparsity coefficient; at least 0
    mse    "normed": each row's squared error over the norm of its target, as coded; "plain": as written
    dead   "none"; "auxk": the d_out / 2 largest pre-activations of dead features reconstruct what is left of the error;
           "ghost": exp(pre-activations) of all dead features do. In both, gradients reach dead features alone

    The official ghost term takes the residual of the *input*, x - y_hat, for transcoders too; here it is y - y_hat.

    Raises CircuitError for a negative or non-finite lambda and for unknown names.

    >>> loss = TranscoderLoss(lam=0.1)
    >>> loss.error(torch.tensor([[2.5], [-1.0]]), torch.tensor([[4.0], [-1.0]]))
    tensor(0.2812)
    """

    lam: float
    mse: Error = "normed"
    dead: DeadFeatureLoss = "auxk"
    aux_weight: float = 1 / 32

    def __post_init__(self) -> None:
        for name in ("lam", "aux_weight"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise CircuitError(f"{name} must be a number of at least 0, got {getattr(self, name)}")
        for name, allowed in (("mse", get_args(Error)), ("dead", get_args(DeadFeatureLoss))):
            if getattr(self, name) not in allowed:
                raise CircuitError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")

    def error(self, y_hat: Float[Tensor, "b d"], y: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
        """The mean squared error, each row over its target's norm."""
        squared = (y_hat - y).square()
        if self.mse == "normed":
            squared = squared / y.norm(dim=1, keepdim=True).clamp_min(TINY)
        return squared.mean()

    def sparsity(self, z: Float[Tensor, "b f"]) -> Float[Tensor, ""]:
        """``lambda`` times the mean over the batch of the sum of activations."""
        return self.lam * z.sum() / len(z)

    def dead_feature_loss(
        self, pre: Float[Tensor, "b n"], residual: Float[Tensor, "b d"], W_dec: Float[Tensor, "n d"]
    ) -> Float[Tensor, ""]:
        """The term for dead features, given their pre-activations and decoder rows alone; zero when there are none.

        ``residual = y - y_hat`` is not differentiated.
        """
        if self.dead == "none" or pre.shape[1] == 0:
            return pre.new_zeros(())
        residual = residual.detach()
        return self.aux_weight * _auxk(pre, residual, W_dec) if self.dead == "auxk" else _ghost(pre, residual, W_dec)


def objective(coder: Transcoder, lam: float, x: Float[Tensor, "b i"], y: Float[Tensor, "b o"]) -> float:
    """The loss that a coder is trained down, on given pairs, without the remedy."""
    loss, z = TranscoderLoss(lam, dead="none"), coder.encode(x)
    return float(loss.error(coder(x), y) + loss.sparsity(z))


def _auxk(pre: Tensor, residual: Tensor, W_dec: Tensor) -> Tensor:
    """As in sparsify: the largest pre-activations decode the residual; its own squared error is the unit."""
    count, used = pre.shape[1], max(1, residual.shape[1] // 2)
    values, features = pre.topk(min(used, count), dim=1, sorted=False)
    coded = torch.nn.functional.embedding_bag(features, W_dec, per_sample_weights=values, mode="sum")
    scale = min(count / used, 1.0)
    return scale * (coded - residual).square().sum() / residual.square().sum().clamp_min(TINY)


def _ghost(pre: Tensor, residual: Tensor, W_dec: Tensor) -> Tensor:
    """The official ghost gradients: half the residual's norm, and as heavy as the error itself."""
    norm = residual.norm(dim=1, keepdim=True)
    ghost = pre.exp() @ W_dec
    ghost = ghost * (norm / (2 * ghost.norm(dim=1, keepdim=True) + TINY)).detach()
    term = ((ghost - residual).square() / norm.clamp_min(TINY)).mean()
    error = (residual.square() / norm.clamp_min(TINY)).mean()
    return term * (error / (term + TINY)).detach()
