r"""PB-LLM while training: salient weights are frozen, all others train as signs with a scale (Section 3.5 of the paper).

.. math:: W_{\mathrm{sim}} = \begin{cases} \alpha\,\mathrm{sign}(W) & M = 1\\ W_{\mathrm{salient}} & M = 0\end{cases},
          \qquad \alpha = \mathrm{mean}\,|W|_{M=1}, \qquad
          \frac{\partial L}{\partial W} = \alpha\,\frac{\partial L}{\partial W_{\mathrm{sim}}} \text{ where } M = 1.

alpha follows W at every step and passes no gradient; through the sign it goes straight (STE). A layer keeps its class: the
weight is computed by a torch parametrization, so an optimizer, a trainer and `state_dict` work as they do.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lab.quantization.blocks import is_linear, weight_of
from lab.quantization.grid import Grid, check_weight, fit_grid
from lab.quantization.pb_llm.binarization import check_choice, check_mask
from lab.quantization.pb_llm.salience import check_share, pb_mask
from lab.quantization.weights import Affine, Binary, Mixed, QuantizedWeight

Straight = Literal["identity", "clipped"]
Scale = Literal["row", "layer"]


class PBWeight(nn.Module):
    r"""A weight with frozen salient entries and trainable signs; the parametrization that `partially_binarize` puts on.

    ``low`` (o, i) marks the entries that are binarized. Salient ones are rounded once to ``high_bits``, on a min-max grid
    over the whole row, and are a buffer, which no optimizer can reach, weight decay neither; without ``freeze`` they train
    in full precision. ``scale="layer"`` is the official code's one alpha for the whole layer; ``straight="clipped"`` stops
    the gradient where \|W\| > 1, as the paper says, ``"identity"`` nowhere, as the code does. ``turned`` is for GPT-2's
    Conv1D, whose weight lies as (i, o). The official code keeps the alpha of the last training step when it is not training,
    one update old; here alpha always belongs to the weight.

    Called with the latent weight, gives W_sim of the same shape. Raises ValueError for a mask of another shape, an unknown
    ``scale`` or ``straight``, ``high_bits`` outside 1..8, NaN or inf.

    >>> weight = torch.tensor([[1.0, -3.0, 8.0]])
    >>> PBWeight(weight, torch.tensor([[True, True, False]]))(weight).round(decimals=1).tolist()
    [[2.0, -2.0, 8.0]]
    """

    low: Bool[Tensor, "o i"]
    salient: Float[Tensor, "o i"]
    step: Float[Tensor, "o 1"]
    zero: Float[Tensor, "o 1"]

    def __init__(
        self,
        weight: Float[Tensor, "o i"],
        low: Bool[Tensor, "o i"],
        *,
        high_bits: int = 8,
        freeze: bool = True,
        scale: Scale = "row",
        straight: Straight = "identity",
        turned: bool = False,
    ) -> None:
        super().__init__()
        check_weight(weight)
        check_mask(low, weight, "low")
        check_choice("scale", scale, Scale)
        check_choice("straight", straight, Straight)
        self.high_bits, self.freeze, self.scale, self.straight, self.turned = high_bits, freeze, scale, straight, turned
        weight = weight.detach()
        grid = fit_grid(weight, high_bits)
        self.register_buffer("low", low.clone(memory_format=torch.contiguous_format))
        self.register_buffer("salient", grid.round(weight).masked_fill(low, 0.0).contiguous())
        self.register_buffer("step", grid.scale)
        self.register_buffer("zero", grid.zero)

    @torch.no_grad()
    def alpha(self, latent: Float[Tensor, "o i"]) -> Float[Tensor, "r 1"]:
        """Mean size of the binarized entries, of each row (o, 1) or of the layer (1, 1)."""
        size = latent.abs().mul_(self.low)
        if self.scale == "layer":
            return (size.sum() / self.low.sum().clamp(min=1)).reshape(1, 1)
        return size.sum(1, keepdim=True) / self.low.sum(1, keepdim=True).clamp(min=1)

    def forward(self, latent: Float[Tensor, "a b"]) -> Float[Tensor, "a b"]:
        weight = latent.T if self.turned else latent
        signs = torch.where(weight >= 0, 1.0, -1.0).to(weight.dtype)
        through = weight.clamp(-1, 1) if self.straight == "clipped" else weight
        signs = signs + (through - through.detach())  # the value of the sign, the gradient of what goes through
        salient = self.salient if self.freeze else weight
        mixed = torch.where(self.low, self.alpha(weight) * signs, salient)
        return mixed.T if self.turned else mixed

    @torch.no_grad()
    def stored(self, latent: Float[Tensor, "a b"]) -> QuantizedWeight:
        """What a latent weight comes to in a file: a `Mixed` one; salient entries that trained are rounded here."""
        weight = latent.T if self.turned else latent
        alpha = self.alpha(weight).expand(len(weight), 1)
        grid = Grid(self.step, self.zero, self.high_bits) if self.freeze else fit_grid(weight, self.high_bits)
        high = Affine.of(self.salient if self.freeze else weight, grid)
        return Mixed(~self.low, high, Binary(weight >= 0, alpha.half()))


def partially_binarize(
    layer: nn.Module,
    low_frac: float = 0.9,
    *,
    mask: Bool[Tensor, "o i"] | None = None,
    two_sided: bool = False,
    **settings: Any,
) -> PBWeight:
    """Make a linear layer's weight partly binary, in place; its latent weight and bias train from now on.

    ``layer`` is an nn.Linear or GPT-2's Conv1D. ``mask`` (outputs, inputs) is True where a weight is binarized, from `pb_mask`
    or `load_mask`; without it the ``low_frac`` of least magnitude are, or with ``two_sided`` all between the official code's
    two quantiles, see `two_sided_mask`. ``settings`` are those of `PBWeight`. Undone by `to_linear`.

    Raises TypeError for another layer, ValueError for one that is partly binary already, and as `pb_mask` and `PBWeight` do.
    arXiv 2310.00034, Section 3.5; official code quant/outlier_quantizer.py.

    >>> layer = nn.Linear(8, 4)
    >>> _ = partially_binarize(layer, low_frac=0.5)
    >>> [name for name, _ in layer.named_parameters()]
    ['bias', 'parametrizations.weight.original']
    """
    check_share("low_frac", low_frac)
    if not is_linear(layer):
        raise TypeError(f"layer must be an nn.Linear or a Conv1D, got {type(layer).__name__}")
    if parametrize.is_parametrized(layer, "weight"):
        raise ValueError("layer is partly binary already; to_linear undoes it")
    weight = weight_of(layer).detach()
    check_mask(mask, weight)
    if mask is None:
        mask = two_sided_mask(weight, 1 - low_frac) if two_sided else pb_mask(weight, low_frac)
    parametrization = PBWeight(weight, mask, turned=not isinstance(layer, nn.Linear), **settings)
    parametrize.register_parametrization(layer, "weight", parametrization)
    for parameter in layer.parameters():
        parameter.requires_grad_(True)
    return parametrization


def to_linear(layer: nn.Module) -> nn.Module:
    """The layer as an ordinary one again, its weight what it computed; the same object. ValueError when it is not partly binary.

    >>> layer = nn.Linear(8, 4)
    >>> weight = partially_binarize(layer)
    >>> bool((to_linear(layer).weight[weight.low].abs().unique().numel() <= 4))
    True
    """
    if not parametrize.is_parametrized(layer, "weight"):
        raise ValueError(f"layer is not partly binary: its weight is an ordinary one ({type(layer).__name__})")
    return parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def two_sided_mask(W: Float[Tensor, "o i"], salient_frac: float) -> Bool[Tensor, "o i"]:
    r"""The official QAT mask, True where a weight is binarized: between the quantiles at frac/2 and 1 - frac/2, signs counted.

    Where the weights are skewed, that is not the top \|W\|. A share too small for either tail leaves that tail empty. Raises
    ValueError for ``salient_frac`` outside [0, 1], NaN or inf.

    >>> two_sided_mask(torch.tensor([[-9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]]), 0.5).int().tolist()
    [[0, 1, 1, 1, 1, 1, 0, 0]]
    """
    check_weight(W, "W")
    check_share("salient_frac", salient_frac)
    flat = W.detach().flatten()
    if salient_frac == 1:
        return torch.zeros_like(W, dtype=torch.bool)
    first, last = int(len(flat) * salient_frac / 2), int(len(flat) * (1 - salient_frac / 2))
    low = torch.ones_like(W, dtype=torch.bool)
    if first:
        low &= flat.kthvalue(first).values <= W
    if last:
        low &= flat.kthvalue(last).values >= W
    return low
