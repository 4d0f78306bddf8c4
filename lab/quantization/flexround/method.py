"""FlexRound on a model: block by block, each block's output fitted to full precision (arXiv 2306.00317, Section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from lab.quantization.flexround.quantizer import FlexRoundQuantizer
from lab.quantization.reconstruction import Fit
from lab.quantization.rounding import RoundingMethod


@dataclass(frozen=True)
class FlexRound(RoundingMethod):
    r"""FlexRound, block by block: `FlexRoundQuantizer` for all linear layers of a block, fitted to the block's output.

    .. math:: \min_{d_1, d_2, d_3} \big\|\,b_{\hat W}(X_q) - b_W(X)\,\big\|^2

    By Adam, with one rate for all factors that falls as a cosine.

    Parameters
    ----------
    bits : int
        2..8.
    per : "tensor", "row" or int
        What shares a grid's step: the layer, each output, or each group of so many inputs.
    steps : int
        Of one calibration batch each, for each block; the paper's code takes 5,000 for LLMs.
    lr : float
        Adam's rate at the start.
    init : "mse" or "minmax"
        The first grid; see `fit_grid`.
    seed : int
        Of the order of the batches.
    learn_s1, use_s3 : bool
        Whether the step is learned, and whether each output has a factor.
    keep_best : bool
        End in the iterate of the least calibration loss, the start included.

    Raises
    ------
    ValueError
        For bits outside 2..8, steps below 0, a rate that is not positive, an unknown ``per`` or ``init``.

    References
    ----------
    J. H. Lee et al., "FlexRound", ICML 2023, arXiv 2306.00317, Section 3.1.

    Examples
    --------
    >>> FlexRound(bits=3, per="row")
    FlexRound(bits=3, per='row', steps=60, lr=0.003, init='mse', seed=0, learn_s1=True, use_s3=True, keep_best=False)
    """

    key: ClassVar[str] = "flexround"
    title: ClassVar[str] = "FlexRound"
    lr: float = 3e-3
    learn_s1: bool = True
    use_s3: bool = True
    keep_best: bool = False

    def learned(self, weight: Float[Tensor, "o i"]) -> FlexRoundQuantizer:
        return FlexRoundQuantizer(
            weight, self.bits, per=self.per, init=self.init, learn_s1=self.learn_s1, use_s3=self.use_s3
        )

    def fit(self) -> Fit:
        return Fit(self.steps, cosine=True, keep_best=self.keep_best, seed=self.seed)
