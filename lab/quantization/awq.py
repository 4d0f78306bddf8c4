"""AWQ-like scaling: input channels that carry much are made larger before rounding, and smaller again after.

::

    (1)  t_k = mean|x_k|^a / sqrt(max t min t)
    (2)  W_hat_a = Q(W diag(t)) diag(t)^-1
    (3)  a = argmin |(W - W_hat_a) X|^2

over a in 0, 0.05, ..., 1 (J. Lin et al., "AWQ", MLSys 2024, arXiv 2306.00978, Section 3.2). "Like", for three reasons: the
official code (mit-han-lab/llm-awq) looks at the output of the whole attention or MLP, shares t among the layers of one
input and folds it into the layer before; here each layer is looked at by itself, and t is stored and counted. It also
clips ranges afterwards, and ends at a = 0.95.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lab.quantization.grid import SMALLEST, Per, check_weight, grid_of
from lab.quantization.pipeline import LayerMethod
from lab.quantization.statistics import Statistics
from lab.quantization.weights import Affine, QuantizedWeight, Scaled

EXPONENTS = tuple(step / 20 for step in range(21))
LEAST = 1e-4  # of a channel's size to the power a, as in the official code
LARGEST = 65504.0  # that float16 holds


@dataclass(frozen=True)
class AWQ(LayerMethod):
    """Round to nearest after the best of 21 scalings of the input channels; 0 among them, which is plain rounding.

    Returns a `Scaled` weight with an `Affine` one inside. Raises ValueError for ``bits`` outside 1..8, a group ``per`` that
    does not divide the inputs, NaN or inf, and statistics of another width or that saw no token.

    >>> seen = Statistics(4)
    >>> seen.add(torch.tensor([[100.0, 1.0, 1.0, 1.0], [1.0, 1.0, -1.0, 0.0]]))
    >>> AWQ(bits=3).layer(torch.randn(6, 4), seen).scale.argmin()  # the loud channel was made largest
    tensor(0)
    """

    key: ClassVar[str] = "awq"
    title: ClassVar[str] = "AWQ-like"
    bits: int = 4
    per: Per = "row"

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise ValueError(f"bits must lie in 1..8, got {self.bits}")

    def layer(self, weight: Float[Tensor, "o i"], statistics: Statistics) -> QuantizedWeight:
        """The stored form of one weight, (2)."""
        check_weight(weight)
        if statistics.channels != weight.shape[1]:
            channels, inputs = statistics.channels, weight.shape[1]
            raise ValueError(f"statistics are of {channels} channels, and the weight has {inputs} inputs")
        weight, hessian = weight.float(), statistics.hessian()
        best, chosen = torch.inf, weight.new_ones(weight.shape[1])
        for exponent in EXPONENTS:
            back = inverse_scale(statistics.absmean, exponent)
            wide = weight / back  # W diag(t), (o, i)
            error = grid_of(wide, self.bits, per=self.per).round(wide).mul_(back).sub_(weight)
            loss = float((error @ hessian).mul_(error).sum())  # (3)
            if loss < best:
                best, chosen = loss, back
        wide = weight / chosen
        return Scaled(Affine.of(wide, grid_of(wide, self.bits, per=self.per)), chosen.half())


def inverse_scale(size: Float[Tensor, " i"], exponent: float) -> Float[Tensor, " i"]:
    """1 / t for channels of mean ``size`` (i,), as float16 holds it.

    >>> inverse_scale(torch.tensor([4.0, 1.0]), 0.5).tolist()
    [0.70703125, 1.4140625]
    """
    scale = size.pow(exponent).clamp(min=LEAST)  # (1)
    back = (scale.max().sqrt() * scale.min().sqrt()) / scale
    return back.clamp(SMALLEST, LARGEST).half().float()
