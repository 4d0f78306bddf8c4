"""PB-LLM and GPTQ tuned with nine trials each, see `lab.quantization.tuning`; each way to train on with five.

What differs in one setting alone (share, salience, compensation) is compared at the paper's settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lab.tuning
from lab.experiment import Progress
from lab.quantization import tuning
from lab.quantization.baselines import GPTQ
from lab.quantization.pb_llm.method import PBLLM
from lab.quantization.pb_llm.training_experiment import ARMS, ended
from lab.quantization.pipeline import Method
from lab.quantization.tasks import MiniLM, StdlibGPT

RATES = (3e-4, 1e-3, 2e-3, 3e-3, 6e-3)
GRIDS: dict[str, tuple[type[Method], dict[str, Any], list[dict[str, Any]]]] = {
    "pb-llm": (
        PBLLM,
        {"low_frac": 0.9},
        [
            {"metric": metric, "stats": stats, "damping": damping}
            for stats, damping in (("masked", 0.01), ("official", 0.01), ("masked", 0.1))
            for metric in ("hessian", "magnitude", "hessian_exact")
        ],
    ),
    "gptq": (
        GPTQ,
        {"bits": 3},
        [{"damping": damping} for damping in (0.01, 0.001, 0.002, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5)],
    ),
}


def tune(*, progress: Progress, jobs: int = 1) -> dict[str, Any]:
    """Run the search; about five minutes."""
    return tuning.search(MiniLM(split="tuning", pairs=200), GRIDS, progress=progress, jobs=jobs)


def tune_training(*, progress: Progress, jobs: int = 1) -> dict[str, Any]:
    """The rate of each arm: the least held-out perplexity on the tuning modules; about a quarter of an hour on one core."""
    grids = {arm.key: [{"rate": rate} for rate in RATES] for arm in ARMS}
    rule, seeds = "least held-out perplexity", tuning.SEEDS[:1]
    found = lab.tuning.search(
        _perplexity, grids, seeds, metric="perplexity", better="lower", rule=rule, progress=progress, jobs=jobs
    )
    return found | {"chosen": {key: settings["rate"] for key, settings in found["chosen"].items()}}


def _perplexity(key: str, settings: Mapping[str, float], seed: int, *, progress: Progress) -> dict[str, float]:
    arm = next(arm for arm in ARMS if arm.key == key)
    task = StdlibGPT(split="tuning", stretches=64).drawn(seed)
    return {"perplexity": ended(arm, settings["rate"], seed, task)[0]}
