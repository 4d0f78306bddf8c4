r"""Experiment `digits`: a small convolutional network on handwritten digits, each layer on one grid, its rounding learned.

Three convolutions, the second one depthwise as in MobileNet, and a linear layer. One channel of the depthwise layer is made
``huge`` times larger and the layer behind it reads that channel as many times smaller, so the network computes the same; but
the one grid of the layer must now span it. The weights are parametrizations of torch's, fitted together so that the output
survives on calibration images, whose labels are not looked at:

.. math:: \min_\theta \frac{\sum \|f_{\hat W(\theta)}(x) - f(x)\|^2}{\sum \|f(x)\|^2} + \text{the method's own penalty}.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from lab.datasets import digits as images_of_digits
from lab.experiment import Config, Progress, experiment, knob, no_progress, part
from lab.quantization.flexround.quantizer import FlexRoundQuantizer
from lab.quantization.flexround.tuned import DIGITS, DIGITS_STEPS
from lab.quantization.rounding import (
    AdaQuantQuantizer,
    AdaRoundQuantizer,
    LearnedRounding,
    SignRoundQuantizer,
    SignSGD,
)

if TYPE_CHECKING:
    import pandas as pd

Pool = Literal["ledger", "tuning"]
Learner = Literal["flexround", "flexround_no_s4", "adaround", "adaquant", "signround"]
TITLES: dict[str, str] = {
    "rtn": "round to nearest",
    "adaround": "AdaRound",
    "adaquant": "AdaQuant",
    "signround": "SignRound",
    "flexround_no_s4": "FlexRound without s₄",
    "flexround": "FlexRound",
}
LEARNERS: tuple[Learner, ...] = ("adaround", "adaquant", "signround", "flexround_no_s4", "flexround")
BITS = tuple(range(2, 9))
POOLS: dict[Pool, tuple[slice, int]] = {"ledger": (slice(0, 1250), 450), "tuning": (slice(1250, None), 200)}
WIDTH, HUGE, DEPTHWISE = 16, 8.0, 1  # channels; times; the stage whose channel is made larger
EPOCHS, BATCH, RATE = 30, 32, 3e-3  # of the training
CALIBRATION = 512  # images without labels


class DigitsConfig(Config):
    """How long the rounding is learned, what is fitted at once, and how huge the one channel is."""

    primary: ClassVar[tuple[str, ...]] = ("huge", "steps", "fit", "seed")

    huge: float = knob(
        HUGE,
        "how many times larger one channel of the depthwise layer is made; the network computes the same",
        ge=1,
        le=64,
        scale="log",
        label="one huge channel",
    )
    steps: int = knob(DIGITS_STEPS, "optimizer steps of each method at each number of bits", ge=0, le=1000)
    fit: Literal["network", "layer"] = knob(
        "network", "what is fitted at once: all layers to the last output, or each layer to its own", label="fitted"
    )
    calibration: int = knob(CALIBRATION, "training images that calibrate, without their labels", ge=32, le=800)
    epochs: int = knob(EPOCHS, "of the network's training", ge=1, le=60)
    seed: int = knob(0, "draws the images, the network's start and the calibration", ge=0, le=999)


@dataclass(frozen=True)
class DigitsResult:
    """Six ways to round the network's weights, at 2 to 8 bits.

    full: accuracy of the network as trained, on n_test images; huge: times that the one channel was made larger.
    scores: method, bits, accuracy, error (share of the last output's energy lost), both on the test images.
    layers: layer, weights (count), largest, typical (root mean square).
    s4: bits, channel, factor (learned), size (largest weight): of the input channels of the layer behind the depthwise one.
    """

    full: float
    n_test: int
    huge: float
    scores: pd.DataFrame
    layers: pd.DataFrame
    s4: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Task:
    """A trained network, evaluated, with the images that calibrate and those that it is measured on."""

    network: nn.Sequential
    calibration: Float[Tensor, "c 1 8 8"]
    images: Float[Tensor, "n 1 8 8"]
    labels: Int[Tensor, " n"]

    def accuracy(self, network: nn.Module) -> float:
        """Share of the measured images that a network names right."""
        with torch.no_grad():
            return float((network(self.images).argmax(1) == self.labels).float().mean())

    def error(self, network: nn.Module) -> float:
        """Share of the output's energy that a changed network loses on the measured images."""
        with torch.no_grad():
            full = self.network(self.images)
            return float((network(self.images) - full).square().sum() / full.square().sum())


def build(width: int = WIDTH) -> nn.Sequential:
    """Four stages: convolution, depthwise convolution, convolution, linear layer; ReLU between, so scales pass through."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width), nn.ReLU()),
        nn.Sequential(nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        nn.Sequential(nn.Linear(2 * width * 16, 10)),
    )


def layer_of(stage: nn.Module) -> Any:
    """The convolution or linear layer of a stage."""
    return next(stage.children())


@torch.no_grad()
def enlarge(network: nn.Sequential, times: float) -> int:
    """Make one channel of the depthwise layer larger, and the next layer's input from it smaller; which channel it was.

    The one whose weights are largest, so that the layer's range is ``times`` what it was.
    """
    depthwise, behind = layer_of(network[DEPTHWISE]), layer_of(network[DEPTHWISE + 1])
    channel = int(depthwise.weight.abs().flatten(1).amax(1).argmax())
    depthwise.weight[channel] *= times
    depthwise.bias[channel] *= times
    behind.weight[:, channel] /= times
    return channel


def prepare(
    seed: int,
    *,
    pool: Pool = "ledger",
    huge: float = HUGE,
    calibration: int = CALIBRATION,
    epochs: int = EPOCHS,
    progress: Progress = no_progress,
) -> Task:
    """Split a pool's images anew, train the network anew, enlarge its channel; all drawn by the seed."""
    images, labels = (torch.from_numpy(each) for each in images_of_digits.digits())
    fixed = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))
    rows, measured = POOLS[pool]
    generator = torch.Generator().manual_seed(seed)
    mine = fixed[rows]
    mine = mine[torch.randperm(len(mine), generator=generator)]
    train, test = mine[measured:], mine[:measured]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build()
    x, y = images[:, None], labels
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    steps = epochs * (len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(epochs):
        progress(epoch / epochs, f"training, epoch {epoch + 1}")
        shuffled = train[torch.randperm(len(train), generator=generator)]
        for some in shuffled.split(BATCH)[: len(train) // BATCH]:
            optimizer.zero_grad()
            functional.cross_entropy(network(x[some]), y[some]).backward()
            optimizer.step()
            schedule.step()
    network.eval().requires_grad_(False)
    enlarge(network, huge)
    return Task(network, x[train[:calibration]], x[test], y[test])


def quantizer(key: str, weight: Tensor, bits: int, settings: Mapping[str, Any]) -> LearnedRounding:
    """A weight's rounding by a method, one grid for all of it; "rtn" is the start of any of them."""
    if key in ("flexround", "flexround_no_s4", "rtn"):
        return FlexRoundQuantizer(weight, bits, per="tensor", use_s4=key == "flexround" and weight.ndim == 4)
    if key == "adaround":
        return AdaRoundQuantizer(weight, bits, per="tensor", init="mse", regularizer=settings["regularizer"])
    return {"adaquant": AdaQuantQuantizer, "signround": SignRoundQuantizer}[key](weight, bits, per="tensor", init="mse")


def quantize(
    task: Task,
    key: str,
    bits: int,
    *,
    settings: Mapping[str, Any] | None = None,
    steps: int = DIGITS_STEPS,
    fit: Literal["network", "layer"] = "network",
    seed: int = 0,
    progress: Progress = no_progress,
) -> tuple[nn.Sequential, list[LearnedRounding]]:
    """The network with every weight rounded by a method, and the roundings in the order of its layers.

    key: "rtn" or one of `LEARNERS`; settings: rate (and regularizer), `DIGITS`'s by default. Biases stay.
    """
    settings = DIGITS.get(key, {}) if settings is None else settings
    network = copy.deepcopy(task.network)
    learned = []
    for stage in network:
        layer = layer_of(stage)
        learned.append(quantizer(key, layer.weight, bits, settings))
        parametrize.register_parametrization(layer, "weight", learned[-1])
    if key != "rtn" and steps:
        whole = fit == "network"
        groups = [slice(0, len(network))] if whole else [slice(each, each + 1) for each in range(len(network))]
        full = ours = task.calibration
        for number, stages in enumerate(groups):
            with torch.no_grad():
                target = task.network[stages](full)
            own = part(progress, number / len(groups), 1 / len(groups))
            _fit(network[stages], learned[stages], ours, target, key, float(settings["lr"]), steps, seed, own)
            network[stages].eval()
            with torch.no_grad():
                full, ours = target, network[stages](ours)
    for stage in network:
        parametrize.remove_parametrizations(layer_of(stage.eval()), "weight")
    return network, learned


def _fit(
    stages: nn.Module,
    learned: list[LearnedRounding],
    inputs: Tensor,
    target: Tensor,
    key: str,
    rate: float,
    steps: int,
    seed: int,
    progress: Progress,
) -> None:
    """Fit the stages' output; Adam or SignSGD, the rate falling as a cosine except AdaRound's."""
    stages.train()
    parameters = [each for one in learned for each in one.parameters()]
    optimizer = SignSGD(parameters, rate) if key == "signround" else torch.optim.Adam(parameters, lr=rate, fused=True)
    energy = target.square().mean()
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        if key != "adaround":
            optimizer.param_groups[0]["lr"] = rate * (1 + np.cos(np.pi * step / steps)) / 2
        some = torch.randint(len(inputs), (BATCH,), generator=generator)
        loss = (stages(inputs[some]) - target[some]).square().mean() / energy
        for one in learned:
            loss = loss + one.penalty(step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            progress(step / steps, f"step {step + 1}")


@experiment("digits", "A network for digits", cost="run", small={"epochs": 1, "steps": 1, "calibration": 32})
def digits(config: DigitsConfig, *, progress: Progress) -> DigitsResult:
    """Train, then round by each method at each number of bits; about half a minute on one core."""
    import pandas as pd

    task = prepare(
        config.seed,
        huge=config.huge,
        calibration=config.calibration,
        epochs=config.epochs,
        progress=part(progress, 0, 1 / 6),
    )
    rows: list[tuple[str, int, float, float]] = []
    factors: list[tuple[int, int, float, float]] = []
    behind = layer_of(task.network[DEPTHWISE + 1]).weight
    total = len(BITS) * len(TITLES)
    for key in TITLES:
        for bits in BITS:
            progress(1 / 6 + 5 / 6 * len(rows) / total, f"{TITLES[key]}, {bits} bits")
            settings = _settings(key, config.steps)
            network, learned = quantize(
                task, key, bits, settings=settings, steps=config.steps, fit=config.fit, seed=config.seed
            )
            rows.append((key, bits, task.accuracy(network), task.error(network)))
            if key == "flexround":
                one = learned[DEPTHWISE + 1]
                assert isinstance(one, FlexRoundQuantizer)
                sizes = behind.abs().amax((0, 2, 3))
                factors += [
                    (bits, channel, float(factor), float(size))
                    for channel, (factor, size) in enumerate(zip(one.s4[0], sizes, strict=True))
                ]
    progress(1.0, "done")
    return DigitsResult(
        full=task.accuracy(task.network),
        n_test=len(task.labels),
        huge=config.huge,
        scores=pd.DataFrame(rows, columns=["method", "bits", "accuracy", "error"]),
        layers=pd.DataFrame(_layers(task.network), columns=["layer", "weights", "largest", "typical"]),
        s4=pd.DataFrame(factors, columns=["bits", "channel", "factor", "size"]),
    )


def _settings(key: str, steps: int) -> dict[str, Any]:
    """As tuned; SignRound's rate goes with the steps, so that half a grid step can just be reached as it was tuned."""
    settings = dict(DIGITS.get(key, {}))
    if key == "signround":
        settings["lr"] *= DIGITS_STEPS / max(steps, 1)
    return settings


def _layers(network: nn.Sequential) -> list[tuple[str, int, float, float]]:
    names = ("convolution", "depthwise convolution", "second convolution", "linear")
    weights = [layer_of(stage).weight for stage in network]
    return [
        (name, weight.numel(), float(weight.abs().max()), float(weight.square().mean().sqrt()))
        for name, weight in zip(names, weights, strict=True)
    ]


def columns(seed: int, bits: tuple[int, ...], *, progress: Progress) -> dict[str, float]:
    """A replicate as named numbers, in percent: `METHOD_BITS_accuracy`, `METHOD_BITS_error`, and `full_accuracy`."""
    task = prepare(seed, progress=part(progress, 0, 1 / 4))
    values = {"full_accuracy": 100 * task.accuracy(task.network)}
    total = len(TITLES) * len(bits)
    for done, (key, each) in enumerate((key, each) for key in TITLES for each in bits):
        network, _ = quantize(task, key, each, seed=seed)
        values[f"{key}_{each}_accuracy"] = 100 * task.accuracy(network)
        values[f"{key}_{each}_error"] = 100 * task.error(network)
        progress(1 / 4 + 3 / 4 * (done + 1) / total, f"{TITLES[key]}, {each} bits")
    return values
