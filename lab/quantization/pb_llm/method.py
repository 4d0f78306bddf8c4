"""PB-LLM after training: some weights at 8 bits, the others at one, and later columns make up for the error of earlier ones.

::

    (1)  w_hat_jk = mu_j + alpha_j sign(w_jk - mu_j)       where M_jk = 1
    (2)  w_hat_jk = s_j (q_jk - z_j)                       where M_jk = 0

M, alpha, mu, s and z come from the weight as it was, before any compensation (arXiv 2310.00034, Section 3.3: PB-GPTQ).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lab.quantization.gptq import RoundColumn, column_rounder, compensate
from lab.quantization.grid import Grid, check_weight, grid_of
from lab.quantization.pb_llm.binarization import Stats, check_choice, partly_binary, two_values
from lab.quantization.pb_llm.salience import Metric, check_share, factor, lowest, scored
from lab.quantization.pipeline import LayerMethod
from lab.quantization.statistics import DAMPING, Statistics
from lab.quantization.storage import paper_bits_pb_llm
from lab.quantization.weights import QuantizedWeight


@dataclass(frozen=True)
class PBLLM(LayerMethod):
    r"""PB-GPTQ: most weights binary, the salient ones at more bits, later columns making up for the error of earlier ones.

    .. math:: \hat w_{jk} = \begin{cases} \mu_j + \alpha_j\,\mathrm{sign}(w_{jk} - \mu_j) & M_{jk} = 1\\
              s_j\,(q_{jk} - z_j) & M_{jk} = 0 \end{cases}

    Scales and means are rounded to float16 first, so what is computed is what is stored. Channels that the calibration never
    used become 0 where the Hessian is looked at.

    Parameters
    ----------
    low_frac : float
        Share of the weights that get one bit, those of least ``metric``.
    high_bits : int
        Of the salient weights, on a min-max grid over the whole row, weights to be binarized included.
    metric : "magnitude", "hessian" or "hessian_exact"
        What makes a weight salient; see `salience`.
    stats : "masked" or "official"
        Over what mu and alpha are averaged; see `binarize`.
    gptq : bool
        Without it PB-RTN: the same mask and grids, no compensation.
    groupsize : int, optional
        Mask, mu and alpha for each group of so many inputs instead of the whole row.
    damping : float
        Share of its mean diagonal that is added to the Hessian's diagonal.

    Raises
    ------
    ValueError
        For ``low_frac`` outside [0, 1], ``high_bits`` outside 1..8, a negative ``damping``, an unknown ``metric`` or
        ``stats``; in `layer` for a ``groupsize`` that does not divide the inputs, NaN or inf, and statistics that saw no
        token.

    References
    ----------
    Y. Shang et al., "PB-LLM", ICLR 2024, arXiv 2310.00034, Section 3; official code hahnyuan/PB-LLM, gptq_pb/gptq.py.

    Examples
    --------
    >>> seen = Statistics(4)
    >>> seen.add(torch.randn(50, 4))
    >>> PBLLM(low_frac=0.5).layer(torch.randn(6, 4), seen).mask.sum()  # 24 / 2 + 1 are binarized
    tensor(11)
    """

    key: ClassVar[str] = "pb-llm"
    title: ClassVar[str] = "PB-LLM"
    low_frac: float = 0.9
    high_bits: int = 8
    metric: Metric = "hessian"
    stats: Stats = "masked"
    gptq: bool = True
    groupsize: int | None = None
    damping: float = DAMPING

    @property
    def label(self) -> str:
        name = self.title if self.gptq else f"{self.title} without compensation"
        return f"{name}, {100 * (1 - self.low_frac):.3g} %"

    @property
    def paper_bits(self) -> float:
        return paper_bits_pb_llm(self.low_frac, self.high_bits)

    def __post_init__(self) -> None:
        check_share("low_frac", self.low_frac)
        check_choice("metric", self.metric, Metric)
        check_choice("stats", self.stats, Stats)
        if not 1 <= self.high_bits <= 8:
            raise ValueError(f"high_bits must lie in 1..8, got {self.high_bits}")
        if not self.damping >= 0:
            raise ValueError(f"damping must be at least 0, got {self.damping}")
        if self.groupsize is not None and self.groupsize < 1:
            raise ValueError(f"groupsize must be at least 1, got {self.groupsize}")

    def layer(self, weight: Float[Tensor, "o i"], statistics: Statistics) -> QuantizedWeight:
        """A `Mixed` weight: salient entries `Affine`, all others `Binary`; one of the two alone where no entry is the other's.

        The mask that is stored marks the salient entries, the few.
        """
        check_weight(weight)
        weight = weight if weight.dtype == torch.float64 else weight.float()
        grid = grid_of(weight, self.high_bits)  # s, z of (2), before dead channels are emptied, as published
        upper = None
        if self.gptq or self.metric != "magnitude":
            upper, dead = factor(weight, statistics, self.damping, "PB-GPTQ")
            weight = weight.masked_fill(dead, 0.0)
        scores = scored(weight, self.metric, statistics, self.damping)
        # M, and alpha and mu of (1)
        low = lowest(scores, self.low_frac, self.groupsize)
        alpha, mu = two_values(weight, low, stats=self.stats, groupsize=self.groupsize)
        alpha, mu = (each.half().to(weight.dtype) for each in (alpha, mu))
        if self.gptq and upper is not None:
            weight = compensate(weight, upper, pb_rounder(low, alpha, mu, grid))
        return partly_binary(weight, low, alpha, mu, grid)


def pb_rounder(
    low: Bool[Tensor, "o i"], alpha: Float[Tensor, "o g"], mu: Float[Tensor, "o g"], grid: Grid
) -> RoundColumn:
    """Columns are rounded to mu ± alpha where ``low`` is set, and to ``grid`` elsewhere."""
    columns = low.shape[1]
    size = columns // alpha.shape[1]
    masks, middle = low.T.contiguous(), mu.T.contiguous()
    above, below = (mu + alpha).T.contiguous(), (mu - alpha).T.contiguous()
    high = column_rounder(grid, columns)

    def round_column(column: Tensor, k: int) -> Tensor:
        group = k // size
        ones = torch.where(column >= middle[group], above[group], below[group])  # (1): (o,)
        return torch.where(masks[k], ones, high(column, k))  # (2) elsewhere

    return round_column
