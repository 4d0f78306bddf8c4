"""The coders of one layer of `stdlib-gpt` that the ledger compares, at claim size, and the held-out texts for it.

What is tuned is tuned on the first half of the held-out modules, what is claimed is measured on the second.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from lab.circuits.transcoders.coders.coder import Kind, Transcoder
from lab.circuits.transcoders.coders.training import CoderTraining, Site, Task, train_coders
from lab.circuits.transcoders.models.stdlib import StdlibTexts, hooked
from lab.circuits.transcoders.models.stdlib_assets import LAYER
from lab.experiment import Progress

LAMBDAS: dict[Kind, tuple[float, ...]] = {"transcoder": (5e-5, 1e-4, 2e-4, 4e-4), "sae": (4e-4, 6e-4, 8e-4, 1.2e-3)}
WIDTH = 1024  # features at claim size
CLAIM = CoderTraining(steps=1500, warm_up=100)
MEASURED, LENGTH = 64, 128  # texts


def texts(half: str, count: int, length: int, seed: int) -> Int[Tensor, "n t"]:
    """Texts drawn at random from one half of the held-out modules: "tuning" the first, "ledger" the second."""
    held = StdlibTexts("held_out", length)
    middle = len(held) // 2
    low, high = (0, middle - length) if half == "tuning" else (middle + length, len(held))
    generator = torch.Generator().manual_seed(1_000_003 * seed + length)
    return held[torch.randint(low, high, (count,), generator=generator)]


def sweep(kind: Kind, rate: float, seed: int, training: CoderTraining, progress: Progress) -> dict[str, Transcoder]:
    """Coders of one kind at four sparsity coefficients, trained together."""
    sites = {f"{kind}_{place}": Site(LAYER, kind, WIDTH, lam) for place, lam in enumerate(LAMBDAS[kind])}
    return train_coders(Task(hooked(), StdlibTexts("seen"), sites, replace(training, lr=rate), seed), progress=progress)
