"""The search behind the rates of `digits_experiment`: six trials for every method, on images that the ledger never draws.

Where each grid of six lies was settled on the tuning pool too (`digits_experiment.POOLS`).
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from lab import tuning
from lab.cache import cached
from lab.experiment import Progress
from lab.quantization.flexround.digits_experiment import Task, prepare, quantize
from lab.quantization.flexround.tuned import DIGITS_STEPS

TUNED_AT = (3, 4)  # bits
SEEDS = (0, 1, 2)
RULE = "least mean logarithm of the output's error at 3 and 4 bits on held-out images of the tuning pool; no labels"
_RATES = [{"lr": rate} for rate in (3e-3, 1e-3, 6e-3, 1e-2, 3e-2, 1e-1)]
GRIDS: dict[str, list[dict[str, Any]]] = {
    "flexround": _RATES,
    "flexround_no_s4": _RATES,
    "adaquant": _RATES,
    "adaround": [{"lr": rate, "regularizer": weight} for rate, weight in product((0.1, 0.3, 0.6), (0.1, 1.0))],
    "signround": [{"lr": rate / DIGITS_STEPS} for rate in (1.0, 0.3, 0.6, 2.0, 4.0, 8.0)],
}


def tune(*, progress: Progress, jobs: int = 1) -> dict[str, Any]:
    """Run the search; about four minutes on one core."""
    return tuning.search(
        _score, GRIDS, SEEDS, metric="log_error", better="lower", rule=RULE, progress=progress, jobs=jobs
    )


def _score(key: str, settings: dict[str, Any], seed: int, *, progress: Progress) -> dict[str, float]:
    task = _prepared(seed)
    errors = [task.error(quantize(task, key, bits, settings=settings, seed=seed)[0]) for bits in TUNED_AT]
    return {"log_error": float(np.mean(np.log(errors)))}


@cached(maxsize=len(SEEDS))
def _prepared(seed: int) -> Task:
    return prepare(seed, pool="tuning")
