"""Experiment `training` of PB-LLM: a small GPT-2 trained on with most weights binary, salient ones frozen or not."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from lab.experiment import Config, Progress, experiment, knob
from lab.models.stdlib_gpt import next_token_loss
from lab.quantization.blocks import find_blocks, linears
from lab.quantization.pb_llm.training import partially_binarize
from lab.quantization.tasks import StdlibGPT

if TYPE_CHECKING:
    import pandas as pd

BATCH, EVERY = 8, 10  # windows in a step; steps between two points of the curve


@dataclass(frozen=True)
class Arm:
    """One way to train: the share of salient weights in percent, and whether they are frozen."""

    salient: float
    freeze: bool

    @property
    def name(self) -> str:
        """As it stands in tables: `2 %, frozen`; without salient weights there is nothing to freeze."""
        return f"{self.salient:g} %, {'frozen' if self.freeze else 'trained'}" if self.salient else "0 %"

    @property
    def key(self) -> str:
        """As the ledger's columns begin: `frozen_2`."""
        return f"{'frozen' if self.freeze else 'trained'}_{self.salient:g}"


ARMS = (Arm(0, True), Arm(2, True), Arm(2, False), Arm(10, True), Arm(10, False))


class TrainingConfig(Config):
    """How long, and how fast."""

    primary: ClassVar[tuple[str, ...]] = ("steps", "rate", "seed")

    steps: int = knob(200, "optimizer steps for each of the five arms; the paper takes 10,000", ge=20, le=2000)
    rate: float = knob(1e-3, "of AdamW, falling as a cosine", ge=1e-5, le=1e-2, scale="log", label="learning rate")
    seed: int = knob(0, "draws the text", ge=0, le=999)


@dataclass(frozen=True)
class TrainingResult:
    """full: held-out perplexity before; curves: arm, salient, frozen (0 or 1), step, loss (mean training loss, nats, since
    the point before); ends: arm, salient, frozen, at_start, perplexity (held-out, before and after training)."""

    full: float
    curves: pd.DataFrame
    ends: pd.DataFrame


@experiment("training", "Training on", cost="run", small={"steps": 20})
def training(config: TrainingConfig, *, progress: Progress) -> TrainingResult:
    """Train the five arms on the same text; about five minutes."""
    import pandas as pd

    task = StdlibGPT().drawn(config.seed)
    full = task.measure(task.model())["perplexity"]
    curves: list[dict[str, float | str]] = []
    ends: list[dict[str, float | str]] = []

    def result() -> TrainingResult:
        return TrainingResult(full, pd.DataFrame(curves), pd.DataFrame(ends))

    for number, arm in enumerate(ARMS):
        named: dict[str, float | str] = {"arm": arm.name, "salient": arm.salient, "frozen": int(arm.freeze)}
        model = binarized(task.model(), arm)
        start = task.measure(model)["perplexity"]
        for step, loss in trained(model, config, task):
            curves.append({**named, "step": step, "loss": loss})
            progress(
                (number + step / config.steps) / len(ARMS), f"{arm.name}, loss {loss:.3f}", result() if ends else None
            )
        ends.append({**named, "at_start": start, "perplexity": task.measure(model.eval())["perplexity"]})
    progress(1.0, "done")
    return result()


def binarized(model: nn.Module, arm: Arm) -> nn.Module:
    """A copy whose blocks' layers are partly binary; embeddings and head stay as they are, and are not trained."""
    made = copy.deepcopy(model).requires_grad_(False)
    for block in find_blocks(made)[1]:
        for layer in linears(block).values():
            partially_binarize(layer, 1 - arm.salient / 100, freeze=arm.freeze)
    return made


def trained(model: nn.Module, config: TrainingConfig, task: StdlibGPT) -> Iterator[tuple[int, float]]:
    """Train in place; yields (step, mean loss since the last point) every few steps."""
    windows = task.seen(config.steps * BATCH, config.seed)
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, config.rate, weight_decay=0.0, fused=True)
    losses: list[float] = []
    model.train()
    for step, batch in enumerate(_batches(windows), start=1):
        for group in optimizer.param_groups:
            group["lr"] = config.rate * (1 + math.cos(math.pi * (step - 1) / config.steps)) / 2
        loss = next_token_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if step % EVERY == 0 or step == config.steps:
            yield step, sum(losses) / len(losses)
            losses = []


def ended(arm: Arm, rate: float, seed: int, task: StdlibGPT) -> tuple[float, float, float]:
    """Held-out perplexity after training an arm, the training loss after a quarter of the steps, and the last one."""
    config = TrainingConfig(seed=seed, rate=rate)
    model = binarized(task.model(), arm)
    curve = list(trained(model, config, task))
    early = next(loss for step, loss in curve if step >= config.steps / 4)
    return task.measure(model.eval())["perplexity"], early, curve[-1][1]


def _batches(windows: Int[Tensor, "w t"]) -> Iterator[Int[Tensor, "b t"]]:
    yield from windows.split(BATCH)
