"""The room's experiments, studies and races: what pages show, what the ledger measures, what `lab bench` times."""

from __future__ import annotations

from lab.experiment import Experiment, Race
from lab.quantization.layer_experiment import LayerResult
from lab.quantization.matrix_experiment import Matrices, MatrixConfig
from lab.quantization.model_experiment import ModelResult
from lab.quantization.pb_llm import quantize_experiment, races, training_experiment
from lab.quantization.pb_llm.quantize_experiment import PBLayerConfig, PBModelConfig
from lab.quantization.pb_llm.studies import STUDIES
from lab.quantization.pb_llm.training_experiment import TrainingConfig, TrainingResult
from lab.quantization.search_experiment import SearchConfig, SearchResult

__all__ = ["EXPERIMENTS", "RACES", "STUDIES"]

EXPERIMENTS = (
    Experiment("pb-llm", "layer", "One layer", "live", PBLayerConfig, LayerResult, quantize_experiment.layer),
    Experiment("pb-llm", "model", "A whole model", "run", PBModelConfig, ModelResult, quantize_experiment.model),
    Experiment(
        "pb-llm", "search", "Search with 2.8 bits", "live", SearchConfig, SearchResult, quantize_experiment.search
    ),
    Experiment("pb-llm", "training", "Training on", "run", TrainingConfig, TrainingResult, training_experiment.run),
    Experiment(
        "pb-llm",
        "matrix",
        "Your own matrix",
        "run",
        MatrixConfig,
        LayerResult,
        quantize_experiment.matrix,
        inputs=Matrices,
    ),
)

RACES = (Race("pb-llm", "pb-gptq", "PB-GPTQ against the published loop", races.pb_gptq),)
