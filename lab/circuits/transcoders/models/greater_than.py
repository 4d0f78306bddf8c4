r"""Does a model know that a war ends after it begins, and in how few units of its MLP (Section 4's greater-than study)?

Prompt "the war lasted from 1732 to 17", softmax over the 100 two-digit years alone, probability difference

$$ PD(YY) = P(>YY) - P(\le YY)=2P(>YY)-1,\quad\text{mean over } YY = 1 \dots 98 \tag{1} $$

and its mirror P(<YY) - P(>=YY) where the mode is "less". PD rewards overconfidence: all probability on 99 makes it 1. So
the divergence from the true distribution q, which this corpus has in closed form, stands beside it:

$$ KL(YY)=\sum_y q(y)\,\log\frac{q(y)}{P(y)} . \tag{2} $$

Keeping only the units U, the others at $r_i$ (zero, or their mean over the prompts), the MLP's output is

$$ y_U = b + \sum_i r_i d_i + \sum_{i\in U}(z_i-r_i)\,d_i . \tag{3} $$
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from lab.circuits.transcoders.coders.coder import Transcoder
from lab.circuits.transcoders.errors import CircuitError, HookedError
from lab.circuits.transcoders.hooked import ACTIVATIONS, HookedGPT
from lab.datasets import spans
from lab.datasets.spans import Mode

Variant = Literal["zero", "mean"]
MEASURED = torch.arange(1, 99)  # the first years that have others on both sides


@dataclass(frozen=True, eq=False)
class Prompts:
    """One prompt for each first year 00 ... 99, alike otherwise: tokens [100, t], and which tokens are the years [100]."""

    tokens: Int[Tensor, "100 t"]
    years: Int[Tensor, " 100"]
    mode: Mode


@dataclass(frozen=True)
class Scores:
    """Means over the first years 1 ... 98: probability difference, and KL(truth || model) in nats."""

    pd: float
    kl: float


@dataclass(frozen=True, eq=False)
class MlpParts:
    """What an MLP is taken apart into: features of a coder, or its own neurons.

    activations  (normalised input, output) of the MLP -> what each unit's activation is
    writes       what a unit of activation adds to the output [u, d]
    floor        normalised input -> what stands without any unit: the bias of the output
    """

    activations: Callable[[Tensor, Tensor], Tensor]
    writes: Float[Tensor, "u d"]
    floor: Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Sufficiency:
    """Scores when only the first k of the units in ``order`` are kept, for each k; all [k]."""

    ks: Int[Tensor, " k"]
    pd: Float[Tensor, " k"]
    kl: Float[Tensor, " k"]
    order: Int[Tensor, " u"]

    def area(self, first: int = 1, last: int = 16) -> tuple[float, float]:
        """Mean PD and mean KL over first <= k <= last: the area under the curve, per unit of k."""
        there = (self.ks >= first) & (self.ks <= last)
        if not bool(there.any()):
            raise CircuitError(f"first, last: the curve has no k in {first} ... {last}")
        return float(self.pd[there].mean()), float(self.kl[there].mean())


def prompts(mode: Mode, event: str = "war", century: int = 17) -> Prompts:
    """The paper's prompts in the spans corpus, beginning-of-text first. Raises SpansError for what it has no word for.

    >>> spans.decode(prompts("less").tokens[5])
    'the war rewound from 1705 to 17'
    """
    spans.truth(mode, 50)  # names a mode that does not exist
    verb = spans.VERBS[get_args(Mode).index(mode)]
    tokens = spans.encode(f"the {event} {verb} from {century}00 to {century}").repeat(100, 1)
    years = spans.FIRST_YEAR + torch.arange(100)
    tokens[:, tokens[0] == spans.FIRST_YEAR] = years[:, None]
    return Prompts(tokens, years, mode)


def probability_difference(
    logits: Float[Tensor, "b 100"], years: Int[Tensor, " b"], mode: Mode = "greater"
) -> Float[Tensor, " b"]:
    """``P(>YY) - P(<=YY)``, or ``P(<YY) - P(>=YY)``, of a softmax over the 100 years; log-probabilities are logits too.

    >>> probability_difference(torch.zeros(1, 100), torch.tensor([49]))
    tensor([0.])
    """
    _check(logits, years)
    right = torch.arange(100) > years[:, None] if mode == "greater" else torch.arange(100) < years[:, None]
    return 2 * (logits.softmax(-1) * right).sum(-1) - 1  # (1)


def kl_to_truth(
    logits: Float[Tensor, "b 100"], years: Int[Tensor, " b"], mode: Mode = "greater"
) -> Float[Tensor, " b"]:
    """``KL(truth || softmax of the logits)`` in nats, over the 100 years; SpansError for a year that has no truth.

    >>> kl_to_truth(spans.truth("greater", 20).log()[None], torch.tensor([20]))
    tensor([0.])
    """
    _check(logits, years)
    table = _truths(mode)
    for year in years[(years < 0) | (years > 99) | ~table.any(1)[years.clamp(0, 99)]].tolist():
        spans.truth(mode, year)  # says what is wrong with it
    truth = table[years].to(logits.dtype)
    # (2), with 0 log 0 = 0
    terms = torch.where(truth > 0, truth * (truth.log() - logits.log_softmax(-1)), 0.0)
    return terms.sum(-1).clamp_min(0)


def score(logits: Float[Tensor, "100 100"], mode: Mode) -> Scores:
    """Both scores of the logits over the years, one row for each first year 00 ... 99."""
    some = logits[MEASURED]
    return Scores(
        float(probability_difference(some, MEASURED, mode).mean()), float(kl_to_truth(some, MEASURED, mode).mean())
    )


@torch.no_grad()
def measure(model: HookedGPT, given: Prompts) -> Scores:
    """How well the model does on the prompts; inside `replace_mlps`, how well it does with coders.

    >>> from lab.circuits.transcoders.hooked import HookedConfig
    >>> model = HookedGPT(HookedConfig(1, 8, 2, 4, 16, 28, len(spans.VOCABULARY)))
    >>> measure(model, prompts("greater")).pd < 0.5
    True
    """
    return score(model(given.tokens)[:, -1, given.years], given.mode)


def features(coder: Transcoder) -> MlpParts:
    """A coder's features as units; what a skip connection writes stands without them."""

    def floor(x: Tensor) -> Tensor:
        bias = coder.b_dec.expand(*x.shape[:-1], -1)
        return bias if coder.W_skip is None else bias + functional.linear(x, coder.W_skip)

    return MlpParts(lambda x, y: coder.encode(x if coder.kind == "transcoder" else y), coder.W_dec, floor)


def neurons(model: HookedGPT, layer: int = -1) -> MlpParts:
    """The neurons of a layer's MLP as units; the last layer's if left out."""
    post = ACTIVATIONS[model.cfg.activation]
    W_in, b_in, b_out = model.W_in[layer], model.b_in[layer], model.b_out[layer]
    return MlpParts(lambda x, y: post(x @ W_in + b_in), model.W_out[layer], lambda x: b_out.expand(*x.shape[:-1], -1))


@torch.no_grad()
def activations(model: HookedGPT, units: MlpParts, given: Prompts) -> Float[Tensor, "100 u"]:
    """What the last layer's units do at each prompt's last token."""
    return units.activations(*_last(model, given)[1:])


@torch.no_grad()
def sufficiency_curve(
    model: HookedGPT, units: MlpParts, given: Prompts, ks: Sequence[int], variant: Variant = "zero"
) -> Sufficiency:
    """Keep the k units of the last layer whose activation varies most over the 100 prompts; score the model with them.

    variant  where the others stand: "zero" at zero, as in the paper, which leaves each kind of unit its own bias of
             the output; "mean" at their mean over the prompts

    Raises CircuitError for a k below 0 or above the number of units, and for an unknown variant.

    >>> from lab.circuits.transcoders.hooked import HookedConfig
    >>> model = HookedGPT(HookedConfig(1, 8, 2, 4, 16, 28, len(spans.VOCABULARY)))
    >>> curve = sufficiency_curve(model, neurons(model), prompts("greater"), (0, 16))
    >>> abs(curve.pd[1].item() - measure(model, prompts("greater")).pd) < 1e-5
    True
    """
    if variant not in get_args(Variant):
        raise CircuitError(f"variant must be one of {', '.join(get_args(Variant))}, got {variant!r}")
    number = len(units.writes)
    if not ks or not all(0 <= k <= number for k in ks):
        raise CircuitError(f"ks must lie in 0 ... {number}, the number of units, got {list(ks)}")
    stream, x, y = _last(model, given)
    z = units.activations(x, y)
    order = z.var(dim=0).argsort(descending=True, stable=True)
    rest = torch.zeros_like(z[0]) if variant == "zero" else z.mean(0)
    # (3), for k = 1, 2, ... units at once
    floor = stream + units.floor(x) + rest @ units.writes  # [100, D]
    top = order[: max(ks)]
    added = ((z - rest)[:, top, None] * units.writes[top]).cumsum(dim=1)  # [100, k, d]: of the first 1, 2, ... units
    added = torch.cat([torch.zeros_like(floor)[:, None], added], dim=1)
    logits = _read(model, floor + added[:, list(ks)].transpose(0, 1), given)[:, MEASURED]  # [k, 98, 100]
    rows, years = logits.flatten(0, 1), MEASURED.repeat(len(ks))
    pd, kl = probability_difference(rows, years, given.mode), kl_to_truth(rows, years, given.mode)
    shape = (len(ks), len(MEASURED))
    return Sufficiency(torch.tensor(list(ks)), pd.view(shape).mean(1), kl.view(shape).mean(1), order)


def logit_boost(model: HookedGPT, writes: Float[Tensor, "u d"], given: Prompts) -> Float[Tensor, "u 100"]:
    """What each unit adds to the logits of the 100 years per unit of activation, before the last LayerNorm's scale."""
    return (writes - writes.mean(-1, keepdim=True)) @ model.W_U[:, given.years]


def step_fit(boost: Float[Tensor, "u n"]) -> tuple[Float[Tensor, " u"], Int[Tensor, " u"]]:
    """R^2 of the best single step in each row, and the first place after the step; 0 for a constant row.

    >>> step_fit(torch.tensor([[0.0, 0.0, 1.0]]))
    (tensor([1.]), tensor([2]))
    """
    rows = boost.double() - boost.double().mean(-1, keepdim=True)
    count = rows.shape[-1]
    left = torch.arange(1, count, dtype=torch.float64)
    # A step's sum of squares between its sides: n_l m_l^2 + n_r m_r^2, and the sums of both sides are opposite.
    between = rows.cumsum(-1)[:, :-1].square() * (1 / left + 1 / (count - left))
    best, position = between.max(-1)
    total = rows.square().sum(-1)
    return torch.where(total > 0, best / total, 0.0).to(boost.dtype), position + 1


@functools.cache
def _truths(mode: Mode) -> Float[Tensor, "100 100"]:
    """`spans.truth` of all first years; no probability anywhere for the one that has no truth."""
    none = 99 if mode == "greater" else 0
    return torch.stack([torch.zeros(100) if year == none else spans.truth(mode, year) for year in range(100)])


def _last(model: HookedGPT, given: Prompts) -> tuple[Tensor, Tensor, Tensor]:
    """At each prompt's last token, in the last layer: the stream before the MLP, the MLP's input, and its output."""
    block = f"blocks.{model.cfg.n_layers - 1}"
    names = [f"{block}.{name}" for name in ("hook_resid_mid", "ln2.hook_normalized", "hook_mlp_out")]
    cache = model.run_with_cache(given.tokens, names=frozenset(names))[1]
    stream, x, y = (cache[name][:, -1] for name in names)
    return stream, x, y


def _read(model: HookedGPT, stream: Float[Tensor, "... d"], given: Prompts) -> Float[Tensor, "... 100"]:
    """Logits of the years from the last residual stream."""
    normalised = functional.layer_norm(stream, stream.shape[-1:], eps=model.cfg.eps)
    return normalised @ model.W_U[:, given.years] + model.b_U[given.years]


def _check(logits: Tensor, years: Tensor) -> None:
    if logits.ndim != 2 or logits.shape[1] != 100 or years.shape != logits.shape[:1]:
        raise HookedError(
            f"logits must be of shape (prompts, 100 years) with one of `years` a prompt, got {tuple(logits.shape)} and "
            f"{tuple(years.shape)}"
        )
