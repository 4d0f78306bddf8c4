"""The room's experiments, studies and races: what pages show, what the ledger measures, what `lab bench` times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.experiment import Experiment, Progress, Race, silent
from lab.quantization import matrix_experiment, races, search_experiment
from lab.quantization.flexround import digits_experiment, layer_experiment, model_experiment, rounding_experiment
from lab.quantization.flexround.digits_experiment import DigitsConfig, DigitsResult
from lab.quantization.flexround.digits_study import DIGITS_STUDY
from lab.quantization.flexround.layer_experiment import FlexLayerConfig
from lab.quantization.flexround.model_experiment import FlexModelConfig
from lab.quantization.flexround.rounding_experiment import RoundingConfig, RoundingResult
from lab.quantization.flexround.studies import STUDIES as TEXT_STUDIES
from lab.quantization.layer_experiment import LayerResult
from lab.quantization.matrix_experiment import Matrices, MatrixConfig
from lab.quantization.model_experiment import ModelResult
from lab.quantization.search_experiment import SearchConfig, SearchResult

__all__ = [
    "EXPERIMENTS",
    "RACES",
    "STUDIES",
    "DigitsConfig",
    "DigitsResult",
    "FlexLayerConfig",
    "FlexMatrixConfig",
    "FlexModelConfig",
    "RoundingConfig",
    "RoundingResult",
]


class FlexMatrixConfig(MatrixConfig):
    """Begins with FlexRound."""

    method: matrix_experiment.Key = matrix_experiment.method_knob("flexround")


def _search(config: SearchConfig, *, progress: Progress) -> SearchResult:
    return search_experiment.run(config, "minilm-flexround", progress=progress)


def _race(*, quick: bool = False, progress: Progress = silent) -> Mapping[str, Any]:
    return races.flexround_iteration(quick=quick, progress=progress)


EXPERIMENTS = (
    Experiment("flexround", "layer", "One layer", "live", FlexLayerConfig, LayerResult, layer_experiment.run),
    Experiment(
        "flexround",
        "rounding",
        "Rounding under the lens",
        "live",
        RoundingConfig,
        RoundingResult,
        rounding_experiment.run,
    ),
    Experiment("flexround", "model", "A whole model", "run", FlexModelConfig, ModelResult, model_experiment.run),
    Experiment("flexround", "digits", "A network for digits", "run", DigitsConfig, DigitsResult, digits_experiment.run),
    Experiment("flexround", "search", "Search with 3 bits", "live", SearchConfig, SearchResult, _search),
    Experiment(
        "flexround",
        "matrix",
        "Your own matrix",
        "run",
        FlexMatrixConfig,
        LayerResult,
        matrix_experiment.run,
        inputs=Matrices,
    ),
)

STUDIES = (*TEXT_STUDIES, DIGITS_STUDY)

RACES = (Race("flexround", "iteration", "An iteration against the formula written plainly", _race),)
