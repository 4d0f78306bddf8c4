"""The study `digits`: a seed draws the images, trains the network anew, calibrates anew; and the search behind its rates.

The rule of the search, fixed before it: six trials for every method, on images that the ledger never draws
(`digits_experiment.POOLS`), with other seeds; the least mean logarithm of the output's error on held-out images at 3 and at 4
bits wins, on a tie the earlier one. It looks at no label. Where each grid of six lies was settled on the tuning pool too.
"""

from __future__ import annotations

import functools
import math
from itertools import product
from typing import Any

import numpy as np

from lab import engine
from lab.experiment import Progress, Study
from lab.quantization.flexround import digits_experiment
from lab.quantization.flexround.digits_experiment import CHOSEN, STEPS, Task, prepare, quantize

BITS = (2, 3, 4)
TUNED_AT = (3, 4)
SEEDS = (0, 1, 2)
RULE = "least mean logarithm of the output's error at 3 and 4 bits on held-out images of the tuning pool; no labels"
_RATES = [{"lr": rate} for rate in (3e-3, 1e-3, 6e-3, 1e-2, 3e-2, 1e-1)]
GRIDS: dict[str, list[dict[str, Any]]] = {
    "flexround": _RATES,
    "flexround_no_s4": _RATES,
    "adaquant": _RATES,
    "adaround": [{"lr": rate, "regularizer": weight} for rate, weight in product((0.1, 0.3, 0.6), (0.1, 1.0))],
    "signround": [{"lr": rate / STEPS} for rate in (1.0, 0.3, 0.6, 2.0, 4.0, 8.0)],
}


def measure(seed: int, *, progress: Progress) -> dict[str, float]:
    """Accuracy and output error of every method, in percent, at 2, 3 and 4 bits: `flexround_3_accuracy` and so on."""
    return digits_experiment.columns(seed, BITS, progress=progress)


def tune(*, progress: Progress, jobs: int = 1) -> dict[str, Any]:
    """Run the search; about four minutes on one core."""
    trials: list[dict[str, Any]] = []
    chosen: dict[str, dict[str, Any]] = {}
    total = sum(len(grid) for grid in GRIDS.values())
    for key, grid in GRIDS.items():
        best = math.inf
        for settings in grid:
            progress(len(trials) / total, f"{key} {settings}")
            score = functools.partial(_score, key, settings)
            rows = sorted(engine.replicate(score, SEEDS, jobs), key=lambda row: row.seed)
            values = [round(row.values["score"], 4) for row in rows]
            mean = float(np.mean(values))
            trials.append({"method": key, "settings": dict(settings), "log_error": values, "mean": round(mean, 4)})
            if mean < best:
                best, chosen[key] = mean, dict(settings)
    return {"chosen": chosen, "trials": trials, "seeds": list(SEEDS), "rule": RULE}


def _score(key: str, settings: dict[str, Any], seed: int, *, progress: Progress) -> dict[str, float]:
    task = _prepared(seed)
    errors = [task.error(quantize(task, key, bits, settings=settings, seed=seed)[0]) for bits in TUNED_AT]
    found = float(np.mean(np.log(errors)))
    return {"score": found if math.isfinite(found) else 99.0}  # where a fit breaks down


@functools.lru_cache(maxsize=len(SEEDS))
def _prepared(seed: int) -> Task:
    return prepare(seed, pool="tuning")


DIGITS_STUDY = Study(
    "flexround",
    "digits",
    "A convolutional network on digits",
    measure,
    "training",
    seeds=tuple(range(100, 108)),
    seconds=16.0,
    tune=tune,
    chosen=CHOSEN,
)
