"""The coders of `spans-1l` that are compared: two kinds at four sparsity coefficients, and how they are scored at END.

Shipped coders, the ledger's study and the page are all such a sweep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Int
from torch import Tensor

from lab.circuits.transcoders.coders.coder import Kind, Transcoder
from lab.circuits.transcoders.coders.evaluation import Evaluation, evaluate, replace_mlps
from lab.circuits.transcoders.coders.matched_sparsity import matched_ratio
from lab.circuits.transcoders.coders.training import CoderTraining, Site
from lab.circuits.transcoders.hooked import HookedGPT
from lab.circuits.transcoders.models import greater_than, spans_1l
from lab.datasets import spans
from lab.datasets.spans import Mode

KINDS: tuple[Kind, ...] = ("transcoder", "sae")
LAMBDAS = (4e-4, 8e-4, 1.6e-3, 3.2e-3)  # of both kinds
YEARS_LAMBDA = 1  # place of the transcoder that is compared with neurons: next to the official one, 8.4e-4
WIDTH = 1024  # features
END_REPEATS = 4  # each END enters training so often, for it is a twentieth of the positions and the densest of them
CLAIM = CoderTraining(steps=1500, batch=512, warm_up=100)


@dataclass(frozen=True)
class Size:
    """How much one replicate trains and measures: steps of the language model; the coders' training at the long budget
    and the steps of the short one; contexts that coders are trained on and measured on."""

    model_steps: int = spans_1l.STEPS
    training: CoderTraining = CLAIM
    short: int = 300
    contexts: int = 20_000
    measured: int = 500


def repeats(tokens: Int[Tensor, "n t"]) -> Int[Tensor, "n t"]:
    """How often each position enters the coders' training: END positions more often, to be an eighth or more of it.

    >>> repeats(spans.encode("the war lasted from 1732 to 17")[None]).tolist()
    [[1, 1, 1, 1, 1, 1, 1, 1, 4]]
    """
    return torch.where(spans.is_end(tokens), END_REPEATS, 1)


def sites(kinds: Sequence[Kind] = KINDS) -> dict[str, Site]:
    """Coders of these kinds at all lambdas: "transcoder_0" at the lowest ... "sae_3" at the highest."""
    return {f"{kind}_{place}": Site(0, kind, WIDTH, lam) for kind in kinds for place, lam in enumerate(LAMBDAS)}


def place_of(name: str) -> int:
    """The place of a coder's lambda.

    >>> place_of("sae_3")
    3
    """
    return int(name.rsplit("_", 1)[1])


def at_end(model: HookedGPT, name: str) -> dict[str, float]:
    """`NAME_MODE_pd` and `NAME_MODE_kl`."""
    found: dict[str, float] = {}
    for mode in get_args(Mode):
        scores = greater_than.measure(model, greater_than.prompts(mode))
        found |= {f"{name}_{mode}_pd": scores.pd, f"{name}_{mode}_kl": scores.kl}
    return found


def sweep_scores(model: HookedGPT, coders: Mapping[str, Transcoder], held: Int[Tensor, "n t"]) -> dict[str, float]:
    """Every coder of a sweep, and both kinds at matched L0."""
    found: dict[str, float] = {}
    points: dict[str, list[Evaluation]] = {kind: [] for kind in KINDS}
    end = spans.is_end(held)
    for name, coder in coders.items():
        one = evaluate(model, 0, coder, held)
        points[coder.kind].append(one)
        dense = (features_at(model, coder, held)[end] > 0).float().sum(-1).mean()
        found |= {
            f"{name}_l0": one.l0,
            f"{name}_end_l0": float(dense),
            f"{name}_added": one.ce - one.ce_original,
            f"{name}_recovered": one.recovered,
            f"{name}_kl": one.kl,
            f"{name}_fvu": one.fvu,
            f"{name}_dead": one.dead,
        }
        with replace_mlps(model, {0: coder}):
            found |= at_end(model, name)
    l0 = [[point.l0 for point in points[kind]] for kind in KINDS]
    added = [[point.ce - point.ce_original for point in points[kind]] for kind in KINDS]
    kl = [[point.kl for point in points[kind]] for kind in KINDS]
    return found | {
        "added_ratio": matched_ratio(l0[0], added[0], l0[1], added[1]),
        "kl_ratio": matched_ratio(l0[0], kl[0], l0[1], kl[1]),
    }


@torch.no_grad()
def features_at(model: HookedGPT, coder: Transcoder, tokens: Int[Tensor, "n t"]) -> Tensor:
    """Activations of a coder's features on texts [n, t, f]."""
    read = coder.cfg.hook_name
    return coder.encode(model.run_with_cache(tokens, names=frozenset({read}), stop_at=1)[1][read])
