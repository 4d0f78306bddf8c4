"""The room's experiments, studies and races: what pages show, what the ledger measures, what `lab bench` times."""

from __future__ import annotations

from lab.clustering.sp2ot.digits_experiment import DigitsConfig, DigitsResult, run_digits
from lab.clustering.sp2ot.features_experiment import Features, FeaturesConfig, FeaturesResult, run_features
from lab.clustering.sp2ot.growth_experiment import GrowthConfig, GrowthResult, run_growth
from lab.clustering.sp2ot.plan_experiment import PlanConfig, PlanResult, run_plan
from lab.clustering.sp2ot.races import solver
from lab.clustering.sp2ot.studies import measure_certificate, measure_descent, measure_digits

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

EXPERIMENTS = (run_plan, run_growth, run_digits, run_features)
STUDIES = (measure_digits, measure_descent, measure_certificate)
RACES = (solver,)
