"""The room's experiments, studies and races: what pages show, what the ledger measures, what `lab bench` times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.clustering.sp2ot import digits_experiment, features_experiment, growth_experiment, plan_experiment, races
from lab.clustering.sp2ot.digits_experiment import DigitsConfig, DigitsResult
from lab.clustering.sp2ot.features_experiment import Features, FeaturesConfig, FeaturesResult
from lab.clustering.sp2ot.growth_experiment import GrowthConfig, GrowthResult
from lab.clustering.sp2ot.plan_experiment import PlanConfig, PlanResult
from lab.clustering.sp2ot.studies import STUDIES
from lab.experiment import Experiment, Progress, Race, silent

__all__ = [
    "EXPERIMENTS",
    "RACES",
    "STUDIES",
    "DigitsConfig",
    "DigitsResult",
    "Features",
    "FeaturesConfig",
    "FeaturesResult",
    "GrowthConfig",
    "GrowthResult",
    "PlanConfig",
    "PlanResult",
]


def _race(*, quick: bool = False, progress: Progress = silent) -> Mapping[str, Any]:
    return races.race(progress, quick)


EXPERIMENTS = (
    Experiment("sp2ot", "plan", "One pseudo-labelling problem", "live", PlanConfig, PlanResult, plan_experiment.run),
    Experiment("sp2ot", "growth", "The mass grows", "live", GrowthConfig, GrowthResult, growth_experiment.run),
    Experiment(
        "sp2ot",
        "digits",
        "Seven clusterings of long-tailed digits",
        "run",
        DigitsConfig,
        DigitsResult,
        digits_experiment.run,
    ),
    Experiment(
        "sp2ot",
        "features",
        "Your own table",
        "run",
        FeaturesConfig,
        FeaturesResult,
        features_experiment.run,
        inputs=Features,
        write=features_experiment.write,
    ),
)

RACES = (Race("sp2ot", "solver", "The solver against plain scaling and POT", _race),)
