"""Experiment `model` of PB-LLM: a whole model by PB-LLM, beside every other method, at its true cost."""

from __future__ import annotations

from typing import ClassVar, Literal

from lab.experiment import Progress, knob
from lab.quantization.model_experiment import ModelConfig, ModelResult, run_model
from lab.quantization.pb_llm.method import PBLLM


class PBModelConfig(ModelConfig):
    """PB-LLM's knobs on a whole model."""

    primary: ClassVar[tuple[str, ...]] = ("salient", "metric", "subject", "peers")

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


def run(config: PBModelConfig, *, progress: Progress) -> ModelResult:
    """Quantize the model by PB-LLM as configured, then by its peers."""
    ours = PBLLM(
        low_frac=1 - config.salient / 100,
        high_bits=config.high_bits,
        metric=config.metric,
        stats=config.stats,
        gptq=config.gptq,
    )
    return run_model(config, [ours], progress=progress)
