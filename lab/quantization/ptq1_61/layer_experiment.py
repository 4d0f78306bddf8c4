"""Experiment `layer` of PTQ1.61: one layer, whole input channels kept at four bits, the rest binary with learned scales."""

from __future__ import annotations

from typing import ClassVar, Literal

from lab.experiment import Progress, knob
from lab.quantization.layer_experiment import LayerConfig, LayerResult, plain_peers, run_layer
from lab.quantization.ptq1_61.accountant import paper_bits
from lab.quantization.ptq1_61.method import PTQ161


class PTQLayerConfig(LayerConfig):
    """PTQ1.61's knobs on one layer."""

    primary: ClassVar[tuple[str, ...]] = ("salient", "steps", "outliers", "part")

    salient: int = knob(
        20, "share of the input channels that keep more bits", unit="%", ge=0, le=40, label="salient share"
    )
    steps: int = knob(20, "optimizer steps on the scales", ge=0, le=60)
    high_bits: int = knob(4, "bits of a salient channel's weights", ge=2, le=8)
    nlc: bool = knob(True, "look at the angle of the output too", label="angular loss")
    score: Literal["absmax", "absmean", "hessian", "random", "smallest"] = knob(
        "absmax",
        "what makes a channel salient: its largest input (the paper), its mean size, the loss it causes; chance, or the "
        "smallest input, to see what the choice is worth",
    )
    mean: bool = knob(True, "give each row a mean, as the code does and the paper's Eq. 9 does not")


def run(config: PTQLayerConfig, *, progress: Progress) -> LayerResult:
    """Quantize the layer by PTQ1.61 and by the plain methods."""
    ratio = config.salient / 100
    ours = PTQ161(
        ratio=ratio,
        steps=config.steps,
        high_bits=config.high_bits,
        nlc=config.nlc,
        score=config.score,
        mean=config.mean,
    )
    return run_layer(
        config, ours, plain_peers(2), paper_bits(ratio=ratio, high_bits=config.high_bits), progress=progress
    )
