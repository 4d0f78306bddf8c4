"""Experiment `model` of FlexRound: a whole model by FlexRound, beside every other method, at its true cost."""

from __future__ import annotations

from typing import ClassVar, Literal

from lab.experiment import Progress, knob
from lab.quantization.flexround.method import FlexRound
from lab.quantization.model_experiment import ModelConfig, ModelResult, run_model


class FlexModelConfig(ModelConfig):
    """FlexRound's knobs on a whole model."""

    primary: ClassVar[tuple[str, ...]] = ("bits", "steps", "subject", "peers")

    bits: int = knob(3, "bits of a weight", ge=2, le=8)
    steps: int = knob(200, "optimizer steps a block; the code takes 5,000", ge=0, le=5000)
    per: Literal["tensor", "row"] = knob("row", "what shares a scale: a layer, or each output", label="a scale for")
    rate: float = knob(3e-3, "of Adam, falling as a cosine", ge=1e-4, le=3e-2, scale="log", label="learning rate")
    learn_s1: bool = knob(True, "learn the grid's step as well", label="learn the step")
    use_s3: bool = knob(True, "give each output a factor of its own", label="factor a row")


def run(config: FlexModelConfig, *, progress: Progress) -> ModelResult:
    """Quantize the model by FlexRound as configured, then by its peers."""
    ours = FlexRound(
        bits=config.bits,
        steps=config.steps,
        per=config.per,
        lr=config.rate,
        learn_s1=config.learn_s1,
        use_s3=config.use_s3,
    )
    return run_model(config, [ours], progress=progress)
