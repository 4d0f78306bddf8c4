"""FlexRound raced against its formula written plainly, at equal results: float32, on a block of MiniLM."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch

from lab.experiment import Progress, race
from lab.quantization import races
from lab.quantization.flexround.method import FlexRound
from lab.quantization.flexround.published import PublishedFlexRound
from lab.quantization.flexround.quantizer import FlexRoundQuantizer
from lab.quantization.grid import Per
from lab.quantization.pipeline import BlockInputs, Method, block_inputs
from lab.quantization.reconstruction import Fit, LearnedWeight, reconstruct
from lab.quantization.tasks import MiniLM
from lab.racing import answer, paired, row, threads

BLOCK, BATCH = 0, 4
SCALES: tuple[Per, ...] = ("tensor", "row")
PEERS = "FlexRound", "the formula in autograd, plain Adam"
TARGET = 2.0
WHOLE: dict[str, Method] = {"FlexRound, 4 bits, 200 steps a block": FlexRound(steps=200)}
Quantizers = Mapping[str, FlexRoundQuantizer]


@race(
    "iteration",
    "An iteration against the formula written plainly",
    rows=tuple(f"{what}-{per}" for per in SCALES for what in ("quantizers", "iteration")),
)
def flexround_iteration(*, quick: bool, progress: Progress) -> dict[str, Any]:
    """FlexRound against its formula written plainly: the quantizers with Adam alone, and whole iterations on a block."""
    rows = []
    task = MiniLM(count=32)
    with threads(races.THREADS):
        work = block_inputs(task.model(), BLOCK, task.calibration(0, batch=BATCH))
        for number, per in enumerate(SCALES):
            progress(number / 2, f"a scale for each {per}")
            fitted = FlexRound(per=per, steps=races.STEPS, init="minmax")
            ours: Quantizers = {name: fitted.learned(work.weight(name)) for name in work.layers}
            formula: Quantizers = {
                name: PublishedFlexRound(work.weight(name), per=per, init="minmax") for name in work.layers
            }
            alone = paired(_alone(ours, fused=True), _alone(formula, fused=False), races.repeats(quick))
            whole = paired(_whole(work, ours, fused=True), _whole(work, formula, fused=False), races.repeats(quick))
            rows.append(row(f"quantizers-{per}", *PEERS, TARGET, alone))
            rows.append(row(f"iteration-{per}", *PEERS, TARGET, whole))
    memory = {} if quick else races.whole_models(WHOLE)
    return answer(rows, threads=races.THREADS, steps=races.STEPS, whole_minilm=memory)


def _adam(quantizers: Mapping[str, LearnedWeight], fused: bool) -> torch.optim.Optimizer:
    learned = [each for quantizer in quantizers.values() for each in quantizer.parameters() if each.requires_grad]
    return torch.optim.Adam(learned, lr=3e-3, fused=fused)


def _alone(quantizers: Quantizers, *, fused: bool) -> Callable[[], None]:
    """Steps of the quantizers and their optimizer without any block: the loss is a fixed direction of each weight."""
    optimizer = _adam(quantizers, fused)
    directions = {name: torch.randn_like(quantizer()) for name, quantizer in quantizers.items()}

    def run() -> None:
        for _ in range(races.STEPS):
            optimizer.zero_grad()
            torch.stack(
                [(quantizer() * directions[name]).sum() for name, quantizer in quantizers.items()]
            ).sum().backward()
            optimizer.step()

    return run


def _whole(work: BlockInputs, quantizers: Quantizers, *, fused: bool) -> Callable[[], list[float]]:
    """Whole iterations on the block, from the quantizers' start, as often as it is called."""

    def run() -> list[float]:
        fresh: dict[str, LearnedWeight] = {name: copy.deepcopy(quantizer) for name, quantizer in quantizers.items()}
        return reconstruct(work, fresh, _adam(fresh, fused), Fit(races.STEPS, cosine=True))

    return run
