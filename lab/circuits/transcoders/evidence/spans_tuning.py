"""The search behind the rates of Adam on the spans corpus: as many trials for autoencoders as for transcoders.

The rules, fixed before the search, on the tuning seeds alone. Language model: the rate with the lowest held-out loss.
Coders of a kind: the rate with the lowest held-out value of their own objective, error and sparsity together,
relative to the best rate at each lambda, averaged over lambdas and seeds. On a tie the lower rate. The coders' rates were
the first three; as the best of one kind was the highest of them, 8e-3 was added, for both kinds.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from lab import engine
from lab.circuits.transcoders import tuned
from lab.circuits.transcoders.coders.loss import objective
from lab.circuits.transcoders.coders.training import Task, train_coders
from lab.circuits.transcoders.models import spans_1l
from lab.circuits.transcoders.models.spans_sweep import KINDS, LAMBDAS, Size, place_of, repeats, sites
from lab.experiment import Progress

SEEDS = (0, 1)
MODEL_RATES, RATES = (3e-3, 5e-3, 8e-3), (1e-3, 2e-3, 4e-3, 8e-3)
METHODS: dict[str, tuple[tuple[float, ...], int]] = {"language_model": (MODEL_RATES, 1)}  # rates, and losses a seed
METHODS |= {kind: (RATES, len(LAMBDAS)) for kind in KINDS}
RULE = "lowest held-out loss over the tuning seeds; of coders, their own objective relative to the best rate at each lambda"


def tune(*, progress: Progress, jobs: int = 1, size: Size | None = None) -> dict[str, Any]:
    """Run the search: three rates for the language model, four for each kind of coder, two seeds; half an hour on a core."""
    score = functools.partial(_losses, Size() if size is None else size)
    rows = []
    for row in engine.replicate(score, SEEDS, jobs):
        rows.append(row)
        progress(len(rows) / len(SEEDS), f"seed {row.seed}")
    rows.sort(key=lambda row: row.seed)
    trials: list[dict[str, Any]] = []
    chosen: dict[str, float] = {}
    for name, (rates, places) in METHODS.items():
        losses = [
            [[round(row.values[_column(name, rate, place)], 6) for place in range(places)] for row in rows]
            for rate in rates
        ]
        for rate, found in zip(rates, losses, strict=True):
            trials.append({"method": name, "settings": {"lr": rate}, "loss": found})
        relative = np.array(losses) / np.array(losses).min(0)
        chosen[name] = rates[int(relative.mean((1, 2)).argmin())]
    return {"chosen": chosen, "trials": trials, "seeds": list(SEEDS), "rule": RULE}


def _losses(size: Size, seed: int, *, progress: Progress) -> dict[str, float]:
    """All trials of a seed; coders are of the model whose rate is the chosen one."""
    held = spans_1l.texts(seed, "measure", size.measured)
    found: dict[str, float] = {}
    models = {rate: spans_1l.train_lm(seed, steps=size.model_steps, rate=rate) for rate in MODEL_RATES}
    with torch.no_grad():
        for rate, model in models.items():
            found[_column("language_model", rate, 0)] = float(spans_1l.next_token_loss(model, held))
    model, windows = models[tuned.SPANS["language_model"]], spans_1l.texts(seed, "coders", size.contexts)
    with torch.no_grad():
        cache = model.run_with_cache(held, stop_at=1)[1]
    for rate in RATES:
        coders = train_coders(Task(model, windows, sites(), replace(size.training, lr=rate), seed, repeats))
        for name, coder in coders.items():
            x, y = (cache[place].flatten(0, 1) for place in (coder.cfg.hook_name, coder.cfg.hook_name_out))
            found[_column(coder.kind, rate, place_of(name))] = objective(coder, sites()[name].lam, x, y)
    return found


def _column(name: str, rate: float, place: int) -> str:
    return f"{name} {rate:g} {place}"
