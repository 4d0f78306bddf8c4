"""The room's experiments, studies and races: what pages show, what the ledger measures, what `lab bench` times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.experiment import Experiment, Progress, Race, silent
from lab.quantization import matrix_experiment, races, search_experiment
from lab.quantization.layer_experiment import LayerResult
from lab.quantization.matrix_experiment import Matrices, MatrixConfig
from lab.quantization.model_experiment import ModelResult
from lab.quantization.pb_llm import layer_experiment, model_experiment, training_experiment
from lab.quantization.pb_llm.layer_experiment import PBLayerConfig
from lab.quantization.pb_llm.model_experiment import PBModelConfig
from lab.quantization.pb_llm.studies import STUDIES
from lab.quantization.pb_llm.training_experiment import TrainingConfig, TrainingResult
from lab.quantization.search_experiment import SearchConfig, SearchResult

__all__ = ["EXPERIMENTS", "RACES", "STUDIES", "PBLayerConfig", "PBModelConfig", "TrainingConfig", "TrainingResult"]


def _search(config: SearchConfig, *, progress: Progress) -> SearchResult:
    return search_experiment.run(config, "minilm-pb-llm", progress=progress)


def _race(*, quick: bool = False, progress: Progress = silent) -> Mapping[str, Any]:
    return races.pb_gptq(quick=quick, progress=progress)


EXPERIMENTS = (
    Experiment("pb-llm", "layer", "One layer", "live", PBLayerConfig, LayerResult, layer_experiment.run),
    Experiment("pb-llm", "model", "A whole model", "run", PBModelConfig, ModelResult, model_experiment.run),
    Experiment("pb-llm", "search", "Search with 2.8 bits", "live", SearchConfig, SearchResult, _search),
    Experiment("pb-llm", "training", "Training on", "run", TrainingConfig, TrainingResult, training_experiment.run),
    Experiment(
        "pb-llm",
        "matrix",
        "Your own matrix",
        "run",
        MatrixConfig,
        LayerResult,
        matrix_experiment.run,
        inputs=Matrices,
    ),
)

RACES = (Race("pb-llm", "pb-gptq", "PB-GPTQ against the published loop", _race),)
