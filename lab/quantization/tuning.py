"""The search behind tuned knobs: as many trials for every method, on text that neither the ledger nor a page measures on.

The rule, fixed before any search: on the tuning pools (`tasks.POOLS`), with calibration and measured text drawn by the
tuning seeds, the setting with the best mean of the task's first metric wins; on a tie the earlier one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lab import engine
from lab.experiment import Progress
from lab.quantization.comparison import columns
from lab.quantization.pipeline import Method
from lab.quantization.tasks import EvaluationTask

SEEDS = (0, 1)
RULE = "best mean of the first metric over the tuning seeds, on the tuning pools; the earlier one on a tie"
Grid = Sequence[Mapping[str, Any]]


def search(
    task: EvaluationTask,
    grids: Mapping[str, tuple[type[Method], Mapping[str, Any], Grid]],
    *,
    progress: Progress,
    jobs: int = 1,
) -> dict[str, Any]:
    """{"chosen": name -> settings, "trials": [...], "seeds": [...], "rule": ...}.

    grids  name -> (method, settings that stay, settings to try)
    """
    metric, better = next(iter(task.metrics.items()))
    sign = 1.0 if better == "higher" else -1.0
    trials: list[dict[str, Any]] = []
    chosen: dict[str, dict[str, Any]] = {}
    total = sum(len(grid) for _, _, grid in grids.values())
    for name, (kind, fixed, grid) in grids.items():
        best = -math.inf
        for settings in grid:
            progress(len(trials) / total, f"{name} {dict(settings)}")
            score = functools.partial(_score, task, kind, dict(fixed) | dict(settings), metric)
            rows = sorted(engine.replicate(score, SEEDS, jobs), key=lambda row: row.seed)
            values = [round(row.values["score"], 5) for row in rows]
            mean = float(np.mean(values))
            trials.append({"method": name, "settings": dict(settings), metric: values, "mean": round(mean, 5)})
            if sign * mean > best:
                best, chosen[name] = sign * mean, dict(settings)
    return {"chosen": chosen, "trials": trials, "seeds": list(SEEDS), "rule": RULE}


def _score(
    task: EvaluationTask, kind: type[Method], settings: dict[str, Any], metric: str, seed: int, *, progress: Progress
) -> dict[str, float]:
    """The metric of one trial; the worst there is where the fit breaks down."""
    try:
        found = columns(task, {"method": kind(**settings)}, seed=seed, progress=progress)[f"method_{metric}"]
    except ValueError:
        found = math.nan
    broken = math.inf if task.metrics[metric] == "lower" else -1.0
    return {"score": found if math.isfinite(found) else broken}
