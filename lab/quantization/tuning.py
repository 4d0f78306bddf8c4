"""The search behind tuned knobs: as many trials for every method, on text that neither the ledger nor a page measures on.

The rule, fixed before any search: on the tuning pools (`tasks.POOLS`), with calibration and measured text drawn by the
tuning seeds, the setting with the best mean of the task's first metric wins; on a tie the earlier one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lab import tuning
from lab.experiment import Progress
from lab.quantization.comparison import columns
from lab.quantization.pipeline import Method
from lab.quantization.tasks import EvaluationTask

SEEDS = (0, 1)
RULE = "best mean of the first metric over the tuning seeds, on the tuning pools; the earlier one on a tie"
Grid = Sequence[Mapping[str, Any]]
Kinds = Mapping[str, tuple[type[Method], Mapping[str, Any]]]  # by name: the method, and the settings that stay


def search(
    task: EvaluationTask,
    grids: Mapping[str, tuple[type[Method], Mapping[str, Any], Grid]],
    *,
    progress: Progress,
    jobs: int = 1,
) -> dict[str, Any]:
    """Tune methods on a task; grids: name -> (method, settings that stay, settings to try). Returns what `lab.tuning.search`
    does."""
    metric, better = next(iter(task.metrics.items()))
    kinds: Kinds = {name: (kind, fixed) for name, (kind, fixed, _) in grids.items()}
    return tuning.search(
        functools.partial(_score, task, kinds, metric),
        {name: grid for name, (_, _, grid) in grids.items()},
        SEEDS,
        metric=metric,
        better="higher" if better == "higher" else "lower",
        rule=RULE,
        progress=progress,
        jobs=jobs,
    )


def _score(
    task: EvaluationTask,
    kinds: Kinds,
    metric: str,
    name: str,
    settings: Mapping[str, Any],
    seed: int,
    *,
    progress: Progress,
) -> dict[str, float]:
    """The metric of one trial; NaN where the fit breaks down."""
    kind, fixed = kinds[name]
    try:
        values = columns(task, {"method": kind(**fixed, **settings)}, seed=seed, progress=progress)
    except ValueError:
        return {metric: math.nan}
    return {metric: values[f"method_{metric}"]}
