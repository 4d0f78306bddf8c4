"""BiLLM: salient columns get two bits, a sign and the sign of what is left; the others one, near or far from zero.

For each block of 128 columns and U the upper Cholesky factor of H^-1::

    (1)  S_jk = W_jk^2 / U_kk^2                                         salience
    (2)  W_hat = mu_1 + alpha_1 b_1 + mu_2 + alpha_2 b_2                where column k is salient
    (3)  W_hat = mu_n + alpha_n b where |.| < p,   mu_f + alpha_f b where |.| >= p                elsewhere
    (4)  W_l <- W_l - ((W - W_hat) / diag(U)) U_l,   l behind the block

with every scale and mean its own for each row and block. The number of salient columns (1 to 49, in the order of their
summed salience) and then p (81 quantiles, .10 to .90) are searched, each for the least squared error of binarization. The
error of a block is made up for by the blocks that follow, not within it.

W. Huang et al., "BiLLM", ICML 2024, arXiv 2402.04291, Section 3 and Algorithm 1; official code Aaronhuang-778/BiLLM (MIT).
There, both searches minimise the error of binarizing *S*, and p is a value of S (utils/structure.py hands S to
utils/autosearch.py); the paper speaks of W. ``search`` chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from lab.quantization.grid import check_weight
from lab.quantization.pipeline import LayerMethod
from lab.quantization.statistics import DAMPING, Statistics
from lab.quantization.weights import Binary, Mixed, QuantizedWeight, Split, Sum

BLOCK, MOST_SALIENT = 128, 50
QUANTILES = torch.linspace(0.1, 0.9, 81, dtype=torch.float64)
Search = Literal["official", "weight"]


@dataclass(frozen=True)
class BiLLM(LayerMethod):
    r"""BiLLM, with the official code's search, or with one on the weight itself (``search="weight"``).

    Returns a `Mixed` weight: salient columns a `Sum` of two `Binary`, all others `Split`. Its true cost is far above the 1.1
    bits that the paper counts: the second bit of `Split` is one for each weight, and eight float16 per row and block are one
    more. Raises ValueError for an unknown ``search``, a negative ``damping``, NaN or inf, statistics of another width or
    that saw no token, and for more than 128 inputs that 128 does not divide (there the official code ends in a short block).

    >>> seen = Statistics(8)
    >>> seen.add(torch.randn(50, 8))
    >>> BiLLM().layer(torch.randn(6, 8), seen).shape
    (6, 8)
    """

    key: ClassVar[str] = "billm"
    title: ClassVar[str] = "BiLLM"
    search: Search = "official"
    damping: float = DAMPING

    def __post_init__(self) -> None:
        if self.search not in get_args(Search):
            raise ValueError(f"search must be 'official' or 'weight', got {self.search!r}")
        if not self.damping >= 0:
            raise ValueError(f"damping must be at least 0, got {self.damping}")

    @property
    def paper_bits(self) -> float:
        return 1.1

    def layer(self, weight: Float[Tensor, "o i"], statistics: Statistics) -> QuantizedWeight:
        """The stored form of one weight."""
        check_weight(weight)
        columns = weight.shape[1]
        size = min(BLOCK, columns)
        if columns % size:
            raise ValueError(f"a block of {BLOCK} inputs does not divide the weight's {columns}")
        if statistics.channels != columns:
            raise ValueError(f"statistics are of {statistics.channels} channels, and the weight has {columns} inputs")
        upper, dead = statistics.factor(self.damping)
        pivots = upper.diagonal()
        left = weight.float().masked_fill(dead, 0.0)
        blocks: list[BlockColumns] = []
        for start in range(0, columns, size):
            stop = start + size
            blocks.append(binarize_block(left[:, start:stop], pivots[start:stop], self.search))
            # (4)
            errors = (left[:, start:stop] - joined(blocks[-1:]).dequantize()) / pivots[start:stop]
            left[:, stop:] -= errors @ upper[start:stop, stop:]
        return joined(blocks)


@dataclass(frozen=True, eq=False)
class BlockColumns:
    """A block of columns: which are salient, two binarizations for those, and one for all others."""

    salient: Bool[Tensor, " c"]
    first: Binary
    second: Binary
    split: Split


def binarize_block(
    block: Float[Tensor, "o c"], pivots: Float[Tensor, " c"], search: Search = "official"
) -> BlockColumns:
    """One block of columns (o, c), with the diagonal of U there; ``search`` as in `BiLLM`.

    >>> binarize_block(torch.tensor([[9.0, 1.0, -1.0]]), torch.ones(3)).salient.tolist()
    [True, False, False]
    """
    score = (block / pivots).square()  # (1): (o, c)
    judged = score if search == "official" else block
    order = score.sum(0).sort(descending=True, stable=True).indices
    salient = torch.zeros(block.shape[1], dtype=torch.bool, device=block.device)
    salient[order[: salient_count(judged[:, order])]] = True
    far = judged.abs() >= split_point(judged, salient)
    twice, once = salient.expand_as(block), (~salient).expand_as(block)
    near, beyond = _binarized(block, once & ~far), _binarized(block, once & far)
    signs = torch.where(far, beyond[0], near[0])
    split = Split(signs, far, *(torch.stack(pair) for pair in zip(near[1:], beyond[1:], strict=True)))
    first = Binary(*_binarized(block, twice))  # (2), mu_1 and alpha_1
    return BlockColumns(salient, first, Binary(*_binarized(block - first.dequantize(), twice)), split)


def joined(blocks: Sequence[BlockColumns]) -> Mixed:
    """Blocks of columns side by side as one weight, with a group of scales for each block."""
    first, second = (_beside([getattr(block, name) for block in blocks]) for name in ("first", "second"))
    splits = [block.split for block in blocks]
    names = ("signs", "far", "alpha", "mean")
    split = Split(*(torch.cat([getattr(each, name) for each in splits], dim=-1) for name in names))
    return Mixed(torch.cat([block.salient for block in blocks])[None], Sum((first, second)), split)


def _beside(blocks: Sequence[Binary]) -> Binary:
    return Binary(
        *(torch.cat([getattr(block, name) for block in blocks], dim=1) for name in ("signs", "alpha", "mean"))
    )


def _binarized(block: Float[Tensor, "o c"], chosen: Bool[Tensor, "o c"]) -> tuple[Tensor, Tensor, Tensor]:
    """Signs (o, c), and alpha and mean (o, 1) of the chosen entries of each row, as float16."""
    count = chosen.sum(1, keepdim=True).clamp(min=1)
    mean = ((block * chosen).sum(1, keepdim=True) / count).half()
    distance = block - mean.float()
    return distance >= 0, ((distance.abs() * chosen).sum(1, keepdim=True) / count).half(), mean


def salient_count(ranked: Float[Tensor, "o c"]) -> int:
    r"""How many of the ranked columns should be salient: 1 to 49, but not all.

    Judged as in the official code, by binarizing twice the columns before *and* those behind: for each row and part, with
    :math:`d = x - \bar x`, :math:`r = d - \alpha\,\mathrm{sign}\,d`, :math:`e = |r - \bar r|`, the squared error left is
    :math:`\sum (e - \bar e)^2`.
    """
    turned = ranked.T.contiguous()
    candidates = range(1, max(2, min(MOST_SALIENT, len(turned))))
    return min(candidates, key=lambda count: _error_of_two(turned[:count]) + _error_of_two(turned[count:]))


def _error_of_two(columns: Float[Tensor, "c o"]) -> float:
    """Squared error of binarizing twice, a column's rows each for themselves; the columns lie as rows."""
    if not len(columns):
        return 0.0
    residual = columns - columns.mean(0)
    residual -= torch.copysign(residual.abs().mean(0).expand_as(residual), residual)
    residual -= residual.mean(0)
    size = residual.abs_()
    return float((size - size.mean(0)).square_().sum())


def split_point(judged: Float[Tensor, "o c"], salient: Bool[Tensor, " c"]) -> float:
    r"""The size p at which the columns that are not salient are best split in two: :math:`|x| < p` and :math:`|x| \ge p`.

    81 quantiles of \|x\| are tried, the zeros in place of the salient columns among them, as in the official code. The squared
    error of binarizing n entries once is :math:`\sum x^2 - n\mu^2 - n\alpha^2`; with each row sorted, sums over the near and
    the far entries are differences of running sums, so no candidate needs another pass over the weight.
    """
    zeroed = judged.double().masked_fill(salient, 0.0)
    points = torch.quantile(zeroed.abs(), QUANTILES.to(zeroed.device))
    ordered = zeroed[:, ~salient].sort(dim=1).values
    rows, columns = ordered.shape
    running = functional.pad(ordered.cumsum(1), (1, 0))
    ends = points.expand(rows, -1).contiguous()
    start = torch.searchsorted(ordered, -ends, right=True)  # entries [start, stop) of a sorted row are near
    stop = torch.maximum(start, torch.searchsorted(ordered, ends))
    zero = torch.zeros_like(start)
    near = running.gather(1, stop) - running.gather(1, start)
    gain = torch.zeros_like(points)
    for total, count, is_near in ((near, stop - start, True), (running[:, -1:] - near, columns - stop + start, False)):
        mu = total / count.clamp(min=1)
        rank = torch.searchsorted(ordered, mu)
        distance = _distance(running, mu, rank, start, stop)
        if not is_near:
            distance = _distance(running, mu, rank, zero, zero + columns) - distance
        gain += (count * mu.square() + distance.square() / count.clamp(min=1)).sum(0)
    return float(points[gain.argmax()])


def _distance(running: Tensor, mu: Tensor, rank: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """Sum of |x - mu| over the sorted entries [start, stop) of each row; ``rank`` is where mu would stand."""
    middle = torch.minimum(torch.maximum(rank, start), stop)
    below, inside, above = (running.gather(1, end) for end in (start, middle, stop))
    return mu * (2 * middle - start - stop) + below + above - 2 * inside
