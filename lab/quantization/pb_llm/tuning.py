"""PB-LLM and GPTQ tuned with nine trials each, see `lab.quantization.tuning`; each way to train on with five.

What differs in one setting alone (share, salience, compensation) is compared at the paper's settings.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from lab import engine
from lab.experiment import Progress
from lab.quantization import tuning
from lab.quantization.baselines import GPTQ
from lab.quantization.pb_llm.method import PBLLM
from lab.quantization.pb_llm.training_experiment import ARMS, Arm, ended
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
    return tuning.search(MiniLM(part="tuning", pairs=200), GRIDS, progress=progress, jobs=jobs)


def tune_training(*, progress: Progress, jobs: int = 1) -> dict[str, Any]:
    """The rate of each arm: the least held-out perplexity on the tuning modules; about a quarter of an hour on one core."""
    trials: list[dict[str, Any]] = []
    chosen: dict[str, float] = {}
    for arm in ARMS:
        for rate in RATES:
            progress(len(trials) / len(ARMS) / len(RATES), f"{arm.name}, rate {rate:g}")
            rows = engine.replicate(functools.partial(_perplexity, arm, rate), tuning.SEEDS[:1], jobs)
            values = [round(row.values["perplexity"], 4) for row in rows]
            trials.append({"method": arm.key, "settings": {"rate": rate}, "mean": float(np.mean(values))})
        own = [trial for trial in trials if trial["method"] == arm.key]
        chosen[arm.key] = min(own, key=lambda trial: trial["mean"])["settings"]["rate"]
    return {"chosen": chosen, "trials": trials, "seeds": list(tuning.SEEDS[:1]), "rule": "least held-out perplexity"}


def _perplexity(arm: Arm, rate: float, seed: int, *, progress: Progress) -> dict[str, float]:
    return {"perplexity": ended(arm, rate, seed, StdlibGPT(part="tuning", stretches=64).drawn(seed))[0]}
