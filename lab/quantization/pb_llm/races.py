"""PB-GPTQ raced against the published loop, at equal results: float32, on layers of MiniLM with its calibration."""

from __future__ import annotations

from typing import Any

import torch

from lab.experiment import Progress, race
from lab.quantization import races
from lab.quantization.baselines import GPTQ
from lab.quantization.one_layer import NAME, layer_inputs
from lab.quantization.pb_llm.method import PBLLM
from lab.quantization.pb_llm.published import published_pb_gptq
from lab.quantization.pipeline import Method
from lab.quantization.statistics import DAMPING
from lab.racing import answer, paired, row, threads

WHOLE: dict[str, Method] = {"GPTQ, 4 bits": GPTQ(), "PB-GPTQ, 10 % salient": PBLLM()}


@race("pb-gptq", "PB-GPTQ against the published loop", rows=("layer-1536x384", "qkv-384x384"))
def pb_gptq(*, quick: bool, progress: Progress) -> dict[str, Any]:
    """PB-GPTQ against the published loop: a layer of 1536 x 384, and q, k and v, which share one factorisation."""
    attention = tuple(f"attention.self.{name}" for name in ("query", "key", "value"))
    with threads(races.THREADS):
        progress(0.0, "a layer of 1536 x 384")
        rows = [_row("layer-1536x384", ("intermediate.dense",), quick)]
        progress(0.5, "q, k and v")
        rows.append(_row("qkv-384x384", attention, quick))
    return answer(rows, threads=races.THREADS, whole_minilm={} if quick else races.whole_models(WHOLE))


def _row(key: str, layers: tuple[str, ...], quick: bool) -> dict[str, Any]:
    works = [layer_inputs("minilm", 2, layer) for layer in layers]
    weights = [work.weight(NAME) for work in works]
    seen = works[0].statistics()[NAME]
    hessian = seen.hessian()
    ours = PBLLM(stats="official")

    def method() -> list[torch.Tensor]:
        seen.forget()
        return [ours.layer(weight, seen).dequantize() for weight in weights]

    def peer() -> list[torch.Tensor]:
        return [published_pb_gptq(weight, hessian, damping=DAMPING, scale_dtype=torch.float16) for weight in weights]

    apart = [(a - b).abs() for a, b in zip(method(), peer(), strict=True)]
    return row(
        key,
        "PB-GPTQ",
        "the published loop",
        2.0,
        paired(method, peer, races.repeats(quick)),
        largest_difference=max(float(each.max()) for each in apart),
        entries_apart=sum(int((each > 1e-5).sum()) for each in apart),
        entries=sum(weight.numel() for weight in weights),
    )
