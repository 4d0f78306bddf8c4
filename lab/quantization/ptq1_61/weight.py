"""The quantized weight as a function of its scales (the paper's Eq. 9, with the mean that the official code adds).

With m = 1 for salient channels::

    (1)  W_hat = Q(W) m + (r_1 r_2) (alpha sign(W - mu) + mu) (1 - m)
    (2)  mu = mean of w,   alpha = mean of |w|,   over the entries of a row that are neither salient nor zero

Learned are alpha and r_1, (n, 1), and r_2, (1, m). Signs, means and the salient channels stay as they are, so nothing here
needs a straight-through estimator: the weight is smooth in what is learned.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lab.quantization.grid import Grid, check_weight, grid_of
from lab.quantization.reconstruction import LearnedWeight
from lab.quantization.weights import Affine, Binary, Mixed, QuantizedWeight, Scaled

HighRange = Literal["row", "salient"]


class PTQ161Weight(LearnedWeight):
    r"""A weight (n, m) with salient channels at ``high_bits`` and one bit elsewhere; parameters alpha, r1 and r2.

    .. math:: \hat W = Q_b(W)\circ m + (r_1 r_2)\circ\big(\alpha\,\mathrm{sign}(W-\mu) + \mu\big)\circ(1-m)

    It starts at :math:`r_1 = r_2 = 1` and, over each row's entries that are neither salient nor zero,
    :math:`\mu = \mathrm{mean}(w)` and :math:`\alpha = \mathrm{mean}|w|` (not of \|w - mu\|: as the official code has it). Zeros
    (of a pruned weight) are left out of both means, and get a sign all the same. sign(0) is +1: a stored sign has
    no third value.

    Parameters
    ----------
    weight : (n, m)
        Outputs by inputs.
    mask : bool (m,)
        The salient channels, from `channel_mask`.
    high_bits : int
        Bits of a salient weight, on an asymmetric min-max grid for each row.
    high_range : "row" or "salient"
        Whether that grid spans the whole row (official) or only its salient entries (finer, at no cost).
    mean : bool
        With the mean mu (official code), or without (Eq. 9).

    Raises
    ------
    ValueError
        For a weight that is not a finite matrix, a mask that does not fit, bits outside 1..8, an unknown ``high_range``.

    References
    ----------
    J. Zhao et al., "PTQ1.61", ACL 2025, arXiv 2502.13179, Eq. 9.

    Examples
    --------
    >>> weight = PTQ161Weight(torch.tensor([[3.0, 0.5, -0.5]]), torch.tensor([True, False, False]))
    >>> weight.finish().dequantize()
    tensor([[ 3.0326,  0.5000, -0.5000]])
    """

    high: Float[Tensor, "n m"]
    signs: Float[Tensor, "n m"]
    mean: Float[Tensor, "n 1"]
    low: Float[Tensor, "1 m"]

    def __init__(
        self,
        weight: Float[Tensor, "n m"],
        mask: Bool[Tensor, " m"],
        *,
        high_bits: int = 4,
        high_range: HighRange = "row",
        mean: bool = True,
    ) -> None:
        super().__init__()
        check_weight(weight)
        if mask.dtype != torch.bool or mask.shape != weight.shape[1:]:
            raise ValueError(
                f"mask must be bool, one entry for each of the {weight.shape[1]} inputs, got {mask.dtype} of the shape "
                f"{tuple(mask.shape)}"
            )
        check_high_range(high_range)
        weight = weight.detach()
        self.mask, self.with_mean = mask, mean
        self.grid: Grid = grid_of(weight * mask if high_range == "salient" else weight, high_bits)
        rest = weight.masked_fill(mask, 0.0)  # (n, m)
        count = (rest != 0).sum(1, keepdim=True).clamp(min=1)
        # (2)
        center = rest.sum(1, keepdim=True) / count if mean else torch.zeros_like(weight[:, :1])
        # What no step changes is computed once: each step then takes two broadcasts, or none (see `linear`).
        self.register_buffer("high", self.grid.round(weight) * mask)
        self.register_buffer("signs", torch.where(weight >= center, 1.0, -1.0).to(weight.dtype))
        self.register_buffer("mean", center)
        self.register_buffer("low", (~mask)[None].to(weight.dtype))
        self.alpha = nn.Parameter(rest.abs().sum(1, keepdim=True) / count)  # (2): (n, 1)
        self.r1 = nn.Parameter(torch.ones_like(center))
        self.r2 = nn.Parameter(torch.ones_like(self.low))

    def forward(self) -> Float[Tensor, "n m"]:
        """The weight, differentiable in alpha, r1 and r2."""
        binary = torch.addcmul(self.r1 * self.mean, self.r1 * self.alpha, self.signs)  # r_1 (alpha sign + mu), (n, m)
        return torch.addcmul(self.high, self.r2 * self.low, binary)  # (1)

    @torch.no_grad()
    def fold(self) -> None:
        """Take r1 into alpha and mu, in place; the weight stays the same, and two vectors of n are stored, not three."""
        self.alpha.mul_(self.r1)
        self.mean.mul_(self.r1)
        self.r1.fill_(1.0)

    @torch.no_grad()
    def finish(self) -> QuantizedWeight:
        """Signs, codes, and r1 alpha, r1 mu and r2 in float16; see `storage.layer_storage` for what it costs.

        Without salient channels the form has no mask and no codes, and with nothing else no signs.
        """
        high = Affine.of(self.high, self.grid)
        if bool(self.mask.all()):
            return high
        mean = (self.r1 * self.mean).half() if self.with_mean else None
        low = Scaled(Binary(self.signs > 0, (self.r1 * self.alpha).half(), mean), self.r2[0].half())
        return Mixed(self.mask[None], high, low) if bool(self.mask.any()) else low


def check_high_range(high_range: str) -> None:
    """Raise ValueError for a range that is not known."""
    if high_range not in get_args(HighRange):
        raise ValueError(f"high_range must be one of {', '.join(get_args(HighRange))}, got {high_range!r}")
