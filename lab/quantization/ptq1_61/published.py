"""The published step, plainly: every iteration rounds the salient channels and takes the signs anew, and forms the weight.

The measure of the faster one in `linear`, and the oracle of its tests: the results are the same.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lab.experiment import Progress, no_progress
from lab.quantization.pipeline import BlockInputs
from lab.quantization.ptq1_61.method import PTQ161
from lab.quantization.ptq1_61.weight import PTQ161Weight


class PublishedWeight(PTQ161Weight):
    """A `PTQ161Weight` that keeps the weight itself and computes everything from it at every call.

    >>> weight, mask = torch.randn(3, 4), torch.tensor([True, False, False, False])
    >>> torch.allclose(PublishedWeight(weight, mask)(), PTQ161Weight(weight, mask)())
    True
    """

    weight: Float[Tensor, "n m"]

    def __init__(self, weight: Tensor, mask: Tensor, **settings: Any) -> None:
        super().__init__(weight, mask, **settings)
        self.register_buffer("weight", weight.detach().clone())

    def forward(self) -> Float[Tensor, "n m"]:
        salient = self.grid.round(self.weight) * (1 - self.low)
        signs = torch.sign(self.weight - self.mean)
        binary = (self.r1 * self.r2) * (self.alpha * signs + self.mean) * self.low
        return salient + binary


class PublishedPTQ161(PTQ161):
    """PTQ1.61 with the published step; settings as in `PTQ161`.

    >>> PublishedPTQ161(steps=60).ratio
    0.2
    """

    def start(self, weight: Float[Tensor, "n m"], mask: Bool[Tensor, " m"]) -> PTQ161Weight:
        return PublishedWeight(weight, mask, high_bits=self.high_bits, high_range=self.high_range, mean=self.mean)

    def fit(
        self, work: BlockInputs, learned: Mapping[str, PTQ161Weight], progress: Progress = no_progress
    ) -> list[float]:
        ours = replace(work, block=copy.deepcopy(work.block).requires_grad_(False))
        ours.targets = work.targets
        return self.run(ours, learned, self.optimizer(learned), progress)
