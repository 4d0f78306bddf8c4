"""What a block is fitted to (the paper's Eq. 5 and the angular loss): sizes and angles of its outputs, on two streams.

::

    (1)  L = MSE(Y_q, Y_f) + NLC(Y_q, Y_f) + MSE(Y_q, Y_fq) + NLC(Y_q, Y_fq)
    (2)  NLC(a, b) = -log |mean of cos(a, b)|

Y_f is the full-precision model's output, Y_fq the full-precision block's on what the quantized blocks before it give, Y_q the
quantized block's on the same. The paper writes a 2-norm for the first term, its code a mean.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

SMALLEST_COSINE = 1e-4  # the logarithm explodes at 0, where a collapsed block starts


def nlc_loss(a: Float[Tensor, "... d"], b: Float[Tensor, "... d"]) -> Float[Tensor, ""]:
    r"""Negative logarithm of the cosine: 0 when all directions agree.

    .. math:: \mathrm{NLC}(a, b) = -\log\big|\overline{\cos}(a, b)\big|

    The cosine over d is averaged over tokens and batch *first*, then its absolute value is taken, as the official code
    does; so b = -a costs nothing either. Cosines below 1e-4 count as 1e-4 (ours: without it orthogonal outputs cost
    infinity), and halves are computed in float32.

    Parameters
    ----------
    a, b : (..., d)
        Of one shape.

    Returns
    -------
    scalar tensor
        The loss.

    Raises
    ------
    ValueError
        For shapes that differ or hold nothing.

    References
    ----------
    J. Zhao et al., "PTQ1.61", ACL 2025, arXiv 2502.13179, the angular loss.

    Examples
    --------
    >>> one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    >>> round(nlc_loss(one, other).item(), 4), nlc_loss(one, -3 * one).item() == 0
    (0.3466, True)
    """
    a, b = _alike(a, b, "a", "b")
    # (2)
    return -functional.cosine_similarity(a, b, dim=-1).mean().abs().clamp(min=SMALLEST_COSINE).log()


def block_loss(
    ours: Float[Tensor, "... d"],
    full: Float[Tensor, "... d"],
    full_on_ours: Float[Tensor, "... d"],
    *,
    nlc: bool = True,
) -> Float[Tensor, ""]:
    r"""The four terms of a block's loss.

    .. math:: L = \mathrm{MSE}(Y_q, Y_f) + \mathrm{NLC}(Y_q, Y_f) + \mathrm{MSE}(Y_q, Y_{fq}) + \mathrm{NLC}(Y_q, Y_{fq})

    Parameters
    ----------
    ours, full, full_on_ours : (..., d)
        Y_q, the quantized block's output; Y_f, the full-precision model's; Y_fq, the full-precision block's on the input of
        the quantized one.
    nlc : bool
        Without it the two mean squares alone.

    Returns
    -------
    scalar tensor
        The loss.

    Raises
    ------
    ValueError
        For shapes that differ or hold nothing.

    References
    ----------
    J. Zhao et al., "PTQ1.61", ACL 2025, arXiv 2502.13179, Eq. 5.

    Examples
    --------
    >>> out = torch.ones(2, 3)
    >>> block_loss(out, 2 * out, out).item()
    1.0
    """
    loss = torch.zeros((), device=ours.device)
    # (1)
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
