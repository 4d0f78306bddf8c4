"""A step of PTQ1.61 raced against the published one, at equal results: float32, on a block of MiniLM."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from lab.experiment import Progress, race
from lab.quantization import races
from lab.quantization.pipeline import BlockInputs, block_inputs
from lab.quantization.ptq1_61.method import PTQ161
from lab.quantization.ptq1_61.published import PublishedPTQ161
from lab.quantization.tasks import MiniLM
from lab.racing import answer, paired, row, threads

BLOCK, BATCHES = 1, (1, 4, 8)  # windows in a batch


@race("step", "A step against the published one", rows=tuple(f"block-{batch}x48" for batch in BATCHES))
def ptq_step(*, quick: bool, progress: Progress) -> dict[str, Any]:
    """A step of PTQ1.61 against the published one, which rounds and takes signs anew: a block of MiniLM, three batch sizes."""
    rows = []
    task = MiniLM(count=32)
    with threads(races.THREADS):
        for number, batch in enumerate(BATCHES):
            progress(number / len(BATCHES), f"{batch} x 48 tokens")
            work = block_inputs(task.model(), BLOCK, task.calibration(0, batch=batch))
            method, peer = _fit(work, PTQ161(steps=races.STEPS)), _fit(work, PublishedPTQ161(steps=races.STEPS))
            apart = max(abs(a - b) for a, b in zip(method(), peer(), strict=True))
            timed = paired(method, peer, races.repeats(quick))
            names = "PTQ1.61 step", "the published step"
            rows.append(row(f"block-{batch}x48", *names, 1.3, timed, largest_difference=apart))
    return answer(rows, threads=races.THREADS, steps=races.STEPS)


def _fit(work: BlockInputs, method: PTQ161) -> Callable[[], list[float]]:
    """A fit of the block from its start, as often as it is called."""
    start = method.learned(work)
    return lambda: method.fit(work, copy.deepcopy(start))
