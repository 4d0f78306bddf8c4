"""The search behind the coders' learning rate on `stdlib-gpt`: as many trials for autoencoders as for transcoders.

The rule, fixed before any search: for each kind the rate with the lowest held-out loss (its own objective, error and
price of activation together), relative to the best rate at each lambda and averaged over the four lambdas and the tuning
seeds; the lower rate on a tie. Measured on the first half of the held-out modules, which the ledger never reads. The
rates were the first three; as the best was the highest of them, 8e-3 was added, for both kinds. It
is the best once more, by far less, and by less for autoencoders than for transcoders; there the search ended.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from lab import engine
from lab.circuits.transcoders.coders.coder import Kind, Transcoder
from lab.circuits.transcoders.coders.loss import objective
from lab.circuits.transcoders.coders.training import CoderTraining
from lab.circuits.transcoders.models.stdlib import hooked
from lab.circuits.transcoders.models.stdlib_assets import LAYER
from lab.circuits.transcoders.models.stdlib_sweep import CLAIM, LAMBDAS, LENGTH, sweep, texts
from lab.experiment import Progress

SEEDS = (0, 1)
RATES = (1e-3, 2e-3, 4e-3, 8e-3)
RULE = "lowest held-out loss relative to the best rate, over four lambdas and the tuning seeds, on the tuning half"


def tune(*, progress: Progress, jobs: int = 1, training: CoderTraining = CLAIM) -> dict[str, Any]:
    """Run the search: four rates for each kind, on two seeds; about an hour on one core."""
    trials: list[dict[str, Any]] = []
    chosen: dict[str, float] = {}
    for kind in LAMBDAS:
        losses = []
        for rate in RATES:
            progress(len(trials) / (len(LAMBDAS) * len(RATES)), f"{kind}, rate {rate:g}")
            score = functools.partial(_losses, kind, rate, training)
            rows = sorted(engine.replicate(score, SEEDS, jobs), key=lambda row: row.seed)
            found = [[round(row.values[f"loss_{place}"], 6) for place in range(len(LAMBDAS[kind]))] for row in rows]
            losses.append(found)
            trials.append({"method": kind, "settings": {"lr": rate}, "loss": found})
        relative = np.array(losses) / np.array(losses).min(0)
        chosen[kind] = RATES[int(relative.mean((1, 2)).argmin())]
    return {"chosen": chosen, "trials": trials, "seeds": list(SEEDS), "rule": RULE}


@torch.no_grad()
def _losses(kind: Kind, rate: float, training: CoderTraining, seed: int, *, progress: Progress) -> dict[str, float]:
    """`loss_PLACE` of the coders at each lambda, on tuning texts."""
    model = hooked()
    with torch.enable_grad():
        coders = sweep(kind, rate, seed, training, progress)
    out = f"blocks.{LAYER}.hook_mlp_out"
    read = f"blocks.{LAYER}.ln2.hook_normalized" if kind == "transcoder" else out
    cache = model.run_with_cache(texts("tuning", 64, LENGTH, seed), names=frozenset({read, out}))[1]
    x, y = cache[read].flatten(0, 1), cache[out].flatten(0, 1)
    return {
        f"loss_{place}": objective(coder, lam, x, y) for place, (coder, lam) in enumerate(_with_lambda(kind, coders))
    }


def _with_lambda(kind: Kind, coders: Mapping[str, Transcoder]) -> list[tuple[Transcoder, float]]:
    return list(zip(coders.values(), LAMBDAS[kind], strict=True))
