"""Experiments `layer`, `model`, `search` and `matrix` of PB-LLM: most weights binary, some salient ones at more bits."""

from __future__ import annotations

from typing import ClassVar, Literal

from lab.experiment import Config, Progress, experiment, knob
from lab.quantization.flexround import tuned as flexround
from lab.quantization.layer_experiment import LayerConfig, LayerResult, baselines_around, run_layer
from lab.quantization.matrix_experiment import Matrices, MatrixConfig, run_matrix
from lab.quantization.model_experiment import ModelConfig, ModelResult, run_model
from lab.quantization.pb_llm.method import PBLLM
from lab.quantization.pb_llm.methods import METHODS
from lab.quantization.ptq1_61 import tuned as ptq1_61
from lab.quantization.search_experiment import SearchConfig, SearchResult, run_search


class PBKnobs(Config):
    """PB-LLM's own knobs."""

    salient: int = knob(10, "share of the weights that keep more bits", unit="%", ge=0, le=50, label="salient share")
    metric: Literal["hessian", "magnitude", "hessian_exact"] = knob(
        "hessian", "what makes a weight salient: the loss it causes (as the code or as the paper has it), or its size"
    )
    gptq: bool = knob(True, "let later columns make up for the error of earlier ones", label="compensation")
    high_bits: int = knob(8, "bits of a salient weight", ge=2, le=8)
    stats: Literal["masked", "official"] = knob(
        "masked",
        "over what the scale is averaged: binary weights alone, or the whole row with zeros in between",
        label="statistics",
    )

    def method(self) -> PBLLM:
        """The method with these settings."""
        low = 1 - self.salient / 100
        return PBLLM(low_frac=low, high_bits=self.high_bits, metric=self.metric, stats=self.stats, gptq=self.gptq)


class PBLayerConfig(PBKnobs, LayerConfig):
    """PB-LLM's knobs on one layer."""

    primary: ClassVar[tuple[str, ...]] = ("salient", "metric", "gptq", "part")


class PBModelConfig(PBKnobs, ModelConfig):
    """PB-LLM's knobs on a whole model."""

    primary: ClassVar[tuple[str, ...]] = ("salient", "metric", "subject", "peers")


@experiment("layer", "One layer", cost="live")
def layer(config: PBLayerConfig, *, progress: Progress) -> LayerResult:
    """Quantize the layer by PB-LLM and by the baselines."""
    return run_layer(config, config.method(), baselines_around(3), progress=progress)


@experiment("model", "A whole model", cost="run", small={"subject": "stdlib-gpt", "peers": "a few"})
def model(config: PBModelConfig, *, progress: Progress) -> ModelResult:
    """Quantize the model by PB-LLM as configured, then by its peers."""
    tuned = {"ptq1-61": ptq1_61.CHOSEN["minilm"]} | flexround.CHOSEN
    return run_model(config, [config.method()], METHODS, tuned, progress=progress)


@experiment("search", "Search with 2.8 bits", cost="live")
def search(config: SearchConfig, *, progress: Progress) -> SearchResult:
    """Find documents by MiniLM in full precision, and quantized by PB-LLM."""
    return run_search(config, "minilm-pb-llm", progress=progress)


@experiment("matrix", "Your own matrix", cost="run", small={"steps": 2})
def matrix(config: MatrixConfig, inputs: Matrices, *, progress: Progress) -> LayerResult:
    """Quantize a matrix of your own."""
    return run_matrix(config, inputs, METHODS, progress=progress)
