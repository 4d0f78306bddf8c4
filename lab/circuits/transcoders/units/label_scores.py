r"""Can a unit be named? A proxy for human raters, where the truth behind every token is known (Section 4's comparison).

The paper had people rate features blindly. Here each token of the corpus carries its latent variables as columns of yes
and no, and a unit that is active exactly where one of them says yes can be named after it:

$$ F_1(u, c) = \frac{2\,|u \wedge c|}{|u| + |c|},\qquad \text{score}(u) = \max_c F_1(u, c) . $$

The label is chosen on one half of the texts and scored on the other, so that trying many labels earns nothing. A unit
whose meaning is none of the labels scores low however clear it is to a person: this is a proxy, not the paper's claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.circuits.transcoders.coders.evaluation import LIVE
from lab.circuits.transcoders.errors import CircuitError

QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.98)  # thresholds that dense units may choose from, beside zero


@dataclass(frozen=True, eq=False)
class LabelScores:
    """Of each live unit: its F1, its label and threshold (chosen on the other half), its number; how many units there are.

    f1, label, threshold, unit   all [live]
    """

    f1: Float[Tensor, " live"]
    label: Int[Tensor, " live"]
    threshold: Float[Tensor, " live"]
    unit: Int[Tensor, " live"]
    units: int

    @property
    def mean(self) -> float:
        """Over the live units; not a number when all are dead."""
        return float(self.f1.mean())


def f1_scores(active: Bool[Tensor, "n u"], labels: Bool[Tensor, "n c"]) -> Float[Tensor, "u c"]:
    """F1 of every unit for every label; 0 where neither ever says yes.

    >>> f1_scores(torch.tensor([[True], [True], [False]]), torch.tensor([[True], [False], [False]]))
    tensor([[0.6667]])
    """
    if len(active) != len(labels):
        raise CircuitError(f"labels must have a row for each of the {len(active)} rows of `active`, got {len(labels)}")
    both = active.T.float() @ labels.float()
    sizes = active.sum(0)[:, None] + labels.sum(0)[None]
    return 2 * both / sizes.clamp_min(1)


def label_scores(
    activations: Float[Tensor, "n u"], labels: Bool[Tensor, "n c"], quantiles: Sequence[float] = ()
) -> LabelScores:
    """How well each live unit can be named, over tokens in the order of their texts; see the module.

    activations  of the units; active is above zero, and live is active on more than one token in ten thousand
    quantiles    further thresholds to try, as quantiles of a unit's own activations; the best is chosen on the first half
                 too. Dense units need them, for they are hardly ever at zero; sparse ones gain nothing by most of them

    Raises CircuitError for fewer than two tokens, quantiles outside 0 ... 1, and labels of another length.

    >>> label = torch.tensor([True, False, True, False])
    >>> label_scores(label[:, None].float(), label[:, None]).mean
    1.0
    """
    if len(activations) < 2:
        raise CircuitError(
            f"activations must be of at least two tokens, one to choose on and one to score, got {len(activations)}"
        )
    if outside := [each for each in quantiles if not 0 < each < 1]:
        raise CircuitError(f"quantiles must lie between 0 and 1, got {outside[0]}")
    if len(labels) != len(activations):
        raise CircuitError(f"labels must have a row for each of the {len(activations)} tokens, got {len(labels)}")
    live = ((activations > 0).float().mean(0) > LIVE).nonzero().flatten()
    z = activations[:, live]
    half = len(z) // 2
    thresholds = torch.zeros(1 + len(quantiles), len(live), dtype=z.dtype)
    for place, share in enumerate(quantiles, 1):
        rank = min(int(share * half), half - 1)
        thresholds[place] = z[:half].kthvalue(rank + 1, dim=0).values
    best = torch.full((len(live),), -1.0)
    label, chosen = torch.zeros(len(live), dtype=torch.int64), torch.zeros(len(live), dtype=z.dtype)
    for threshold in thresholds:
        found, which = f1_scores(z[:half] > threshold, labels[:half]).max(dim=1)
        better = found > best
        best, label = torch.where(better, found, best), torch.where(better, which, label)
        chosen = torch.where(better, threshold, chosen)
    active, mine = z[half:] > chosen, labels[half:][:, label]
    f1 = 2 * (active & mine).sum(0) / (active.sum(0) + mine.sum(0)).clamp_min(1)
    return LabelScores(f1, label, chosen, live, activations.shape[1])
