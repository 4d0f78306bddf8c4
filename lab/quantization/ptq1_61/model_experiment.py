"""Experiment `model` of PTQ1.61: a whole model by PTQ1.61, beside every other method, at its true cost."""

from __future__ import annotations

from typing import ClassVar

from lab.experiment import Progress, knob
from lab.quantization.model_experiment import ModelConfig, ModelResult, run_model
from lab.quantization.ptq1_61.method import PTQ161
from lab.quantization.ptq1_61.salience import Score


class PTQModelConfig(ModelConfig):
    """PTQ1.61's knobs on a whole model."""

    primary: ClassVar[tuple[str, ...]] = ("salient", "steps", "subject", "peers")

    salient: int = knob(
        20, "share of the input channels that keep more bits", unit="%", ge=0, le=60, label="salient share"
    )
    steps: int = knob(300, "optimizer steps a block; the paper takes 2,560", ge=0, le=3000)
    high_bits: int = knob(4, "bits of a salient channel's weights", ge=2, le=8)
    nlc: bool = knob(True, "look at the angle of the output too", label="angular loss")
    score: Score = knob("absmax", "what makes a channel salient; absmax is the paper's")
    lr_scale: float = knob(5e-4, "of AdamW, for alpha", ge=1e-5, le=1e-1, scale="log", label="rate of the scales")
    lr_rot: float = knob(1e-2, "of AdamW, for r1 and r2", ge=1e-5, le=1e-1, scale="log", label="rate of the rotations")


def run(config: PTQModelConfig, *, progress: Progress) -> ModelResult:
    """Quantize the model by PTQ1.61 as configured, then by its peers."""
    ours = PTQ161(
        ratio=config.salient / 100,
        steps=config.steps,
        high_bits=config.high_bits,
        nlc=config.nlc,
        score=config.score,
        lr_scale=config.lr_scale,
        lr_rot=config.lr_rot,
    )
    return run_model(config, [ours], progress=progress)
