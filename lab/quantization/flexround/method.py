"""FlexRound on the bench: block by block, each block's output fitted to full precision (arXiv 2306.00317, Section 3.1)."""

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
    """`FlexRoundQuantizer` for every linear layer of a block, by Adam with one rate for all factors that falls as a cosine.

    ``steps`` of one calibration batch each: the paper's code takes 5,000 for LLMs. ``keep_best`` ends in the iterate of the
    least calibration loss, the start included.

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
