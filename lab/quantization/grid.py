"""The uniform grid that most methods round to.

One scale s and zero point z for the whole weight, for each output row, or for each group of inputs in a row. The range is
the weight's own, with zero in it, or that range shrunk to where the error is least::

    (1)  q = clip(round(w / s) + z, 0, 2^b - 1)
    (2)  w_hat = s (q - z)
    (3)  low = min(w, 0),   high = max(w, 0)
    (4)  s = (high - low) / (2^b - 1),   z = round(-low / s)
    (5)  the share of the range, one of 80, with the least sum of |w_hat - w|^2.4
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST = 2.0**-24  # of a scale: what float16 can still hold
SHRINKAGE, POWER = 80, 2.4  # of the search for a range: steps, and the power of the error that it minimises
Per = Literal["tensor", "row"] | int
Init = Literal["minmax", "mse"]


@dataclass(frozen=True, eq=False)
class Grid:
    """Scale and zero point, (o, g) or (1, 1), for ``g`` groups of consecutive inputs; codes have ``bits`` bits."""

    scale: Float[Tensor, "r g"]
    zero: Float[Tensor, "r g"]
    bits: int

    @property
    def top(self) -> int:
        """The largest code."""
        return 2**self.bits - 1

    def spread(self, columns: int) -> tuple[Float[Tensor, "r i"], Float[Tensor, "r i"]]:
        """Scale and zero point of every input, (o, i) or (1, 1) where one serves all."""
        if self.scale.shape[1] == 1:
            return self.scale, self.zero
        size = columns // self.scale.shape[1]
        return self.scale.repeat_interleave(size, 1), self.zero.repeat_interleave(size, 1)

    def codes(self, weight: Float[Tensor, "o i"]) -> Float[Tensor, "o i"]:
        """The nearest codes q, as whole numbers in the weight's own type; halves go to the even one."""
        scale, zero = self.spread(weight.shape[1])
        return torch.clamp(torch.round(weight / scale) + zero, 0, self.top)  # (1)

    def values(self, codes: Float[Tensor, "o i"]) -> Float[Tensor, "o i"]:
        """What codes stand for."""
        scale, zero = self.spread(codes.shape[1])
        return scale * (codes - zero)  # (2)

    def round(self, weight: Float[Tensor, "o i"]) -> Float[Tensor, "o i"]:
        """The weight on its grid: round-to-nearest."""
        return self.values(self.codes(weight))


def fit_grid(
    weight: Float[Tensor, "o i"],
    bits: int,
    *,
    per: Per = "row",
    init: Init = "minmax",
) -> Grid:
    """The grid of a weight (o, i): per tensor, per row, or per group of ``per`` inputs.

    ``init="mse"`` shrinks each range in `SHRINKAGE` steps and keeps the one with the least sum of \\|error\\|^2.4. Scales are
    rounded to float16, so that what is computed is what is stored. A row of zeros gets the range
    [-1, 1]. Raises ValueError for bits outside 1..8, a group that does not divide the inputs, and NaN or inf.

    >>> fit_grid(torch.tensor([[-1.0, 0.5, 2.0]]), bits=2).round(torch.tensor([[-1.0, 0.5, 2.0]]))
    tensor([[-1.,  0.,  2.]])
    """
    check_weight(weight)
    return grid_of(weight, bits, per=per, init=init)


def grid_of(weight: Float[Tensor, "o i"], bits: int, *, per: Per = "row", init: Init = "minmax") -> Grid:
    """`fit_grid` of a weight whose numbers were checked already."""
    if not 1 <= bits <= 8:
        raise ValueError(f"bits must lie in 1..8, got {bits}")
    if init not in get_args(Init):
        raise ValueError(f"init must be one of {', '.join(get_args(Init))}, got {init!r}")
    groups = _grouped(weight, per)  # (o, g, s), or (1, 1, o i)
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)  # (3): (o, g)
    empty = low == high
    low, high = low.masked_fill(empty, -1.0), high.masked_fill(empty, 1.0)
    if init == "minmax":
        return _grid(low, high, bits)
    best, share = torch.full_like(low, torch.inf), torch.ones_like(low)
    for step in range(SHRINKAGE):
        trial = 1 - step / SHRINKAGE
        grid = _grid(trial * low, trial * high, bits)
        scale, zero = grid.scale[..., None], grid.zero[..., None]
        rounded = scale * (torch.clamp(torch.round(groups / scale) + zero, 0, grid.top) - zero)
        error = (rounded - groups).abs_().pow_(POWER).sum(-1)
        better = error < best  # (5)
        best = torch.where(better, error, best)
        share = torch.where(better, torch.full_like(share, trial), share)
    return _grid(share * low, share * high, bits)


def check_weight(weight: Tensor, name: str = "weight") -> None:
    """Raise ValueError unless it is a non-empty matrix of finite floating-point numbers."""
    if weight.ndim != 2 or not weight.numel():
        raise ValueError(f"{name} must be a matrix (outputs, inputs) with entries, got the shape {tuple(weight.shape)}")
    if not weight.is_floating_point():
        raise ValueError(f"{name} must hold floating-point numbers, got {weight.dtype}")
    if not bool(torch.isfinite(weight).all()):
        raise ValueError(f"{name} holds NaN or inf")


def _grouped(weight: Tensor, per: Per) -> Float[Tensor, "r g s"]:
    rows, columns = weight.shape
    if per == "tensor":
        return weight.reshape(1, 1, -1)
    size = columns if per == "row" else per
    if size < 1 or columns % size:
        raise ValueError(f"a group of {size} inputs does not divide the weight's {columns}")
    return weight.reshape(rows, columns // size, size)


def _grid(low: Tensor, high: Tensor, bits: int) -> Grid:
    # (4)
    scale = ((high - low) / (2**bits - 1)).clamp(min=SMALLEST).half().to(low.dtype)
    zero = torch.round(-low / scale).clamp(0, 2**bits - 1)
    return Grid(scale, zero, bits)
