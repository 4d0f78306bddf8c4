"""The room's experiments, studies and races: what pages show, what the ledger measures, what `lab bench` times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.experiment import Experiment, Progress, Race, silent
from lab.quantization import matrix_experiment, races, search_experiment
from lab.quantization.layer_experiment import LayerResult
from lab.quantization.matrix_experiment import Matrices, MatrixConfig
from lab.quantization.model_experiment import ModelResult
from lab.quantization.ptq1_61 import bill_experiment, layer_experiment, model_experiment, preprocess_experiment
from lab.quantization.ptq1_61.bill_experiment import BillConfig, BillResult
from lab.quantization.ptq1_61.layer_experiment import PTQLayerConfig
from lab.quantization.ptq1_61.model_experiment import PTQModelConfig
from lab.quantization.ptq1_61.preprocess_experiment import PreprocessConfig, PreprocessResult
from lab.quantization.ptq1_61.studies import STUDIES
from lab.quantization.search_experiment import SearchConfig, SearchResult

__all__ = [
    "EXPERIMENTS",
    "RACES",
    "STUDIES",
    "BillConfig",
    "BillResult",
    "PTQLayerConfig",
    "PTQMatrixConfig",
    "PTQModelConfig",
    "PreprocessConfig",
    "PreprocessResult",
]


class PTQMatrixConfig(MatrixConfig):
    """Begins with PTQ1.61."""

    method: matrix_experiment.Key = matrix_experiment.method_knob("ptq1-61")
    salient: int = matrix_experiment.salient_knob(20)


def _search(config: SearchConfig, *, progress: Progress) -> SearchResult:
    return search_experiment.run(config, "minilm-ptq1-61", progress=progress)


def _race(*, quick: bool = False, progress: Progress = silent) -> Mapping[str, Any]:
    return races.ptq_step(quick=quick, progress=progress)


EXPERIMENTS = (
    Experiment("ptq1-61", "layer", "One layer", "live", PTQLayerConfig, LayerResult, layer_experiment.run),
    Experiment("ptq1-61", "bill", "What a bit costs", "live", BillConfig, BillResult, bill_experiment.run),
    Experiment("ptq1-61", "model", "A whole model", "run", PTQModelConfig, ModelResult, model_experiment.run),
    Experiment("ptq1-61", "search", "Search with 1.7 bits", "live", SearchConfig, SearchResult, _search),
    Experiment(
        "ptq1-61",
        "preprocess",
        "Preprocessing",
        "run",
        PreprocessConfig,
        PreprocessResult,
        preprocess_experiment.run,
    ),
    Experiment(
        "ptq1-61",
        "matrix",
        "Your own matrix",
        "run",
        PTQMatrixConfig,
        LayerResult,
        matrix_experiment.run,
        inputs=Matrices,
    ),
)

RACES = (Race("ptq1-61", "step", "A step against the published one", _race),)
