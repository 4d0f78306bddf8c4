"""Rounding with compensation: after each input column is rounded, the columns that follow make up for its error.

For the least of tr (W - W_hat) H (W - W_hat)^T and U the upper Cholesky factor of H^-1, column by column::

    (1)  e_k = (w_k - w_hat_k) / U_kk
    (2)  W_l <- W_l - e_k U_kl,   l > k

(E. Frantar et al., "GPTQ", ICLR 2023, arXiv 2210.17323, Algorithm 1). How a column is rounded is the caller's affair, so
GPTQ, PB-LLM's PB-GPTQ and others share this loop. Columns are kept as contiguous rows, and what a column owes to those far
away is paid for a whole block of columns at once, by one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lab.quantization.grid import Grid, Per, fit_grid
from lab.quantization.statistics import DAMPING, Statistics
from lab.quantization.weights import Affine

BLOCK = 32  # columns; the result does not depend on it but for rounding
RoundColumn = Callable[[Tensor, int], Tensor]  # (column k as compensated, k) -> the column rounded


def compensate(
    weight: Float[Tensor, "o i"], upper: Float[Tensor, "i i"], round_column: RoundColumn, *, block: int = BLOCK
) -> Float[Tensor, "o i"]:
    """Round a weight (o, i) column by column, each error passed on by ``upper``, from `statistics.upper_factor`.

    ``round_column(column, k)`` returns column k, (o,), rounded. Raises ValueError when ``upper`` does not fit.

    >>> weight = torch.tensor([[0.6, 0.6]])
    >>> compensate(weight, torch.eye(2), lambda column, k: column.round()).tolist()  # nothing to share: plain rounding
    [[1.0, 1.0]]
    """
    columns = weight.shape[1]
    if upper.shape != (columns, columns):
        raise ValueError(f"upper must be ({columns}, {columns}) for this weight, got {tuple(upper.shape)}")
    left = weight.T.contiguous().to(upper.dtype)  # (i, o)
    rounded = torch.empty_like(left)
    pivots = upper.diagonal().tolist()
    for start in range(0, columns, block):
        stop = min(start + block, columns)
        errors = torch.empty_like(left[start:stop])
        for k in range(start, stop):
            rounded[k] = round_column(left[k], k)  # (o,)
            error = torch.sub(left[k], rounded[k], out=errors[k - start]).div_(pivots[k])  # (1)
            if k + 1 < stop:  # (2), for the columns of this block
                left[k + 1 : stop].addr_(upper[k, k + 1 : stop], error, alpha=-1)
        if stop < columns:  # (2), for all others, a block of errors at once
            left[stop:].addmm_(upper[start:stop, stop:].T, errors, alpha=-1)
    return rounded.T.contiguous().to(weight.dtype)


def gptq(
    weight: Float[Tensor, "o i"],
    statistics: Statistics,
    *,
    bits: int = 4,
    per: Per = "row",
    damping: float = DAMPING,
) -> Affine:
    """GPTQ: round to the min-max grid of the weight as it was, with compensation; dead channels become 0.

    Raises ValueError as `fit_grid` and `upper_factor` do.

    >>> seen = Statistics(2)
    >>> seen.add(torch.randn(50, 2))
    >>> gptq(torch.randn(3, 2), seen, bits=3).codes.shape
    torch.Size([3, 2])
    """
    upper, dead = statistics.factor(damping)
    weight = weight.masked_fill(dead, 0.0)
    grid = fit_grid(weight, bits, per=per)
    return Affine.of(compensate(weight, upper, column_rounder(grid, weight.shape[1])), grid)


def column_rounder(grid: Grid, columns: int) -> RoundColumn:
    """Round-to-nearest on ``grid``, one column at a time."""
    scale, zero = grid.spread(columns)
    wide = scale.shape[1] > 1
    scales, low, high = (each.T.contiguous() for each in (scale, -zero, grid.top - zero))

    def round_column(column: Tensor, k: int) -> Tensor:
        at = k if wide else 0
        return (column / scales[at]).round_().clamp_(low[at], high[at]).mul_(scales[at])

    return round_column
