"""The room's experiments, studies and races: what pages show, what the ledger measures, what `lab bench` times."""

from __future__ import annotations

from lab.circuits.transcoders.evidence.races import coding, path_search, training_step
from lab.circuits.transcoders.evidence.spans_study import measure
from lab.circuits.transcoders.evidence.stdlib_study import measure_circuits, measure_identity, measure_pareto
from lab.circuits.transcoders.views.case.experiment import CaseConfig, CaseResult, run_case
from lab.circuits.transcoders.views.circuit.cut_experiment import CutResult, Cuts, run_cut
from lab.circuits.transcoders.views.circuit.experiment import CircuitConfig, CircuitResult, run_circuit
from lab.circuits.transcoders.views.features.experiment import FeatureConfig, FeatureResult, run_features
from lab.circuits.transcoders.views.pareto.experiment import ParetoConfig, ParetoResult, run_pareto
from lab.circuits.transcoders.views.rating.experiment import RatingConfig, RatingResult, run_rating
from lab.circuits.transcoders.views.wiring.experiment import WiringConfig, WiringResult, run_wiring
from lab.circuits.transcoders.views.years.experiment import YearsConfig, YearsResult, run_years

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

EXPERIMENTS = (run_circuit, run_cut, run_years, run_pareto, run_features, run_wiring, run_case, run_rating)
STUDIES = (measure_pareto, measure_circuits, measure, measure_identity)
RACES = (coding, training_step, path_search)
