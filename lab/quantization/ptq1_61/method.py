"""PTQ1.61 on a model: score the channels, mask, binarize, then fit the scales block by block."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lab.experiment import Progress, no_progress
from lab.quantization.pipeline import BlockInputs, Method, Stream
from lab.quantization.ptq1_61.linear import factored
from lab.quantization.ptq1_61.loss import block_loss
from lab.quantization.ptq1_61.salience import Score, channel_mask, channel_scores, check_score
from lab.quantization.ptq1_61.storage import check_ratio, paper_bits
from lab.quantization.ptq1_61.weight import HighRange, PTQ161Weight, check_high_range
from lab.quantization.reconstruction import Fit, LearnedWeight, reconstruct
from lab.quantization.weights import QuantizedWeight


@dataclass(frozen=True)
class PTQ161(Method):
    r"""1.61 bits per weight: the share ``ratio`` of input channels at ``high_bits``, the others one bit, scales learned.

    .. math:: \min_{\alpha, r_1, r_2} \sum_{X_q} L\big(b_{\hat W}(X_q),\; b(X_f),\; b(X_q)\big)

    for all linear layers of a block at once, see `PTQ161Weight` for :math:`\hat W` and `block_loss` for L. AdamW without
    decay, its rates constant.

    Parameters
    ----------
    ratio, exact_count
        Share of salient channels, and whether it is met exactly; see `channel_mask`.
    high_bits, high_range
        Of the salient channels; see `PTQ161Weight`.
    score, stream
        How channels are scored, "absmax", "absmean" or another of `channel_scores`, and on which inputs: the
        "full"-precision model's (official) or the "quantized" stream's.
    epochs, steps
        Passes over the calibration, or optimizer steps of one calibration batch each where ``steps`` is given; 0 leaves
        the analytic scales. Official: 20 epochs over 128 batches of one segment, so 2,560 steps for each block.
    lr_scale, lr_rot
        Rates of alpha, and of r1 and r2. Official for LLaMA; the paper searched 1e-4 to 1e-2.
    nlc, mean
        With the angular loss; with the mean mu.
    seed
        Of the order of the batches.

    Raises
    ------
    ValueError
        Naming a setting out of range; in `fit`, when the loss of a block becomes NaN or inf.

    References
    ----------
    J. Zhao et al., "PTQ1.61", ACL 2025, arXiv 2502.13179.

    Examples
    --------
    >>> PTQ161(steps=60).ratio
    0.2
    """

    key: ClassVar[str] = "ptq1-61"
    title: ClassVar[str] = "PTQ1.61"
    ratio: float = 0.2
    high_bits: int = 4
    score: Score = "absmax"
    stream: Stream = "full"
    high_range: HighRange = "row"
    exact_count: bool = False
    epochs: int = 20
    steps: int | None = None
    lr_scale: float = 5e-4
    lr_rot: float = 1e-3
    nlc: bool = True
    mean: bool = True
    seed: int = 2

    @property
    def label(self) -> str:
        return f"{self.title}, {100 * self.ratio:.3g} %"

    @property
    def paper_bits(self) -> float:
        return paper_bits(ratio=self.ratio, high_bits=self.high_bits)

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        check_score(self.score)
        check_high_range(self.high_range)
        if not 1 <= self.high_bits <= 8:
            raise ValueError(f"high_bits must lie in 1..8, got {self.high_bits}")
        if self.stream not in get_args(Stream):
            raise ValueError(f"stream must be one of {', '.join(get_args(Stream))}, got {self.stream!r}")
        for name, value in (("epochs", self.epochs), ("steps", self.steps)):
            if value is not None and value < 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
        for name, rate in (("lr_scale", self.lr_scale), ("lr_rot", self.lr_rot)):
            if not 0 < rate < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {rate}")

    def quantize(self, work: BlockInputs, progress: Progress = no_progress) -> dict[str, QuantizedWeight]:
        learned = self.learned(work)
        self.fit(work, learned, progress)
        return {name: weight.finish() for name, weight in learned.items()}

    def learned(self, work: BlockInputs) -> dict[str, PTQ161Weight]:
        """The weights of a block at their start: masked and binarized, nothing fitted."""
        weights = {name: work.weight(name) for name in work.layers}
        statistics = work.statistics(self.stream)
        learned = {}
        for name, weight in weights.items():
            scores = channel_scores(weight, statistics[name], self.score, seed=self.seed)
            learned[name] = self.start(weight, channel_mask(scores, self.ratio, exact_count=self.exact_count))
        return learned

    def start(self, weight: Float[Tensor, "n m"], mask: Bool[Tensor, " m"]) -> PTQ161Weight:
        """One weight at its start, for a mask of its salient channels."""
        return PTQ161Weight(weight, mask, high_bits=self.high_bits, high_range=self.high_range, mean=self.mean)

    def fit(
        self, work: BlockInputs, learned: Mapping[str, PTQ161Weight], progress: Progress = no_progress
    ) -> list[float]:
        """Fit the scales of a block in place; the loss of every step. ValueError when it becomes NaN or inf."""
        ours = replace(work, block=factored(work.block, learned))
        ours.targets = work.targets
        return self.run(ours, {}, self.optimizer(learned), progress)

    def optimizer(self, learned: Mapping[str, PTQ161Weight]) -> torch.optim.Optimizer:
        """AdamW over the scales, the two kinds at their rates."""
        scales = [weight.alpha for weight in learned.values()]
        rotations = [vector for weight in learned.values() for vector in (weight.r1, weight.r2)]
        groups = [{"params": scales, "lr": self.lr_scale}, {"params": rotations, "lr": self.lr_rot}]
        return torch.optim.AdamW(groups, weight_decay=0.0)

    def run(
        self,
        work: BlockInputs,
        learned: Mapping[str, LearnedWeight],
        optimizer: torch.optim.Optimizer,
        progress: Progress = no_progress,
    ) -> list[float]:
        """All steps on a block; weights that the block does not hold itself are in ``learned``."""
        steps = self.epochs * len(work.calls) if self.steps is None else self.steps
        if not steps:
            return []
        fit = Fit(steps, partial(block_loss, nlc=self.nlc), three_streams=True, seed=self.seed)
        losses = reconstruct(work, learned, optimizer, fit, progress)
        broken = next((step for step, loss in enumerate(losses) if not math.isfinite(loss)), None)
        if broken is not None:
            raise ValueError(
                f"{work.name}: the loss became {losses[broken]} at step {broken + 1}; lower lr_scale {self.lr_scale} and "
                f"lr_rot {self.lr_rot}"
            )
        return losses
