"""PB-LLM while training: salient weights are frozen, all others train as signs with a scale (Section 3.5 of the paper).

::

    (1)  W_sim = alpha sign(W) where M = 1, else W_salient
    (2)  alpha = mean |W| over M = 1
    (3)  dL/dW = alpha dL/dW_sim where M = 1

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

    .. math:: W_{\mathrm{sim}} = \begin{cases} \alpha\,\mathrm{sign}(W) & M = 1\\ W_{\mathrm{salient}} & M = 0\end{cases},
              \qquad \alpha = \mathrm{mean}\,|W|_{M=1}, \qquad
              \frac{\partial L}{\partial W} = \alpha\,\frac{\partial L}{\partial W_{\mathrm{sim}}} \text{ where } M = 1

    Called with the latent weight W, it gives W_sim of the same shape. The official code keeps the alpha of the last training
    step when it is not training, one update old; here alpha always belongs to the weight.

    Parameters
    ----------
    weight : (o, i)
        At the start, outputs by inputs.
    low : bool (o, i)
        M: the entries that are binarized.
    high_bits : int
        Salient entries are rounded once to so many bits, on a min-max grid over the whole row.
    freeze : bool
        Salient entries are a buffer, which no optimizer can reach, nor weight decay; without it they train in full precision.
    scale : "row" or "layer"
        One alpha for each row, or as in the official code for the whole layer.
    straight : "identity" or "clipped"
        The gradient passes everywhere, as in the code, or only where \|W\| <= 1, as the paper says.
    turned : bool
        For GPT-2's Conv1D, whose weight lies as (i, o).

    Raises
    ------
    ValueError
        For a mask of another shape, an unknown ``scale`` or ``straight``, ``high_bits`` outside 1..8, NaN or inf.

    References
    ----------
    Y. Shang et al., "PB-LLM", ICLR 2024, arXiv 2310.00034, Section 3.5.

    Examples
    --------
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
        """(2): mean size of the binarized entries, of each row (o, 1) or of the layer (1, 1)."""
        size = latent.abs().mul_(self.low)  # (o, i)
        if self.scale == "layer":
            return (size.sum() / self.low.sum().clamp(min=1)).reshape(1, 1)
        return size.sum(1, keepdim=True) / self.low.sum(1, keepdim=True).clamp(min=1)

    def forward(self, latent: Float[Tensor, "a b"]) -> Float[Tensor, "a b"]:
        weight = latent.T if self.turned else latent
        signs = torch.where(weight >= 0, 1.0, -1.0).to(weight.dtype)
        through = weight.clamp(-1, 1) if self.straight == "clipped" else weight
        signs = signs + (through - through.detach())  # (3): the value of the sign, the gradient of what goes through
        salient = self.salient if self.freeze else weight
        # (1)
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

    The weight is parametrized by a `PBWeight`; `to_linear` undoes it.

    Parameters
    ----------
    layer : nn.Linear or GPT-2's Conv1D
        Changed in place.
    low_frac : float
        Share of the weights, those of least magnitude, that is binarized where no ``mask`` is given.
    mask : bool (outputs, inputs), optional
        True where a weight is binarized, from `pb_mask` or `load_mask`.
    two_sided : bool
        Instead of the least magnitudes, all between the official code's two quantiles; see `two_sided_mask`.
    **settings
        Those of `PBWeight`.

    Returns
    -------
    PBWeight
        The parametrization.

    Raises
    ------
    TypeError
        For another kind of layer.
    ValueError
        For a layer that is partly binary already, and as `pb_mask` and `PBWeight` do.

    References
    ----------
    Y. Shang et al., "PB-LLM", ICLR 2024, arXiv 2310.00034, Section 3.5; official code quant/outlier_quantizer.py.

    Examples
    --------
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
    """The layer as an ordinary one again, its weight what it computed.

    Parameters
    ----------
    layer : nn.Linear or GPT-2's Conv1D
        What `partially_binarize` was called with; changed in place.

    Returns
    -------
    nn.Module
        The same object.

    Raises
    ------
    ValueError
        When it is not partly binary.

    Examples
    --------
    >>> layer = nn.Linear(8, 4)
    >>> weight = partially_binarize(layer)
    >>> bool((to_linear(layer).weight[weight.low].abs().unique().numel() <= 4))
    True
    """
    if not parametrize.is_parametrized(layer, "weight"):
        raise ValueError(f"layer is not partly binary: its weight is an ordinary one ({type(layer).__name__})")
    return parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def two_sided_mask(W: Float[Tensor, "o i"], salient_frac: float) -> Bool[Tensor, "o i"]:
    r"""The official code's mask for training: binarized is what lies between two quantiles of the weights, signs counted.

    Where the weights are skewed, the salient ones are not those of the largest \|W\|.

    Parameters
    ----------
    W : (o, i)
        Outputs by inputs.
    salient_frac : float
        Share of both tails together; the quantiles are at half of it and at one minus half of it. A share too small for
        either tail leaves that tail empty.

    Returns
    -------
    bool (o, i)
        True where a weight is binarized.

    Raises
    ------
    ValueError
        For ``salient_frac`` outside [0, 1], NaN or inf.

    Examples
    --------
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
