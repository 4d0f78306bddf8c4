r"""What can be read off a feature without any text: what would make it fire, and what it would do.

A unit reads $f$ of the residual stream and writes $d$ to it. The LayerNorm in front of $f$ subtracts the mean, which is
linear and is done to $f$ instead, and divides by a scale, which depends on the text and is left out: these readings rank
what leads to one unit, they do not predict its activation. With $f\leftarrow f-\bar f$ (Section 4.1, official code):

$$ \text{pullback}\quad W_{dec} f \tag{1} $$
$$ \text{de-embedding}\quad W_E f,\qquad\text{through a head}\quad W_E W_V W_O f \tag{2} $$
$$ \text{logit lens}\quad d\,W_U \tag{3} $$
$$ \text{mean strength over tokens } T\quad \frac1{|T|}\sum_{t\in T} z_i(t)\,\langle d_i,f\rangle \tag{4} $$
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lab.circuits.transcoders.coders.coder import Transcoder
from lab.circuits.transcoders.errors import CircuitError, HookedError
from lab.circuits.transcoders.hooked import HookedGPT, embedding
from lab.circuits.transcoders.units.activations import Activations, Units, check_unit

Head = tuple[int, int]  # layer and head
WEAKEST = 0.2  # the share of a unit's firings that the mean strength leaves out


def encoder_direction(units: Units, unit: int) -> Float[Tensor, " d"]:
    """``f``: the direction that a unit reads, its mean off as the LayerNorm takes it off. Raises CircuitError.

    >>> from lab.circuits.transcoders.coders.coder import CoderConfig
    >>> bool(encoder_direction(Transcoder(CoderConfig(8, 32, 8)), 3).mean().abs() < 1e-6)
    True
    """
    check_unit(units, unit)
    return _centred(units.W_enc[:, unit].detach())


def decoder_direction(units: Units, unit: int) -> Float[Tensor, " d"]:
    """``d``: the direction that a unit writes. Raises CircuitError for a unit that is not there."""
    check_unit(units, unit)
    return units.W_dec[unit].detach()


@torch.no_grad()
def pullback(target: Float[Tensor, " d"], units: Units) -> Float[Tensor, " f"]:
    """``W_dec f``: how much one unit of activation of each earlier unit adds to what ``target`` reads.

    This is one column of the matrix ``W_dec W_enc'`` that links two layers; the matrix itself is never made. For what an
    earlier layer does through an attention head, pull ``target`` back through it first: `through_head`.

    Raises CircuitError when the widths differ.

    >>> from lab.circuits.transcoders.coders.coder import CoderConfig
    >>> early, late = Transcoder(CoderConfig(8, 32, 8)), Transcoder(CoderConfig(8, 24, 8))
    >>> pullback(encoder_direction(late, 5), early).shape
    torch.Size([32])
    """
    if len(target) != units.W_dec.shape[1]:
        raise CircuitError(f"target must have width {units.W_dec.shape[1]}, as the units write; it has {len(target)}")
    return units.W_dec @ _centred(target)  # (1)


@torch.no_grad()
def through_head(model: HookedGPT, head: Head, vector: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """``W_V W_O v``: what a head would have to find in the stream where it looks, to write ``vector`` where it stands.

    Raises HookedError for a head that is not there.
    """
    layer, number = head
    cfg = model.cfg
    if not (0 <= layer < cfg.n_layers and 0 <= number < cfg.n_heads):
        raise HookedError(
            f"head {layer}.{number} does not exist; there are {cfg.n_layers} layers of {cfg.n_heads} heads"
        )
    _check_width(model, vector)
    return _centred(model.W_V[layer, number] @ (model.W_O[layer, number] @ _centred(vector)))


@torch.no_grad()
def ov_norms(model: HookedGPT, vector: Float[Tensor, " d"]) -> Float[Tensor, "l h"]:
    """``||W_V W_O v||`` for every head: which heads could bring ``vector`` from elsewhere, wherever they may look.

    Raises HookedError for another width than the model's.

    >>> ov_norms(HookedGPT.tiny(3), torch.ones(8)).shape
    torch.Size([3, 2])
    """
    _check_width(model, vector)
    at_value = torch.einsum("lhkd,d->lhk", model.W_O, _centred(vector))
    found = torch.einsum("lhdk,lhk->lhd", model.W_V, at_value)
    return (found - found.mean(-1, keepdim=True)).norm(dim=-1)


@torch.no_grad()
def deembed(
    model: HookedGPT, vector: Float[Tensor, " d"], head: Head | None = None, *, extended: bool = False
) -> Float[Tensor, " v"]:
    """Which tokens ``vector`` finds, and how much: ``W_E v``, or through a head ``W_E W_V W_O v``.

    head      (layer, head) that brings the token from where it stands
    extended  use `embedding(model, extended=True)` for ``W_E``; for vectors read behind layer 0 only

    The scale of the LayerNorm is left out, so a token with a long embedding is found by more. Raises HookedError for a
    head that is not there, and for one of layer 0 with ``extended``: it reads the plain embedding.

    >>> model = HookedGPT.tiny(2)
    >>> deembed(model, torch.ones(8)).shape, deembed(model, torch.ones(8), (1, 0), extended=True).shape
    (torch.Size([5]), torch.Size([5]))
    """
    _check_width(model, vector)
    if head is None:
        return embedding(model, extended=extended) @ _centred(vector)
    if extended and head[0] == 0:
        raise HookedError(
            f"extended: head {head[0]}.{head[1]} reads the plain embedding; heads of layer 1 on read behind it"
        )
    return embedding(model, extended=extended) @ through_head(model, head, vector)  # (2)


@torch.no_grad()
def logit_lens(model: HookedGPT, units: Units, unit: int) -> Float[Tensor, " v"]:
    """``d W_U``, the mean of d off: what a unit of activation adds to the logits directly, up to the last LayerNorm's scale.

    Raises CircuitError for a unit that is not there, or writes another width than the model's.
    """
    direction = decoder_direction(units, unit)
    if len(direction) != model.cfg.d_model:
        raise CircuitError(f"the units write width {len(direction)}, the model's stream has {model.cfg.d_model}")
    return _centred(direction) @ model.W_U  # (3)


def strong(z: Float[Tensor, "n t"], counted: Bool[Tensor, "n t"] | None = None) -> Bool[Tensor, "n t"]:
    """Where a unit fires at or above the 20th percentile of its firings: the tokens that `mean_strength` looks at."""
    fires = z > 0 if counted is None else (z > 0) & counted
    if not bool(fires.any()):
        return fires
    return fires & (z >= z[fires].quantile(WEAKEST))


@torch.no_grad()
def mean_strength(
    texts: Activations, layer: int, coder: Transcoder, target: Float[Tensor, " d"], where: Bool[Tensor, "n t"]
) -> Float[Tensor, " f"]:
    r"""$\frac1{|T|}\sum_{t\in T} z_i(t)\,\langle d_i,f\rangle$: what earlier features really add to what ``target`` reads.

    texts   has what the coder of the earlier `layer` reads
    where   T, usually where the unit that reads ``target`` is `strong`

    The pullback alone says what a feature would add if it fired; many never fire together with the unit. Raises
    CircuitError when there is no such token.
    """
    if not bool(where.any()):
        raise CircuitError("where: there is no token to average over; a unit that never fires has no strength")
    total = torch.stack([z.sum(0) for z in texts.encoded(layer, coder, where)]).sum(0)
    return total / int(where.sum()) * pullback(target, coder)  # (4)


def agreement(one: Float[Tensor, " f"], other: Float[Tensor, " f"], k: int) -> float:
    """The share of the ``k`` largest entries that two rankings have in common.

    >>> agreement(torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.tensor([9.0, 0.0, 8.0, 0.0]), 2)
    0.5
    """
    if not 1 <= k <= min(len(one), len(other)):
        raise CircuitError(f"k must lie in 1 ... {min(len(one), len(other))}, the number of features, got {k}")
    return len(set(one.topk(k).indices.tolist()) & set(other.topk(k).indices.tolist())) / k


def _centred(vector: Tensor) -> Tensor:
    return vector - vector.mean(-1, keepdim=True)


def _check_width(model: HookedGPT, vector: Tensor) -> None:
    if len(vector) != model.cfg.d_model:
        raise HookedError(f"vector must have the model's width {model.cfg.d_model}, it has {len(vector)}")
