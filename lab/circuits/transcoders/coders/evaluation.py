r"""How good a coder is, by what happens to the language model when it stands in for the MLP.

$$ L_0=\frac1N\sum_t\#\{i:z_i(x_t)>0\} \tag{1} $$
$$ \mathrm{recovered}=\frac{CE_{zero}-CE_{coder}}{CE_{zero}-CE_{original}} \tag{2} $$
$$ \mathrm{FVU}=\frac{\sum_t\lVert\hat y_t-y_t\rVert^2}{\sum_t\lVert y_t-\bar y\rVert^2} \tag{3} $$

L0 is counted in the run of the original model. Two slips of the official code are avoided: its trainer puts a transcoder's
output where the input is read, and one of its loss functions never puts the MLP back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from lab.circuits.transcoders.coders.coder import Transcoder
from lab.circuits.transcoders.errors import CircuitError
from lab.circuits.transcoders.hooked import MLP, HookedGPT, replaced_mlps

LIVE = 1e-4  # a feature is live when it fires on more than one token in ten thousand
TEXTS = 16  # a forward pass


def check_fit(model: HookedGPT, layer: int, coder: Transcoder) -> None:
    """Raise CircuitError unless the coder fits this layer of this model: its widths, and the places it says it is for."""
    width = model.cfg.d_model
    if not 0 <= layer < model.cfg.n_layers:
        raise CircuitError(f"layer {layer} does not exist; the model has {model.cfg.n_layers} layers, from 0")
    if (coder.cfg.d_in, coder.cfg.d_out) != (width, width):
        raise CircuitError(
            f"the coder maps width {coder.cfg.d_in} to {coder.cfg.d_out}, but the model's MLPs map {width} to {width}"
        )
    out, read = f"blocks.{layer}.hook_mlp_out", f"blocks.{layer}.ln2.hook_normalized"
    expected = {"hook_name": read if coder.kind == "transcoder" else out, "hook_name_out": out}
    for name, hook_name in expected.items():
        stated = getattr(coder.cfg, name)
        if stated and stated not in (hook_name, hook_name.replace("hook_mlp_out", "mlp.hook_out")):
            raise CircuitError(f"the coder's {name} is {stated!r}; for layer {layer} it would have to be {hook_name!r}")


def stand_in(
    coder: Transcoder, features: Int[Tensor, " k"] | None = None, at: Bool[Tensor, "b t"] | None = None
) -> MLP:
    """A coder as what `replaced_mlps` takes: an MLP's input and output to what is used instead.

    features  keep only these; the others are zero
    at        replace at these positions only
    """

    def mlp(x: Tensor, y: Tensor) -> Tensor:
        read = x if coder.kind == "transcoder" else y
        if features is None:
            out = coder(read)
        else:
            z = coder.encode(read)
            out = coder.decode(torch.zeros_like(z).index_copy(-1, features, z[..., features]))
            if coder.W_skip is not None:
                out = out + functional.linear(read, coder.W_skip)
        return out if at is None else torch.where(at[..., None], out, y)

    return mlp


@contextmanager
def replace_mlps(
    model: HookedGPT,
    coders: Mapping[int, Transcoder],
    features: Mapping[int, Int[Tensor, " k"]] | None = None,
    at: Bool[Tensor, "b t"] | None = None,
) -> Iterator[None]:
    """While it lasts, coders stand in for the MLPs of their layers; in this thread alone, and it nests.

    The model's weights are never touched: afterwards, and after an exception, it computes the same bits as before.

    Parameters
    ----------
    model : HookedGPT
        The language model.
    coders : mapping of layer to Transcoder
        Which MLPs, and by what.
    features : mapping of layer to Int[Tensor, "k"], optional
        The features that are used; all of them if left out.
    at : Bool[Tensor, "b t"], optional
        Positions that are replaced; all of them if left out.

    Yields
    ------
    None
        While the coders are in place.

    Raises
    ------
    CircuitError
        For a coder that does not fit, and a feature that it does not have.

    References
    ----------
    Dunefsky, Chlenski and Nanda, "Transcoders Find Interpretable LLM Feature Circuits", 2024, Section 4.

    Examples
    --------
    >>> from lab.circuits.transcoders.coders.coder import CoderConfig
    >>> model, tokens = HookedGPT.tiny(), torch.tensor([[0, 3, 1]])
    >>> with replace_mlps(model, {0: Transcoder(CoderConfig(8, 32, 8))}):
    ...     replaced = model(tokens)
    >>> bool((model(tokens) == replaced).all())
    False
    """
    chosen = {} if features is None else dict(features)
    for layer, coder in coders.items():
        check_fit(model, layer, coder)
        if layer in chosen:
            check_features(coder, chosen[layer])
    with replaced_mlps(model, {layer: stand_in(coder, chosen.get(layer), at) for layer, coder in coders.items()}):
        yield


def check_features(coder: Transcoder, features: Int[Tensor, " k"]) -> None:
    """Raise CircuitError for features that the coder does not have."""
    outside = features[(features < 0) | (features >= coder.cfg.d_sae)]
    if len(outside):
        raise CircuitError(f"feature {int(outside[0])} does not exist; the coder has {coder.cfg.d_sae}, from 0")


@dataclass(frozen=True)
class Evaluation:
    """What a coder does, over all tokens of some texts; losses in nats per token.

    Parameters
    ----------
    l0 : float
        Features active on a token, on average: equation (1) of the module.
    ce, ce_original, ce_zero, ce_mean : float
        Next-token loss with the coder in place; without; with the MLP's output at zero, or at its mean over these texts.
    recovered : float
        Of what zero-ablation destroys, the share that is left: equation (2).
    kl : float
        From the original prediction to the one with the coder in place.
    fvu : float
        Fraction of the output's variance that is unexplained: equation (3).
    dead : float
        Share of features that fire on no more than one token in ten thousand.
    tokens : int
        How many were read.

    Examples
    --------
    >>> perfect = Evaluation(l0=3, ce=2, ce_original=2, ce_zero=5, ce_mean=4, recovered=1, kl=0, fvu=0, dead=0, tokens=64)
    >>> perfect.recovered == (perfect.ce_zero - perfect.ce) / (perfect.ce_zero - perfect.ce_original)  # equation (2)
    True
    """

    l0: float
    ce: float
    ce_original: float
    ce_zero: float
    ce_mean: float
    recovered: float
    kl: float
    fvu: float
    dead: float
    tokens: int


@torch.no_grad()
def evaluate(model: HookedGPT, layer: int, coder: Transcoder, tokens: Int[Tensor, "n t"]) -> Evaluation:
    """Measure a coder on texts, equations (1) to (3) of the module.

    Parameters
    ----------
    model : HookedGPT
        The language model; only read.
    layer : int
        Whose MLP the coder stands in for.
    coder : Transcoder
        A transcoder or an autoencoder of the MLP's output.
    tokens : Int[Tensor, "n t"]
        Texts of at least two tokens.

    Returns
    -------
    Evaluation
        Losses in nats per token.

    Raises
    ------
    CircuitError
        When the coder does not fit, or there is no next token to predict.

    References
    ----------
    Dunefsky, Chlenski and Nanda, "Transcoders Find Interpretable LLM Feature Circuits", 2024, Section 4.

    Examples
    --------
    >>> from lab.circuits.transcoders.coders.coder import CoderConfig
    >>> evaluate(HookedGPT.tiny(), 0, Transcoder(CoderConfig(8, 32, 8)), torch.randint(0, 5, (4, 10))).tokens
    40
    """
    check_fit(model, layer, coder)
    _check_texts(tokens)
    out = f"blocks.{layer}.hook_mlp_out"
    read = f"blocks.{layer}.ln2.hook_normalized" if coder.kind == "transcoder" else out
    sums = dict.fromkeys(("active", "ce", "original", "kl", "error"), 0.0)
    fired = torch.zeros(coder.cfg.d_sae)
    total, squares = torch.zeros(model.cfg.d_model, dtype=torch.float64), 0.0
    for batch in tokens.split(TEXTS):
        logits, cache = model.run_with_cache(batch, names=frozenset({read, out}))
        z, y = coder.encode(cache[read]), cache[out]
        fired += (z > 0).flatten(0, 1).sum(0)
        with replace_mlps(model, {layer: coder}):
            replaced = model(batch)
        sums["original"] += _losses(logits, batch)
        sums["ce"] += _losses(replaced, batch)
        sums["kl"] += _divergence(logits, replaced)
        sums["error"] += float((coder(cache[read]) - y).double().square().sum())
        total += y.double().sum((0, 1))
        squares += float(y.double().square().sum())
    count = tokens.numel()
    mean = (total / count).to(model.W_E.dtype)
    zero, at_mean = (_ablated(model, layer, tokens, value) for value in (torch.zeros_like(mean), mean))
    predicted = len(tokens) * (tokens.shape[1] - 1)
    ce, original = sums["ce"] / predicted, sums["original"] / predicted
    return Evaluation(
        l0=float(fired.sum()) / count,  # (1)
        ce=ce,
        ce_original=original,
        ce_zero=zero,
        ce_mean=at_mean,
        recovered=(zero - ce) / (zero - original) if zero != original else math.nan,  # (2)
        kl=sums["kl"] / count,
        # (3), with sum ||y - mean||^2 = sum ||y||^2 - ||sum y||^2 / N
        fvu=sums["error"] / (squares - float(total.square().sum()) / count),
        dead=float((fired / count <= LIVE).float().mean()),
        tokens=count,
    )


@torch.no_grad()
def replacement_loss(model: HookedGPT, tokens: Int[Tensor, "n t"], mlps: Mapping[int, MLP]) -> float:
    """Next-token loss, in nats, with some layers' MLPs replaced; the model's own with none.

    >>> model = HookedGPT.tiny()
    >>> replacement_loss(model, torch.tensor([[0, 3, 1]]), {0: zeros}) > 0
    True
    """
    _check_texts(tokens)
    total = 0.0
    for batch in tokens.split(TEXTS):
        with replaced_mlps(model, mlps):
            total += _losses(model(batch), batch)
    return total / (len(tokens) * (tokens.shape[1] - 1))


def zeros(x: Float[Tensor, "b t d"], y: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
    """Zero-ablation, as what `replaced_mlps` takes."""
    return torch.zeros_like(y)


def constant(value: Float[Tensor, " d"]) -> MLP:
    """Ablation to a fixed output, such as the mean, as what `replaced_mlps` takes."""
    return lambda x, y: value.expand_as(y)


def _ablated(model: HookedGPT, layer: int, tokens: Tensor, value: Tensor) -> float:
    return replacement_loss(model, tokens, {layer: constant(value)})


def _check_texts(tokens: Tensor) -> None:
    if tokens.ndim != 2 or tokens.shape[0] < 1 or tokens.shape[1] < 2:
        raise CircuitError(f"tokens must be at least one text of at least two tokens, got shape {tuple(tokens.shape)}")


def _losses(logits: Tensor, tokens: Tensor) -> float:
    """The sum of next-token losses."""
    return float(functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum"))


def _divergence(original: Tensor, replaced: Tensor) -> float:
    """The sum over positions of KL(original || replaced)."""
    return float(
        functional.kl_div(replaced.log_softmax(-1), original.log_softmax(-1), log_target=True, reduction="sum")
    )
