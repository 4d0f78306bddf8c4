"""The room's experiments, studies and races: what pages show, what the ledger measures, what `lab bench` times."""

from __future__ import annotations

from lab.experiment import Experiment, Race
from lab.quantization.flexround import digits_experiment, quantize_experiment, races, rounding_experiment
from lab.quantization.flexround.digits_experiment import DigitsConfig, DigitsResult
from lab.quantization.flexround.digits_studies import DIGITS_STUDY
from lab.quantization.flexround.quantize_experiment import FlexLayerConfig, FlexMatrixConfig, FlexModelConfig
from lab.quantization.flexround.rounding_experiment import RoundingConfig, RoundingResult
from lab.quantization.flexround.studies import STUDIES as TEXT_STUDIES
from lab.quantization.layer_experiment import LayerResult
from lab.quantization.matrix_experiment import Matrices
from lab.quantization.model_experiment import ModelResult
from lab.quantization.search_experiment import SearchConfig, SearchResult

__all__ = ["EXPERIMENTS", "RACES", "STUDIES"]

EXPERIMENTS = (
    Experiment("flexround", "layer", "One layer", "live", FlexLayerConfig, LayerResult, quantize_experiment.layer),
    Experiment(
        "flexround",
        "rounding",
        "Rounding under the lens",
        "live",
        RoundingConfig,
        RoundingResult,
        rounding_experiment.run,
    ),
    Experiment("flexround", "model", "A whole model", "run", FlexModelConfig, ModelResult, quantize_experiment.model),
    Experiment("flexround", "digits", "A network for digits", "run", DigitsConfig, DigitsResult, digits_experiment.run),
    Experiment(
        "flexround", "search", "Search with 3 bits", "live", SearchConfig, SearchResult, quantize_experiment.search
    ),
    Experiment(
        "flexround",
        "matrix",
        "Your own matrix",
        "run",
        FlexMatrixConfig,
        LayerResult,
        quantize_experiment.matrix,
        inputs=Matrices,
    ),
)

STUDIES = (*TEXT_STUDIES, DIGITS_STUDY)

RACES = (Race("flexround", "iteration", "An iteration against the formula written plainly", races.flexround_iteration),)
