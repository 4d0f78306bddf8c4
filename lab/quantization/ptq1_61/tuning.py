"""PTQ1.61's rates tuned with nine trials on each model, see `lab.quantization.tuning`; PB-LLM and GPTQ, which it is
compared with, come with their own nine (`lab.quantization.pb_llm.tuning`)."""

from __future__ import annotations

from itertools import product
from typing import Any

from lab.experiment import Progress, part
from lab.quantization import tuning
from lab.quantization.ptq1_61.method import PTQ161
from lab.quantization.ptq1_61.tuned import STEPS
from lab.quantization.tasks import MiniLM, StdlibGPT

_RATES = [
    {"lr_scale": scale, "lr_rot": rotation} for scale, rotation in product((5e-4, 1e-3, 3e-3), (1e-3, 1e-2, 3e-2))
]


def tune(*, progress: Progress, jobs: int = 1) -> dict[str, Any]:
    """Run the search on both models; about a quarter of an hour on one core."""
    both: dict[str, Any] = {"chosen": {}, "trials": []}
    tasks = (MiniLM(split="tuning", pairs=200), StdlibGPT(split="tuning", stretches=64))
    for number, task in enumerate(tasks):
        grid = {task.key: (PTQ161, {"steps": STEPS}, _RATES)}
        own = part(progress, number / len(tasks), 1 / len(tasks))
        one = tuning.search(task, grid, progress=own, jobs=jobs)
        both["chosen"] |= one["chosen"]
        both["trials"] += one["trials"]
    return both | {"seeds": list(tuning.SEEDS), "rule": tuning.RULE}
