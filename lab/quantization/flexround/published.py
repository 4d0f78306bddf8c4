"""FlexRound as the formula is written, all gradients by autograd: the oracle of the tests, and the peer in the race.

::

    (1)  W_hat = exp(d_1) clip(round(W / exp(d_1 + d_2 + d_3 + d_4)))
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lab.quantization.flexround.quantizer import FlexRoundQuantizer


class PublishedFlexRound(FlexRoundQuantizer):
    r"""`FlexRoundQuantizer` in plain autograd; its step is not rounded to float16 before the end, and d2 not clamped.

    .. math:: \hat W = e^{d_1}\,\mathrm{clip}\big(\lfloor W / e^{d_1 + d_2 + d_3 + d_4}\rceil\big)

    Parameters
    ----------
    weight, bits, **settings
        As in `FlexRoundQuantizer`.

    Raises
    ------
    ValueError
        As `FlexRoundQuantizer` does.

    References
    ----------
    J. H. Lee et al., "FlexRound", ICML 2023, arXiv 2306.00317, Eq. 2.

    Examples
    --------
    >>> PublishedFlexRound(torch.tensor([[0.4, 0.6, -1.0, 2.0]]), bits=2, init="minmax")().tolist()
    [[0.0, 1.0, -1.0, 2.0]]
    """

    weight: Tensor

    def __init__(self, weight: Tensor, bits: int = 4, **settings: Any) -> None:
        super().__init__(weight, bits, **settings)
        self.register_buffer("weight", self.steps * self.start, persistent=False)

    def rounded(self, steps: Float[Tensor, "o g s"]) -> Float[Tensor, "o g s"]:
        weight = self.weight if steps is self.steps else steps * self.start
        d1, d2, d3, d4 = self.factors()
        exponent = d1 + d2
        for log_factor in (d3, d4):
            exponent = exponent if log_factor is None else exponent + log_factor
        # (1), the gradient straight through the rounding
        divided = weight / exponent.exp()  # (o, g, s)
        codes = divided + (divided.round() - divided).detach()
        return torch.clamp(codes, -self.zero, self.top - self.zero) * d1.exp()
