"""Four methods of learned rounding tuned with nine trials each, see `lab.quantization.tuning`, at the ledger's length."""

from __future__ import annotations

from itertools import product
from typing import Any

from lab.experiment import Progress
from lab.quantization import tuning
from lab.quantization.flexround.method import FlexRound
from lab.quantization.flexround.tuned import FIXED, STEPS
from lab.quantization.pipeline import Method
from lab.quantization.rounding import AdaQuant, AdaRound, SignRound
from lab.quantization.tasks import MiniLM

_RATES = [{"lr": rate} for rate in (3e-3, 3e-4, 1e-3, 2e-3, 4e-3, 6e-3, 1e-2, 2e-2, 3e-2)]
GRIDS: dict[str, tuple[type[Method], dict[str, Any], list[dict[str, Any]]]] = {
    "flexround": (FlexRound, FIXED, _RATES),
    "adaquant": (AdaQuant, FIXED, _RATES),
    "signround": (
        SignRound,
        FIXED,
        [{"lr": rate / STEPS} for rate in (1.0, 0.1, 0.2, 0.35, 0.5, 0.7, 1.4, 2.0, 3.0)],
    ),
    "adaround": (
        AdaRound,
        FIXED,
        [{"lr": rate, "regularizer": weight} for rate, weight in product((3e-2, 1e-2, 1e-1), (1e-5, 1e-6, 1e-4))],
    ),
}


def tune(*, progress: Progress, jobs: int = 1) -> dict[str, Any]:
    """Run the search; about forty minutes on one core."""
    return tuning.search(MiniLM(split="tuning", pairs=200), GRIDS, progress=progress, jobs=jobs)
