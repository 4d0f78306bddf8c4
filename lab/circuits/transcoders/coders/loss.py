r"""What a coder is trained down: error and sparsity, and a term for dead features.

$$ \mathcal L=\underbrace{\frac1{BD}\sum_{b,k}\frac{(\hat y_{bk}-y_{bk})^2}{\lVert y_b\rVert_2}}_{(1)}
   +\underbrace{\lambda\,\frac1B\sum_b\sum_i z_{bi}}_{(2)}\;(+\ \text{a term for dead features}) $$

The paper's prose has a plain squared error; the division by the target's norm is the official code's and our default.
With it both terms are of degree one in the scale of y, so lambda does not depend on that scale; because the error is a
mean over D, the constant that carries over to another width is lambda D.

Let $r=y-\hat y$ be the residual, and Dead the features that have not fired for long. Two terms for them:

$$ \text{AuxK:}\quad \frac{\lVert\sum_{i\in K}a_id_i-r\rVert^2}{\lVert r\rVert^2},\quad
   K=\text{the } D/2 \text{ largest pre-activations } a_i \text{ in Dead} \tag{3} $$
$$ \text{ghost:}\quad \mathrm{mean}\frac{(g-r)^2}{\lVert r\rVert},\quad
   g=\frac{\lVert r\rVert}{2\lVert u\rVert}u,\quad u=\sum_{i\in\mathrm{Dead}}e^{a_i}d_i \tag{4} $$

(4) is weighted to be as large as the error itself. The official ghost term takes the residual of the *input*, x - y_hat,
for transcoders too; here it is y - y_hat.
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
    r"""The official example's sparsity coefficient for a target of another width: $\lambda=1.4\cdot10^{-4}\cdot768/d_{out}$.

    Parameters
    ----------
    d_out : int
        Width of what the coder writes.

    Returns
    -------
    float
        lambda, in units of the error's scale per unit of activation.

    References
    ----------
    The example of the official code, for GPT2-small.

    Examples
    --------
    >>> f"{official_lambda(128):.2g}"
    '0.00084'
    """
    return OFFICIAL_LAMBDA_D / d_out


@dataclass(frozen=True)
class TranscoderLoss:
    """The loss of one batch, equations (1) to (4) of the module: ``error + lam * l1``, and the term for dead features.

    Parameters
    ----------
    lam : float, at least 0
        lambda, the sparsity coefficient.
    mse : str
        "normed": each row's squared error over the norm of its target, as coded; "plain": as written.
    dead : str
        "none"; "auxk": equation (3); "ghost": equation (4). In both, gradients reach dead features alone.
    aux_weight : float, at least 0
        Weight of (3).

    Raises
    ------
    CircuitError
        For a negative or non-finite number and for unknown names.

    References
    ----------
    Dunefsky, Chlenski and Nanda, "Transcoders Find Interpretable LLM Feature Circuits", 2024,
    Section 2, and its official code; Gao et al., "Scaling and evaluating sparse autoencoders", 2024, for AuxK.

    Examples
    --------
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
        """The mean squared error, each row over its target's norm: equation (1)."""
        squared = (y_hat - y).square()
        if self.mse == "normed":
            squared = squared / y.norm(dim=1, keepdim=True).clamp_min(TINY)
        return squared.mean()

    def sparsity(self, z: Float[Tensor, "b f"]) -> Float[Tensor, ""]:
        """``lambda`` times the mean over the batch of the sum of activations: equation (2)."""
        return self.lam * z.sum() / len(z)

    def dead_feature_loss(
        self, pre: Float[Tensor, "b n"], residual: Float[Tensor, "b d"], W_dec: Float[Tensor, "n d"]
    ) -> Float[Tensor, ""]:
        """Equation (3) or (4), given dead features' pre-activations and decoder rows alone; zero when there are none.

        ``residual = y - y_hat`` is not differentiated.
        """
        if self.dead == "none" or pre.shape[1] == 0:
            return pre.new_zeros(())
        residual = residual.detach()
        return self.aux_weight * _auxk(pre, residual, W_dec) if self.dead == "auxk" else _ghost(pre, residual, W_dec)


def objective(coder: Transcoder, lam: float, x: Float[Tensor, "b i"], y: Float[Tensor, "b o"]) -> float:
    """Equations (1) and (2) of a coder on given pairs, without the term for dead features."""
    loss, z = TranscoderLoss(lam, dead="none"), coder.encode(x)
    return float(loss.error(coder(x), y) + loss.sparsity(z))


def _auxk(pre: Tensor, residual: Tensor, W_dec: Tensor) -> Tensor:
    """Equation (3), as in sparsify; scaled down where fewer features than D / 2 are dead."""
    count, used = pre.shape[1], max(1, residual.shape[1] // 2)
    # (3): the largest dead pre-activations decode the residual
    values, features = pre.topk(min(used, count), dim=1, sorted=False)
    coded = torch.nn.functional.embedding_bag(features, W_dec, per_sample_weights=values, mode="sum")
    scale = min(count / used, 1.0)
    return scale * (coded - residual).square().sum() / residual.square().sum().clamp_min(TINY)


def _ghost(pre: Tensor, residual: Tensor, W_dec: Tensor) -> Tensor:
    """Equation (4), the official ghost gradients: half the residual's norm, and as heavy as the error itself."""
    norm = residual.norm(dim=1, keepdim=True)
    ghost = pre.exp() @ W_dec  # (4): u [B, D], then g of half the residual's norm
    ghost = ghost * (norm / (2 * ghost.norm(dim=1, keepdim=True) + TINY)).detach()
    term = ((ghost - residual).square() / norm.clamp_min(TINY)).mean()
    error = (residual.square() / norm.clamp_min(TINY)).mean()
    return term * (error / (term + TINY)).detach()
