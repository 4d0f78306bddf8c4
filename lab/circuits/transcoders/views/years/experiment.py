"""The greater-than study with its truth (Section 4): which years can follow, what the model says, and what few units keep.

Prompt "the war lasted from 17YY to 17" in the spans corpus, whose true distribution is known. Units of the MLP, a
transcoder's features or its own neurons, are ranked by how much they vary over the 100 prompts, as in the paper; only the
first k are kept, and no unit is left out by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from lab.cache import cached
from lab.circuits.transcoders.coders.coder import Transcoder
from lab.circuits.transcoders.coders.evaluation import constant, stand_in, zeros
from lab.circuits.transcoders.errors import CircuitError
from lab.circuits.transcoders.hooked import MLP, HookedGPT, replaced_mlps
from lab.circuits.transcoders.models import greater_than, spans_1l
from lab.circuits.transcoders.models.greater_than import MlpParts, Prompts, Sufficiency, Variant
from lab.datasets import spans
from lab.datasets.spans import Mode
from lab.experiment import Config, Progress, experiment, knob, no_progress

UnitName = Literal["features", "neurons"]
Lambda = Literal["4e-4", "8e-4", "1.6e-3", "3.2e-3"]
MOST = 64  # units that can be kept
SHOWN, RANKED = 6, 10  # units whose boost is drawn; units whose steps are counted
MEAN_TEXTS = 200  # contexts over which the MLP's output is averaged
MODES: dict[str, Mode] = dict(zip(spans.VERBS, ("greater", "less"), strict=True))
VARIANTS: dict[str, Variant] = {"zero": "zero", "their mean": "mean"}
WAYS = ("model", "transcoder", "kept", "mean", "zero")


class YearsConfig(Config):
    """Which prompt, and what of the MLP is left."""

    primary: ClassVar[tuple[str, ...]] = ("year", "verb", "units", "k")

    year: int = knob(32, "YY of “the war lasted from 17YY to 17”", ge=1, le=98, label="first year, 17..")
    verb: Literal["lasted", "rewound"] = knob("lasted", "lasted: the second year is later. rewound: it is earlier")
    units: UnitName = knob(
        "features", "features: of the transcoder that stands in for the MLP. neurons: the MLP's own", label="keep only"
    )
    k: int = knob(8, "so many are kept: those that vary most over the 100 first years", ge=0, le=MOST, label="how many")
    keep: Literal["the first k", "all"] = knob(
        "the first k", "all: the whole transcoder, or the MLP as it is", label="kept"
    )
    others: Literal["zero", "their mean"] = knob(
        "zero",
        "where the units stand that are not kept; zero leaves features and neurons different biases",
        label="the others at",
    )
    lam: Lambda = knob("8e-4", "the sparsity coefficient that the transcoder was trained with", label="λ")


@dataclass(frozen=True)
class YearsResult:
    """The answer to one prompt, and to all 98 that have years on both sides.

    prompt, first   what is read, and its YY; kept: units that are kept, in words; count: of all units of that kind
    truth, model, few   [100] probability of each second year: as it is in the corpus, of the model, with the kept units
    ways          a row each of `WAYS`: pd, kl (nats) of this prompt; pd_mean, kl_mean over YY = 1 ... 98
    curve         units, k, pd, kl: both kinds of unit, keeping k = 0 ... 64
    areas         mean KL over k = 1 ... 16, by kind of unit
    units         of the chosen kind, the first of the ranking: unit, fires (on this prompt), r2, step (the first year
                  behind the best single step in its boost)
    boosts, fits [u, 100]   what each adds to the logits per unit of activation, and the best single step in that
    steps         median r2 of the ten first units, by kind
    """

    prompt: str
    verb: str
    first: int
    units_kind: str
    k: int
    kept: str
    count: int
    truth: np.ndarray
    model: np.ndarray
    few: np.ndarray
    ways: pd.DataFrame
    curve: pd.DataFrame
    areas: dict[str, float]
    units: pd.DataFrame
    boosts: np.ndarray
    fits: np.ndarray
    steps: dict[str, float]


@cached(maxsize=None)
def language_model() -> HookedGPT:
    """The shipped model, loaded once; read only."""
    return spans_1l.load()


@cached(maxsize=None)
def transcoder(lam: Lambda) -> Transcoder:
    """The shipped transcoder of a sparsity coefficient, loaded once; read only."""
    from lab.circuits.transcoders.models.spans_assets import spans_coders

    coders = spans_coders()
    if ("transcoder", float(lam)) not in coders:
        known = ", ".join(f"{each:g}" for kind, each in coders if kind == "transcoder")
        raise CircuitError(f"lam: there is no transcoder of λ = {lam}; there are {known}")
    return coders["transcoder", float(lam)]


def mlp_parts(kind: UnitName, lam: Lambda) -> MlpParts:
    """What the MLP is taken apart into."""
    return greater_than.features(transcoder(lam)) if kind == "features" else greater_than.neurons(language_model())


@cached(maxsize=32)
def curve(kind: UnitName, mode: Mode, variant: Variant, lam: Lambda) -> Sufficiency:
    """Scores with k = 0 ... 64 units kept; half a second the first time."""
    units = mlp_parts(kind, lam)
    ks = tuple(range(min(MOST, len(units.writes)) + 1))
    return greater_than.sufficiency_curve(language_model(), units, greater_than.prompts(mode), ks, variant)


@cached(maxsize=None)
def mean_output() -> Float[Tensor, " d"]:
    """The MLP's output, averaged over all positions of held-out texts: where mean-ablation puts it."""
    model, place = language_model(), f"blocks.{language_model().cfg.n_layers - 1}.hook_mlp_out"
    texts = spans_1l.texts(0, "measure", MEAN_TEXTS)
    with torch.no_grad():
        return model.run_with_cache(texts, names=frozenset({place}))[1][place].mean((0, 1))


def only(units: MlpParts, which: Tensor, rest: Tensor) -> MLP:
    """An MLP of which some units are left; the others stand at ``rest`` [u]."""

    def mlp(x: Tensor, y: Tensor) -> Tensor:
        z = units.activations(x, y)
        left = rest.expand_as(z).clone().index_copy_(-1, which, z[..., which])
        return units.floor(x) + left @ units.writes

    return mlp


@torch.no_grad()
def answers(given: Prompts, mlp: MLP | None) -> Float[Tensor, "100 100"]:
    """Logits over the years at each prompt's end, with another function in the last MLP's place."""
    model = language_model()
    with replaced_mlps(model, {} if mlp is None else {model.cfg.n_layers - 1: mlp}):
        return model(given.tokens)[:, -1, given.years]


@experiment("years", "Years that can follow", cost="live")
@torch.no_grad()
def run_years(config: YearsConfig, *, progress: Progress = no_progress) -> YearsResult:
    """Answer the configured prompt in five ways. Raises AssetError naming the repair when model or coders are missing."""
    progress(0.0, "loading model and transcoder")
    mode, variant = MODES[config.verb], VARIANTS[config.others]
    given, units, coder = greater_than.prompts(mode), mlp_parts(config.units, config.lam), transcoder(config.lam)
    z = greater_than.activations(language_model(), units, given)
    curves: dict[UnitName, Sufficiency] = {}
    for place, kind in enumerate(get_args(UnitName)):
        progress(0.2 + 0.3 * place, f"keeping few {kind}")
        curves[kind] = curve(kind, mode, variant, config.lam)
    order = curves[config.units].order
    number = len(order) if config.keep == "all" else min(config.k, len(order))
    rest = torch.zeros_like(z[0]) if variant == "zero" else z.mean(0)
    progress(0.8, "answering")
    mlps: dict[str, MLP | None] = {
        "model": None,
        "transcoder": stand_in(coder),
        "kept": only(units, order[:number], rest),
        "mean": constant(mean_output()),
        "zero": zeros,
    }
    logits = {way: answers(given, mlp) for way, mlp in mlps.items()}
    boosts = greater_than.logit_boost(language_model(), units.writes[order[:SHOWN]], given)
    r2, step = greater_than.step_fit(boosts)
    progress(1.0, "done")
    return YearsResult(
        prompt=spans.decode(given.tokens[config.year]),
        verb=config.verb,
        first=config.year,
        units_kind=config.units,
        k=number,
        kept=_in_words(number, len(order), config.units),
        count=len(order),
        truth=_array(spans.truth(mode, config.year)),
        model=_array(logits["model"][config.year].softmax(-1)),
        few=_array(logits["kept"][config.year].softmax(-1)),
        ways=_ways(logits, mode, config.year),
        curve=_curve_frame(curves),
        areas={kind: found.area()[1] for kind, found in curves.items()},
        units=_unit_frame(order, z[config.year], r2, step),
        boosts=_array(boosts),
        fits=_array(_fit(boosts, step)),
        steps={kind: _steps(kind, config.lam, found, given) for kind, found in curves.items()},
    )


def _in_words(number: int, count: int, kind: UnitName) -> str:
    """How many units are kept of how many.

    >>> _in_words(8, 512, "neurons"), _in_words(1, 1024, "features"), _in_words(512, 512, "neurons")
    ('8 of 512 neurons', '1 of 1,024 features', 'all 512 neurons')
    """
    return f"all {count:,} {kind}" if number == count else f"{number} of {count:,} {kind}"


def _ways(logits: dict[str, Tensor], mode: Mode, year: int) -> pd.DataFrame:
    rows, here = [], torch.tensor([year])
    for way, found in logits.items():
        mean = greater_than.score(found, mode)
        own = found[here]
        rows.append(
            {
                "way": way,
                "pd": float(greater_than.probability_difference(own, here, mode)),
                "kl": float(greater_than.kl_to_truth(own, here, mode)),
                "pd_mean": mean.pd,
                "kl_mean": mean.kl,
            }
        )
    return pd.DataFrame(rows)


def _curve_frame(curves: dict[UnitName, Sufficiency]) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"units": kind, "k": found.ks.numpy(), "pd": found.pd.numpy(), "kl": found.kl.numpy()})
        for kind, found in curves.items()
    ]
    return pd.concat(parts, ignore_index=True)


def _unit_frame(order: Tensor, fires: Tensor, r2: Tensor, step: Tensor) -> pd.DataFrame:
    first = order[:SHOWN]
    return pd.DataFrame({"unit": first.numpy(), "fires": fires[first].numpy(), "r2": r2.numpy(), "step": step.numpy()})


def _fit(boosts: Float[Tensor, "u 100"], step: Tensor) -> Float[Tensor, "u 100"]:
    """The best single step: the mean on either side of it."""
    behind = torch.arange(boosts.shape[-1]) >= step[:, None]
    sides = [(boosts * side).sum(-1, keepdim=True) / side.sum(-1, keepdim=True) for side in (~behind, behind)]
    return torch.where(behind, sides[1], sides[0])


def _steps(kind: UnitName, lam: Lambda, found: Sufficiency, given: Prompts) -> float:
    writes = mlp_parts(kind, lam).writes[found.order[:RANKED]]
    return float(greater_than.step_fit(greater_than.logit_boost(language_model(), writes, given))[0].median())


def _array(values: Tensor) -> np.ndarray:
    return values.float().numpy()
