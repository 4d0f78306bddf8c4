"""The simplest methods: rounding to nearest, GPTQ, and one bit per weight with a scale for each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lab.quantization.gptq import gptq
from lab.quantization.grid import Init, Per, check_weight, fit_grid
from lab.quantization.pipeline import LayerMethod
from lab.quantization.statistics import DAMPING, Statistics
from lab.quantization.weights import Affine, Binary, QuantizedWeight


@dataclass(frozen=True)
class RTN(LayerMethod):
    """Every weight goes to the nearest point of its grid; the calibration is not looked at."""

    key: ClassVar[str] = "rtn"
    title: ClassVar[str] = "round to nearest"
    bits: int = 4
    per: Per = "row"
    init: Init = "minmax"

    def layer(self, weight: Float[Tensor, "o i"], statistics: Statistics) -> QuantizedWeight:
        return Affine.of(weight, fit_grid(weight, self.bits, per=self.per, init=self.init))


@dataclass(frozen=True)
class GPTQ(LayerMethod):
    """Rounding with compensation, see `lab.quantization.gptq`."""

    key: ClassVar[str] = "gptq"
    title: ClassVar[str] = "GPTQ"
    bits: int = 4
    per: Per = "row"
    damping: float = DAMPING

    def layer(self, weight: Float[Tensor, "o i"], statistics: Statistics) -> QuantizedWeight:
        return gptq(weight, statistics, bits=self.bits, per=self.per, damping=self.damping)


@dataclass(frozen=True)
class XNOR(LayerMethod):
    r"""One bit per weight: :math:`\hat w = \mu + \alpha\,\mathrm{sign}(w - \mu)` for each row.

    mu is the row's mean (0 without ``mean``), alpha the mean of \|w - mu\|: the least squared error for these signs
    (M. Rastegari et al., "XNOR-Net", ECCV 2016, Section 3.1).
    """

    key: ClassVar[str] = "xnor"
    title: ClassVar[str] = "one bit, scale a row"
    mean: bool = True

    def layer(self, weight: Float[Tensor, "o i"], statistics: Statistics) -> QuantizedWeight:
        check_weight(weight)
        mean = weight.mean(1, keepdim=True).half().to(weight.dtype) if self.mean else torch.zeros_like(weight[:, :1])
        # alpha: the least squared error for these signs, (o, 1)
        alpha = (weight - mean).abs().mean(1, keepdim=True).half()
        return Binary(weight >= mean, alpha, mean.half() if self.mean else None)
