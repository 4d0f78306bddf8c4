"""Experiments `layer`, `model`, `search` and `matrix` of PTQ1.61: whole input channels at four bits, the rest binary."""

from __future__ import annotations

from typing import Any, ClassVar

from lab.experiment import Config, Progress, experiment, knob
from lab.quantization.flexround import tuned as flexround
from lab.quantization.layer_experiment import LayerConfig, LayerResult, baselines_around, run_layer
from lab.quantization.matrix_experiment import Key, Matrices, MatrixConfig, method_knob, run_matrix, salient_knob
from lab.quantization.model_experiment import ModelConfig, ModelResult, run_model
from lab.quantization.ptq1_61.method import PTQ161
from lab.quantization.ptq1_61.methods import METHODS
from lab.quantization.ptq1_61.salience import Score
from lab.quantization.ptq1_61.tuned import CHOSEN
from lab.quantization.search_experiment import SearchConfig, SearchResult, run_search


class PTQKnobs(Config):
    """PTQ1.61's own knobs."""

    salient: int = knob(
        20, "share of the input channels that keep more bits", unit="%", ge=0, le=60, label="salient share"
    )
    steps: int = knob(300, "optimizer steps a block; the paper takes 2,560", ge=0, le=3000)
    high_bits: int = knob(4, "bits of a salient channel's weights", ge=2, le=8)
    nlc: bool = knob(True, "look at the angle of the output too", label="angular loss")
    score: Score = knob("absmax", "what makes a channel salient; absmax is the paper's")

    def settings(self) -> dict[str, Any]:
        """What the method takes of them."""
        named = {name: getattr(self, name) for name in ("steps", "high_bits", "nlc", "score")}
        return {"ratio": self.salient / 100} | named


class PTQLayerConfig(PTQKnobs, LayerConfig):
    """PTQ1.61's knobs on one layer."""

    primary: ClassVar[tuple[str, ...]] = ("salient", "steps", "outliers", "part")

    salient: int = knob(
        20, "share of the input channels that keep more bits", unit="%", ge=0, le=40, label="salient share"
    )
    steps: int = knob(20, "optimizer steps on the scales", ge=0, le=60)
    score: Score = knob(
        "absmax",
        "what makes a channel salient: its largest input (the paper), its mean size, the loss it causes; chance, or the "
        "smallest input, to see what the choice is worth",
    )
    mean: bool = knob(True, "give each row a mean, as the code does and the paper's Eq. 9 does not")


class PTQModelConfig(PTQKnobs, ModelConfig):
    """PTQ1.61's knobs on a whole model."""

    primary: ClassVar[tuple[str, ...]] = ("salient", "steps", "subject", "peers")

    lr_scale: float = knob(5e-4, "of AdamW, for alpha", ge=1e-5, le=1e-1, scale="log", label="rate of the scales")
    lr_rot: float = knob(1e-2, "of AdamW, for r1 and r2", ge=1e-5, le=1e-1, scale="log", label="rate of the rotations")


class PTQMatrixConfig(MatrixConfig):
    """Begins with PTQ1.61."""

    method: Key = method_knob("ptq1-61")
    salient: int = salient_knob(20)


@experiment("layer", "One layer", cost="live", small={"steps": 2})
def layer(config: PTQLayerConfig, *, progress: Progress) -> LayerResult:
    """Quantize the layer by PTQ1.61 and by the baselines."""
    ours = PTQ161(**config.settings(), mean=config.mean)
    return run_layer(config, ours, baselines_around(2), progress=progress)


@experiment("model", "A whole model", cost="run", small={"subject": "stdlib-gpt", "peers": "a few", "steps": 2})
def model(config: PTQModelConfig, *, progress: Progress) -> ModelResult:
    """Quantize the model by PTQ1.61 as configured, then by its peers."""
    ours = PTQ161(**config.settings(), lr_scale=config.lr_scale, lr_rot=config.lr_rot)
    tuned = {"ptq1-61": CHOSEN["minilm"]} | flexround.CHOSEN
    return run_model(config, [ours], METHODS, tuned, progress=progress)


@experiment("search", "Search with 1.7 bits", cost="live")
def search(config: SearchConfig, *, progress: Progress) -> SearchResult:
    """Find documents by MiniLM in full precision, and quantized by PTQ1.61."""
    return run_search(config, "minilm-ptq1-61", progress=progress)


@experiment("matrix", "Your own matrix", cost="run", small={"steps": 2})
def matrix(config: PTQMatrixConfig, inputs: Matrices, *, progress: Progress) -> LayerResult:
    """Quantize a matrix of your own."""
    return run_matrix(config, inputs, METHODS, progress=progress)
