"""Experiment `layer` of PB-LLM: one layer, most of its weights binary, some salient ones at more bits."""

from __future__ import annotations

from typing import ClassVar, Literal

from lab.experiment import Progress, knob
from lab.quantization.bits import paper_bits_pb_llm
from lab.quantization.layer_experiment import LayerConfig, LayerResult, plain_peers, run_layer
from lab.quantization.pb_llm.method import PBLLM


class PBLayerConfig(LayerConfig):
    """PB-LLM's knobs on one layer."""

    primary: ClassVar[tuple[str, ...]] = ("salient", "metric", "gptq", "part")

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


def run(config: PBLayerConfig, *, progress: Progress) -> LayerResult:
    """Quantize the layer by PB-LLM and by the plain methods."""
    low = 1 - config.salient / 100
    ours = PBLLM(low_frac=low, high_bits=config.high_bits, metric=config.metric, stats=config.stats, gptq=config.gptq)
    return run_layer(config, ours, plain_peers(3), paper_bits_pb_llm(low, config.high_bits), progress=progress)
