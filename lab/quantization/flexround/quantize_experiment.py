"""Experiments `layer`, `model`, `search` and `matrix` of FlexRound: each weight divided by a learned factor of its own."""

from __future__ import annotations

from typing import ClassVar, Literal

from lab.experiment import Config, Progress, experiment, knob
from lab.quantization.flexround.method import FlexRound
from lab.quantization.flexround.methods import METHODS
from lab.quantization.flexround.tuned import CHOSEN
from lab.quantization.layer_experiment import LayerConfig, LayerResult, baselines_around, run_layer
from lab.quantization.matrix_experiment import Key, Matrices, MatrixConfig, method_knob, run_matrix
from lab.quantization.model_experiment import ModelConfig, ModelResult, run_model
from lab.quantization.ptq1_61 import tuned as ptq1_61
from lab.quantization.search_experiment import SearchConfig, SearchResult, run_search


class FlexKnobs(Config):
    """FlexRound's own knobs."""

    bits: int = knob(4, "bits of a weight", ge=2, le=8)
    steps: int = knob(40, "optimizer steps", ge=0, le=100)
    per: Literal["tensor", "row"] = knob(
        "tensor", "what shares a scale: the whole layer, or each output", label="a scale for"
    )
    rate: float = knob(3e-3, "of Adam, falling as a cosine", ge=1e-4, le=3e-2, scale="log", label="learning rate")
    learn_s1: bool = knob(True, "learn the grid's step as well", label="learn the step")
    use_s3: bool = knob(True, "give each output a factor of its own", label="factor a row")

    def method(self) -> FlexRound:
        """The method with these settings."""
        return FlexRound(
            bits=self.bits,
            steps=self.steps,
            per=self.per,
            lr=self.rate,
            learn_s1=self.learn_s1,
            use_s3=self.use_s3,
        )


class FlexLayerConfig(FlexKnobs, LayerConfig):
    """FlexRound's knobs on one layer."""

    primary: ClassVar[tuple[str, ...]] = ("bits", "steps", "per", "part")


class FlexModelConfig(FlexKnobs, ModelConfig):
    """FlexRound's knobs on a whole model."""

    primary: ClassVar[tuple[str, ...]] = ("bits", "steps", "subject", "peers")

    bits: int = knob(3, "bits of a weight", ge=2, le=8)
    steps: int = knob(200, "optimizer steps a block; the code takes 5,000", ge=0, le=5000)
    per: Literal["tensor", "row"] = knob("row", "what shares a scale: a layer, or each output", label="a scale for")


class FlexMatrixConfig(MatrixConfig):
    """Begins with FlexRound."""

    method: Key = method_knob("flexround")


@experiment("layer", "One layer", cost="live", small={"steps": 2})
def layer(config: FlexLayerConfig, *, progress: Progress) -> LayerResult:
    """Quantize the layer by FlexRound and by the baselines."""
    return run_layer(config, config.method(), baselines_around(config.bits), progress=progress)


@experiment("model", "A whole model", cost="run", small={"subject": "stdlib-gpt", "peers": "a few", "steps": 2})
def model(config: FlexModelConfig, *, progress: Progress) -> ModelResult:
    """Quantize the model by FlexRound as configured, then by its peers."""
    tuned = {"ptq1-61": ptq1_61.CHOSEN["minilm"]} | CHOSEN
    return run_model(config, [config.method()], METHODS, tuned, progress=progress)


@experiment("search", "Search with 3 bits", cost="live")
def search(config: SearchConfig, *, progress: Progress) -> SearchResult:
    """Find documents by MiniLM in full precision, and quantized by FlexRound."""
    return run_search(config, "minilm-flexround", progress=progress)


@experiment("matrix", "Your own matrix", cost="run", small={"steps": 2})
def matrix(config: FlexMatrixConfig, inputs: Matrices, *, progress: Progress) -> LayerResult:
    """Quantize a matrix of your own."""
    return run_matrix(config, inputs, METHODS, progress=progress)
