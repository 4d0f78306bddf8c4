"""The room's experiments, studies and races: what pages show, what the ledger measures, what `lab bench` times."""

from __future__ import annotations

from lab.circuits.transcoders.evidence import races, spans_study, spans_tuning, stdlib_study, stdlib_tuning
from lab.circuits.transcoders.views.case.experiment import CASE, CaseConfig, CaseResult
from lab.circuits.transcoders.views.circuit.cut_experiment import CUT, CutResult, Cuts
from lab.circuits.transcoders.views.circuit.experiment import CIRCUIT, CircuitConfig, CircuitResult
from lab.circuits.transcoders.views.features.experiment import FEATURES, FeatureConfig, FeatureResult
from lab.circuits.transcoders.views.pareto.experiment import PARETO, ParetoConfig, ParetoResult
from lab.circuits.transcoders.views.rating.experiment import RATING, RatingConfig, RatingResult
from lab.circuits.transcoders.views.wiring.experiment import WIRING, WiringConfig, WiringResult
from lab.circuits.transcoders.views.years.experiment import YEARS, YearsConfig, YearsResult
from lab.experiment import Race, Study

__all__ = [
    "EXPERIMENTS",
    "RACES",
    "STUDIES",
    "CaseConfig",
    "CaseResult",
    "CircuitConfig",
    "CircuitResult",
    "CutResult",
    "Cuts",
    "FeatureConfig",
    "FeatureResult",
    "ParetoConfig",
    "ParetoResult",
    "RatingConfig",
    "RatingResult",
    "WiringConfig",
    "WiringResult",
    "YearsConfig",
    "YearsResult",
]

SEEDS = tuple(range(100, 105))

EXPERIMENTS = (CIRCUIT, CUT, YEARS, PARETO, FEATURES, WIRING, CASE, RATING)

STUDIES = (
    Study(
        "transcoders",
        "pareto",
        "Sparse and faithful on stdlib-gpt",
        stdlib_study.measure_pareto,
        "training",
        seeds=SEEDS,
        seconds=400.0,
        tune=stdlib_tuning.tune,
        chosen=stdlib_study.CHOSEN,
    ),
    Study(
        "transcoders",
        "circuits",
        "All MLPs replaced, paths cut",
        stdlib_study.measure_circuits,
        "training",
        seeds=SEEDS,
        seconds=300.0,
    ),
    Study(
        "transcoders",
        "spans",
        "Year spans: sweep, greater-than, labels",
        spans_study.measure,
        "training",
        seeds=SEEDS,
        seconds=240.0,
        tune=spans_tuning.tune,
        chosen=spans_study.CHOSEN,
    ),
    Study("transcoders", "identity", "Books that close", stdlib_study.measure_identity, None, seconds=20.0),
)

RACES = (
    Race("transcoders", "coding", "Encoding and decoding", races.coding),
    Race("transcoders", "step", "A training step", races.training_step),
    Race("transcoders", "paths", "Path search", races.path_search),
)
