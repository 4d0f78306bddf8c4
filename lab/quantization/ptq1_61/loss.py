r"""What a block is fitted to (Eq. 5 and the angular loss): sizes and angles of its outputs, on two streams.

.. math:: L = \mathrm{MSE}(Y_q, Y_f) + \mathrm{NLC}(Y_q, Y_f) + \mathrm{MSE}(Y_q, Y_{fq}) + \mathrm{NLC}(Y_q, Y_{fq})

:math:`Y_f` is the full-precision model's output, :math:`Y_{fq}` the full-precision block's on what the quantized blocks before
it give, :math:`Y_q` the quantized block's on the same. The paper writes a 2-norm for the first term, its code a mean.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

SMALLEST_COSINE = 1e-4  # the logarithm explodes at 0, where a collapsed block starts


def nlc_loss(a: Float[Tensor, "... d"], b: Float[Tensor, "... d"]) -> Float[Tensor, ""]:
    r"""Negative logarithm of the cosine: :math:`-\log\big|\overline{\cos}(a, b)\big|`, 0 when all directions agree.

    The cosine over d is averaged over tokens and batch *first*, then its absolute value is taken, as the official code
    does; so b = -a costs nothing either. Cosines below 1e-4 count as 1e-4 (ours: without it orthogonal outputs cost
    infinity), and halves are computed in float32. Raises ValueError for shapes that differ or hold nothing.

    >>> one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    >>> round(nlc_loss(one, other).item(), 4), nlc_loss(one, -3 * one).item() == 0
    (0.3466, True)
    """
    a, b = _alike(a, b, "a", "b")
    return -functional.cosine_similarity(a, b, dim=-1).mean().abs().clamp(min=SMALLEST_COSINE).log()


def block_loss(
    ours: Float[Tensor, "... d"],
    full: Float[Tensor, "... d"],
    full_on_ours: Float[Tensor, "... d"],
    *,
    nlc: bool = True,
) -> Float[Tensor, ""]:
    """The four terms, or the two mean squares without ``nlc``; ValueError for shapes that differ.

    >>> out = torch.ones(2, 3)
    >>> block_loss(out, 2 * out, out).item()
    1.0
    """
    loss = torch.zeros((), device=ours.device)
    for name, target in (("full", full), ("full_on_ours", full_on_ours)):
        one, other = _alike(ours, target, "ours", name)
        loss = loss + functional.mse_loss(one, other)
        if nlc:
            loss = loss + nlc_loss(one, other)
    return loss


def _alike(a: Tensor, b: Tensor, one: str, other: str) -> tuple[Tensor, Tensor]:
    """Both in float32 or wider: mean squares of massive activations overflow in float16."""
    if a.shape != b.shape or not a.numel():
        raise ValueError(
            f"{one} and {other} must have one shape, with entries, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return a.to(dtype), b.to(dtype)
