"""What the claims about year spans rest on: a language model and its coders trained anew for every seed, on text of that seed.

The rules were written before any of the ledger's seeds was run; what is tuned was tuned on other seeds (`spans_tuning`).

Sparsity against faithfulness. Transcoders and autoencoders of equal width at the same four lambdas, trained on the same
pairs, at two budgets, for a transcoder must compute where an autoencoder copies and may need longer for it. Their curves
are compared as in `pareto`: log-log between points, averaged over the L0 that both cover, never beyond. Where they nowhere
overlap the ratio is not a number, and the claim then counts as not shown.

Greater-than. The transcoder of one lambda, fixed beforehand, against the MLP's neurons: mean KL to the truth with the k
units kept that vary most, over k = 1 ... 16. No unit is left out.

Labels. Best single-label F1 of live units (`label_scores`): a proxy for raters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import get_args

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from lab.circuits.transcoders import tuned
from lab.circuits.transcoders.coders.coder import Transcoder
from lab.circuits.transcoders.coders.evaluation import constant, zeros
from lab.circuits.transcoders.coders.matched_sparsity import GRID
from lab.circuits.transcoders.coders.training import CoderTraining, Task, train_coders
from lab.circuits.transcoders.evidence.spans_tuning import tune
from lab.circuits.transcoders.hooked import MLP, HookedGPT, replaced_mlps
from lab.circuits.transcoders.models import greater_than, spans_1l
from lab.circuits.transcoders.models.greater_than import MlpParts, Variant
from lab.circuits.transcoders.models.spans_sweep import (
    KINDS,
    LAMBDAS,
    YEARS_LAMBDA,
    Size,
    at_end,
    features_at,
    repeats,
    sites,
    sweep_scores,
)
from lab.circuits.transcoders.units.label_scores import QUANTILES, label_scores
from lab.datasets import spans
from lab.datasets.spans import Mode
from lab.experiment import Progress, part, study

SEEDS = tuple(range(100, 105))
POINT = ("l0", "end_l0", "added", "recovered", "kl", "fvu", "dead")  # of each coder
OUT = "blocks.0.hook_mlp_out"
KEPT = (1, 16)  # k of the area under the curve


def train_pairs(
    model: HookedGPT, training: CoderTraining, size: Size, seed: int, progress: Progress
) -> dict[str, Transcoder]:
    """The eight coders of a model, each kind at its tuned rate."""
    windows = spans_1l.texts(seed, "coders", size.contexts)
    found: dict[str, Transcoder] = {}
    rates = {tuned.SPANS[kind] for kind in KINDS}
    for place, rate in enumerate(sorted(rates)):
        own = [kind for kind in KINDS if tuned.SPANS[kind] == rate]
        task = Task(model, windows, sites(own), replace(training, lr=rate), seed, repeats)
        found |= train_coders(task, progress=part(progress, place / len(rates), 1 / len(rates)))
    return found


def _columns() -> Iterator[str]:
    """What `measure` returns, see there."""
    modes = [f"{mode}_{score}" for mode in get_args(Mode) for score in ("pd", "kl")]
    coders = [f"{kind}_{place}" for kind in KINDS for place in range(len(LAMBDAS))]
    yield from ("one", "gate", "steps_features", "steps_neurons", "label_neurons", "label_neurons_zero")
    yield from (f"{way}_{name}" for way in ("model", "zero", "mean") for name in ("loss", *modes))
    for budget in ("", "short_"):
        yield from (f"{budget}{coder}_{name}" for coder in coders for name in (*POINT, *modes))
        yield from (f"{budget}added_ratio", f"{budget}kl_ratio")
    for units in ("neurons", "features", *(f"features_{place}" for place in range(len(LAMBDAS)))):
        yield from (
            f"{units}_{mode}_{variant}_{score}"
            for mode in get_args(Mode)
            for variant in get_args(Variant)
            for score in ("pd", "kl")
        )
    yield from (f"label_{name}" for name in (*coders, *KINDS))


@study(
    "spans",
    "Year spans: sweep, greater-than, labels",
    columns=tuple(_columns()),
    replication="training",
    seeds=SEEDS,
    tune=tune,
    chosen=tuned.SPANS,
)
def measure(seed: int, *, progress: Progress, size: Size | None = None) -> dict[str, float]:
    """One replicate, about four minutes on one core. Columns, KIND being transcoder or sae, PLACE that of its lambda:

    one                               1, what ratios are compared with
    model_loss, model_MODE_pd|kl      the language model: nats a token, and its scores at END
    zero_..., mean_...                the same with the MLP's output at zero, and at its mean over all positions
    gate                              see `gate`
    KIND_PLACE_l0|end_l0|added|recovered|kl|fvu|dead      of each coder, L0 over all tokens and at END, loss in nats
    KIND_PLACE_MODE_pd|kl             the model's scores with the whole coder in place
    added_ratio, kl_ratio             transcoder over autoencoder at matched L0
    short_...                         the same of the coders that were trained for the short budget
    UNITS_MODE_VARIANT_pd|kl          areas, UNITS being features (of the fixed lambda), features_PLACE or neurons
    steps_features, steps_neurons     median R^2 of the best single step in the boosts of the ten units that vary most
    label_KIND_PLACE, label_neurons   mean F1 of live units; neurons choose among thresholds, label_neurons_zero above 0
    label_transcoder, label_sae       the mean over the L0 that both kinds cover, linear in log L0
    """
    size = Size() if size is None else size
    model = spans_1l.train_lm(seed, steps=size.model_steps, progress=part(progress, 0.0, 0.25))
    held = spans_1l.texts(seed, "measure", size.measured)
    found = {"one": 1.0} | model_scores(model, held)
    short = train_pairs(model, replace(size.training, steps=size.short), size, seed, part(progress, 0.25, 0.12))
    found |= {f"short_{name}": value for name, value in sweep_scores(model, short, held).items()}
    coders = train_pairs(model, size.training, size, seed, part(progress, 0.37, 0.55))
    progress(0.92, "measuring")
    found |= sweep_scores(model, coders, held)
    return found | years_scores(model, coders) | named_scores(model, coders, held)


@torch.no_grad()
def model_scores(model: HookedGPT, held: Int[Tensor, "n t"]) -> dict[str, float]:
    """The language model, whole and without its MLP, and how its attention differs between the modes."""
    found = {"gate": gate(model)}
    mean = model.run_with_cache(held, names=frozenset({OUT}))[1][OUT].mean((0, 1))
    mlps: dict[str, dict[int, MLP]] = {"model": {}, "zero": {0: zeros}, "mean": {0: constant(mean)}}
    for name, mlp in mlps.items():
        with replaced_mlps(model, mlp):
            found |= {f"{name}_loss": float(spans_1l.next_token_loss(model, held))} | at_end(model, name)
    return found


@torch.no_grad()
def gate(model: HookedGPT) -> float:
    """By how much the attention of a head from END to the first year differs between the modes, on average over the
    years; the largest of the heads. Near 1 a head looks at the year in one mode only, and so gates without any MLP."""
    place = "blocks.0.attn.hook_pattern"
    looks = []
    for mode in get_args(Mode):
        given = greater_than.prompts(mode)
        where = int((given.tokens[0] == given.years[0]).nonzero()[0])
        looks.append(model.run_with_cache(given.tokens, names=frozenset({place}))[1][place][:, :, -1, where])
    return float((looks[0] - looks[1]).mean(0).abs().max())


def years_scores(model: HookedGPT, coders: Mapping[str, Transcoder]) -> dict[str, float]:
    """Areas under the sufficiency curves of features and neurons, and how step-like their boosts are."""
    by_name: dict[str, MlpParts] = {
        f"features_{place}": greater_than.features(coders[f"transcoder_{place}"]) for place in range(len(LAMBDAS))
    }
    by_name |= {
        "features": by_name[f"features_{YEARS_LAMBDA}"],
        "neurons": greater_than.neurons(model),
    }
    found: dict[str, float] = {}
    for mode in get_args(Mode):
        given = greater_than.prompts(mode)
        for name, units in by_name.items():
            for variant in get_args(Variant):
                curve = greater_than.sufficiency_curve(model, units, given, range(KEPT[1] + 1), variant)
                pd, kl = curve.area(*KEPT)
                found |= {f"{name}_{mode}_{variant}_pd": pd, f"{name}_{mode}_{variant}_kl": kl}
            if mode == "greater" and name in ("features", "neurons"):
                boosts = greater_than.logit_boost(model, units.writes[curve.order[:10]], given)
                found[f"steps_{name}"] = float(greater_than.step_fit(boosts)[0].median())
    return found


@torch.no_grad()
def named_scores(model: HookedGPT, coders: Mapping[str, Transcoder], held: Int[Tensor, "n t"]) -> dict[str, float]:
    """How well live units can be named after one label."""
    labels = spans.labels(held)[1].flatten(0, 1)
    curves: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    found: dict[str, float] = {}
    for name, coder in coders.items():
        z = features_at(model, coder, held).flatten(0, 1)
        found[f"label_{name}"] = label_scores(z, labels).mean
        curves[coder.kind].append((float((z > 0).sum(-1).float().mean()), found[f"label_{name}"]))
    read = model.run_with_cache(held, names=frozenset({"blocks.0.mlp.hook_post"}))[1]["blocks.0.mlp.hook_post"]
    neurons = read.flatten(0, 1)
    found |= {
        "label_neurons": label_scores(neurons, labels, QUANTILES).mean,
        "label_neurons_zero": label_scores(neurons, labels).mean,
    }
    one, two = matched_means(*(curves[kind] for kind in KINDS))
    return found | {"label_transcoder": one, "label_sae": two}


def matched_means(one: list[tuple[float, float]], two: list[tuple[float, float]]) -> tuple[float, float]:
    """Means of two curves of (L0, value) over the L0 that both cover, linear in log L0; not a number without overlap.

    >>> matched_means([(1.0, 0.0), (4.0, 1.0)], [(2.0, 5.0), (8.0, 5.0)])
    (0.75, 5.0)
    """
    low, high = max(min(one)[0], min(two)[0]), min(max(one)[0], max(two)[0])
    if not low < high:
        return float("nan"), float("nan")
    at = np.linspace(np.log(low), np.log(high), GRID)
    means = []
    for curve in (one, two):
        x, y = np.array(sorted(curve)).T
        means.append(float(np.interp(at, np.log(x), y).mean()))
    return means[0], means[1]
