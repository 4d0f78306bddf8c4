"""Experiment `layer` of FlexRound: one layer, each weight's rounding learned by dividing it by a factor of its own."""

from __future__ import annotations

from typing import ClassVar, Literal

from lab.experiment import Progress, knob
from lab.quantization.flexround.method import FlexRound
from lab.quantization.layer_experiment import LayerConfig, LayerResult, plain_peers, run_layer


class FlexLayerConfig(LayerConfig):
    """FlexRound's knobs on one layer."""

    primary: ClassVar[tuple[str, ...]] = ("bits", "steps", "per", "part")

    bits: int = knob(4, "bits of a weight", ge=2, le=8)
    steps: int = knob(40, "optimizer steps", ge=0, le=100)
    per: Literal["tensor", "row"] = knob(
        "tensor", "what shares a scale: the whole layer, or each output", label="a scale for"
    )
    rate: float = knob(3e-3, "of Adam, falling as a cosine", ge=1e-4, le=3e-2, scale="log", label="learning rate")
    learn_s1: bool = knob(True, "learn the grid's step as well", label="learn the step")
    use_s3: bool = knob(True, "give each output a factor of its own", label="factor a row")


def run(config: FlexLayerConfig, *, progress: Progress) -> LayerResult:
    """Quantize the layer by FlexRound and by the plain methods."""
    ours = FlexRound(
        bits=config.bits,
        steps=config.steps,
        per=config.per,
        lr=config.rate,
        learn_s1=config.learn_s1,
        use_s3=config.use_s3,
    )
    return run_layer(config, ours, plain_peers(config.bits), float(config.bits), progress=progress)
