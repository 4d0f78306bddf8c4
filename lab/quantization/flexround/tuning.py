"""Four methods of learned rounding tuned with nine trials each, see `lab.quantization.tuning`, at the ledger's length."""

from __future__ import annotations

from itertools import product
from typing import Any

from lab.experiment import Progress
from lab.quantization import tuning
from lab.quantization.subjects import MiniLM

STEPS = 60  # a block
FIXED: dict[str, Any] = {"bits": 4, "per": "tensor", "steps": STEPS}
CHOSEN: dict[str, dict[str, Any]] = {
    "flexround": {"lr": 0.006},
    "adaquant": {"lr": 0.01},
    "signround": {"lr": 0.011666666666666665},
    "adaround": {"lr": 0.03, "regularizer": 1e-05},
}
_RATES = [{"lr": rate} for rate in (3e-3, 3e-4, 1e-3, 2e-3, 4e-3, 6e-3, 1e-2, 2e-2, 3e-2)]
GRIDS: dict[str, tuple[str, dict[str, Any], list[dict[str, Any]]]] = {
    "flexround": ("flexround", FIXED, _RATES),
    "adaquant": ("adaquant", FIXED, _RATES),
    "signround": (
        "signround",
        FIXED,
        [{"lr": rate / STEPS} for rate in (1.0, 0.1, 0.2, 0.35, 0.5, 0.7, 1.4, 2.0, 3.0)],
    ),
    "adaround": (
        "adaround",
        FIXED,
        [{"lr": rate, "regularizer": weight} for rate, weight in product((3e-2, 1e-2, 1e-1), (1e-5, 1e-6, 1e-4))],
    ),
}


def tune(*, progress: Progress, jobs: int = 1) -> dict[str, Any]:
    """Run the search; about forty minutes on one core."""
    return tuning.search(MiniLM(part="tuning", pairs=200), GRIDS, progress=progress, jobs=jobs)
