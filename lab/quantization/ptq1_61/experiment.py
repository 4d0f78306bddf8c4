"""The room's experiments, studies and races: what pages show, what the ledger measures, what `lab bench` times."""

from __future__ import annotations

from lab.experiment import Experiment, Race
from lab.quantization.layer_experiment import LayerResult
from lab.quantization.matrix_experiment import Matrices
from lab.quantization.model_experiment import ModelResult
from lab.quantization.ptq1_61 import bill_experiment, preprocess_experiment, quantize_experiment, races
from lab.quantization.ptq1_61.bill_experiment import BillConfig, BillResult
from lab.quantization.ptq1_61.preprocess_experiment import PreprocessConfig, PreprocessResult
from lab.quantization.ptq1_61.quantize_experiment import PTQLayerConfig, PTQMatrixConfig, PTQModelConfig
from lab.quantization.ptq1_61.studies import STUDIES
from lab.quantization.search_experiment import SearchConfig, SearchResult

__all__ = ["EXPERIMENTS", "RACES", "STUDIES"]

EXPERIMENTS = (
    Experiment("ptq1-61", "layer", "One layer", "live", PTQLayerConfig, LayerResult, quantize_experiment.layer),
    Experiment("ptq1-61", "bill", "What a bit costs", "live", BillConfig, BillResult, bill_experiment.run),
    Experiment("ptq1-61", "model", "A whole model", "run", PTQModelConfig, ModelResult, quantize_experiment.model),
    Experiment(
        "ptq1-61", "search", "Search with 1.7 bits", "live", SearchConfig, SearchResult, quantize_experiment.search
    ),
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
        quantize_experiment.matrix,
        inputs=Matrices,
    ),
)

RACES = (Race("ptq1-61", "step", "A step against the published one", races.ptq_step),)
