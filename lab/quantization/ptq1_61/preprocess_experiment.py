"""Experiment `preprocess` of PTQ1.61: the paper's five-row ablation on a small GPT-2, restorative LoRA included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lab.experiment import Config, Progress, experiment, knob, part
from lab.quantization.blocks import find_blocks, linears, weight_of
from lab.quantization.pipeline import Quantized, quantize_model
from lab.quantization.ptq1_61.method import PTQ161
from lab.quantization.ptq1_61.restorative import restorative_lora
from lab.quantization.ptq1_61.tuned import CHOSEN, STEPS
from lab.quantization.tasks import StdlibGPT

if TYPE_CHECKING:
    import pandas as pd

ROWS = ("one bit, nothing learned", "with the mask", "preprocessed, one bit", "mask and learned scales", "all three")
BATCH = 8
SEEN = 96  # rows and columns of the weight that is shown


class PreprocessConfig(Config):
    """How long LoRA and the scales are trained."""

    primary: ClassVar[tuple[str, ...]] = ("lora_steps", "steps", "seed")

    lora_steps: int = knob(
        200, "of LoRA on the quantized model; the paper takes about 10,000", ge=1, le=2000, label="LoRA steps"
    )
    steps: int = knob(STEPS, "optimizer steps on the scales, a block", ge=0, le=2000)
    rate: float = knob(
        1e-3, "of LoRA; the paper has 1e-4 for its 10,000 steps", ge=1e-5, le=1e-2, scale="log", label="LoRA rate"
    )
    seed: int = knob(0, "draws calibration, training text and measured text", ge=0, le=999)


@dataclass(frozen=True)
class PreprocessResult:
    """full, preprocessed: perplexity before any quantization, and of the model that LoRA made; table: step (of `ROWS`),
    perplexity, bits; salience_before, salience_after (96, 96): of a weight, the share of the 5 % of the entries largest in
    size, 0 or 1; columns: how unevenly these fall on the input channels, before and after (variance over mean of a
    channel's count: 1 where they fall at random)."""

    full: float
    preprocessed: float
    table: pd.DataFrame
    salience_before: np.ndarray
    salience_after: np.ndarray
    columns: tuple[float, float]


@experiment("preprocess", "Preprocessing", cost="run", small={"lora_steps": 1, "steps": 1})
def preprocess(config: PreprocessConfig, *, progress: Progress) -> PreprocessResult:
    """Five quantizations and one LoRA training; about two minutes."""
    import pandas as pd

    table: list[dict[str, float | str]] = []
    preprocessed: nn.Module | None = None
    task = StdlibGPT().drawn(config.seed)
    for name, done, model in ablation(config, task, progress):
        preprocessed = model if model is not None else preprocessed
        table.append(
            {"step": name, "perplexity": task.measure(done.model)["perplexity"], "bits": done.storage().per_weight}
        )
    assert preprocessed is not None
    before, after = (_largest(model) for model in (task.model(), preprocessed))
    progress(1.0, "done")
    return PreprocessResult(
        task.measure(task.model())["perplexity"],
        task.measure(preprocessed)["perplexity"],
        pd.DataFrame(table).set_index("step").loc[list(ROWS)].reset_index(),
        before[:SEEN, :SEEN].numpy().astype(np.uint8),
        after[:SEEN, :SEEN].numpy().astype(np.uint8),
        (_unevenness(before), _unevenness(after)),
    )


def ablation(
    config: PreprocessConfig, task: StdlibGPT, progress: Progress
) -> Iterator[tuple[str, Quantized, nn.Module | None]]:
    """(row of `ROWS`, the quantized model, the model before it if LoRA made that), as they are finished."""
    learned = PTQ161(steps=config.steps, **CHOSEN["stdlib-gpt"])
    mask, ones = replace(learned, steps=0), replace(learned, steps=0, ratio=0.0)
    calibration = task.calibration(config.seed)
    model = task.model()

    def quantized(number: int, method: PTQ161, of: nn.Module) -> Quantized:
        return quantize_model(of, method, calibration, progress=part(progress, number / 7, 1 / 7, ROWS[min(number, 4)]))

    yield ROWS[0], quantized(0, ones, model), None
    yield ROWS[1], quantized(1, mask, model), None
    plain = quantized(2, learned, model)
    yield ROWS[3], plain, None
    windows = task.seen(BATCH * config.lora_steps, 10_000 + config.seed)
    batches = [{"input_ids": some} for some in windows.split(BATCH)]
    better = restorative_lora(
        plain,
        batches,
        steps=config.lora_steps,
        lr=config.rate,
        seed=config.seed,
        progress=part(progress, 3 / 7, 2 / 7, "LoRA"),
    )
    yield ROWS[2], quantized(5, ones, better), better
    yield ROWS[4], quantized(6, learned, better), better


def _largest(model: nn.Module) -> Tensor:
    """Which entries of the second block's first MLP layer are among its largest 5 %, (o, i)."""
    block = find_blocks(model)[1][1]
    weight = weight_of(linears(block)["mlp.c_fc"]).detach().abs()
    return weight > torch.quantile(weight.flatten(), 0.95)


def _unevenness(marked: Tensor) -> float:
    count = marked.float().sum(0)
    return float(count.var() / count.mean())
