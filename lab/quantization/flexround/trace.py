"""One fit of a learned rounding, every step of it written down: positions, points, gradients, and what the output lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from lab.experiment import Progress, no_progress
from lab.quantization.flexround.quantizer import FlexRoundQuantizer
from lab.quantization.one_layer import NAME, matrix_inputs
from lab.quantization.pipeline import BlockInputs
from lab.quantization.reconstruction import reconstruct, run_with
from lab.quantization.rounding import (
    AdaQuantQuantizer,
    AdaRoundQuantizer,
    LearnedRounding,
    RoundingMethod,
    SignRoundQuantizer,
    moved,
)

FOLLOWED = 401  # weights of which every step is kept, evenly by size


@dataclass(frozen=True, eq=False)
class Trace:
    """How one fit went: error (T + 1,); of the followed weights position, code, step (T + 1, m) and gradient (T, m); of all
    weights (o, i) the move in grid points and the final code, its zero point subtracted, and the final weight."""

    error: np.ndarray
    position: np.ndarray
    code: np.ndarray
    step: np.ndarray
    gradient: np.ndarray
    move: np.ndarray
    final: np.ndarray
    rounded: Tensor


@dataclass(frozen=True, eq=False)
class LayerData:
    """A layer by itself, with X^T X of what calibrates and of what is held out, and its weights in the order of size."""

    work: BlockInputs
    weight: Float[Tensor, "o i"]
    grams: tuple[Float[Tensor, "i i"], Float[Tensor, "i i"]]  # of what calibrates, of what is held out
    energies: tuple[float, float]  # of the outputs
    order: Int[Tensor, " n"]  # places in the flat weight

    @classmethod
    def of(
        cls, weight: Float[Tensor, "o i"], inputs: Float[Tensor, "t i"], fitted: int, name: str = "layer"
    ) -> LayerData:
        """The first ``fitted`` of the inputs (t, i) calibrate; with as many as there are, the same ones judge."""
        seen, held = inputs[:fitted], inputs[fitted:] if fitted < len(inputs) else inputs
        grams = seen.T @ seen, held.T @ held
        energies = float(((weight @ grams[0]) * weight).sum()), float(((weight @ grams[1]) * weight).sum())
        order = weight.abs().flatten().argsort(stable=True)
        return cls(matrix_inputs(weight, seen, name=name), weight, grams, energies, order)

    def evenly(self, count: int) -> Int[Tensor, " m"]:
        """Places of up to ``count`` weights evenly in the order of size, the smallest and the largest among them."""
        n = len(self.order)
        return self.order[torch.linspace(0, n - 1, min(count, n)).round().long()]

    def lost(self, rounded: Float[Tensor, "o i"], *, held: bool = False) -> float:
        """Share of the output's energy that is lost, on what calibrates or on what is held out."""
        off = rounded - self.weight
        return float(((off @ self.grams[held]) * off).sum()) / self.energies[held]


def position(quantizer: LearnedRounding) -> Float[Tensor, "o i"]:
    """Where each weight stands between the points of its present grid: what is rounded, or for AdaRound rounded softly."""
    steps, scale = quantizer.steps, quantizer.scale
    if isinstance(quantizer, FlexRoundQuantizer):
        _, d2, d3, d4 = quantizer.factors()
        for log_factor in (d2, d3, d4):
            steps = steps if log_factor is None else steps / log_factor.exp()
        positions = steps * quantizer.start / scale
    elif isinstance(quantizer, AdaRoundQuantizer):
        positions = steps.floor() + quantizer.h()
    else:
        assert isinstance(quantizer, AdaQuantQuantizer | SignRoundQuantizer)
        positions = (steps + quantizer.v) * quantizer.start / scale
    return positions.detach().view(quantizer.shape)


def learned_number(quantizer: LearnedRounding) -> Tensor:
    """What a method learns for each weight: d2, a or v."""
    for name in ("d2", "a", "v"):
        if hasattr(quantizer, name):
            learned: Tensor = getattr(quantizer, name)
            return learned
    raise TypeError(f"quantizer: a {type(quantizer).__name__} learns no number for each weight")


def follow(layer: LayerData, fitted: RoundingMethod, *, sgd: bool = False, progress: Progress = no_progress) -> Trace:
    """Fit a layer as the method does, and write every step down; ``sgd`` takes plain gradient descent instead of Adam."""
    work = layer.work
    quantizer = fitted.learned(layer.weight)
    parameters = [each for each in quantizer.parameters() if each.requires_grad]
    optimizer = _descent(layer, quantizer, fitted.lr) if sgd else fitted.optimizer(parameters)
    some, number = layer.evenly(FOLLOWED), learned_number(quantizer)
    rows: dict[str, list[Any]] = {name: [] for name in ("error", "position", "code", "step", "gradient")}

    @torch.no_grad()
    def write() -> None:
        rounded = quantizer.settled(quantizer.steps)
        scale = quantizer.scale.expand_as(rounded).flatten()[some]
        rows["error"].append(layer.lost(rounded.view(quantizer.shape)))
        rows["position"].append(position(quantizer).flatten()[some].numpy())
        rows["code"].append(torch.round(rounded.flatten()[some] / scale).numpy())
        rows["step"].append(scale.numpy().copy())

    def watch(fraction: float, note: str = "", partial: Any | None = None) -> None:
        assert number.grad is not None
        rows["gradient"].append(number.grad.flatten()[some].numpy().copy())
        write()
        progress(fraction, note)

    write()
    reconstruct(work, {NAME: quantizer}, optimizer, fitted.fit(), watch)
    final = quantizer.integers()[0].view(quantizer.steps.shape).float() - quantizer.zero
    arrays = {name: np.array(values, np.float32) for name, values in rows.items()}
    arrays["gradient"] = arrays["gradient"].reshape(-1, len(some))
    return Trace(
        **arrays,
        move=moved(quantizer).numpy(),
        final=final.view(quantizer.shape).numpy().astype(np.int16),
        rounded=quantizer.finish().dequantize(),
    )


def _descent(layer: LayerData, quantizer: LearnedRounding, rate: float) -> torch.optim.Optimizer:
    """Plain gradient descent; each array of factors has the rate with which its steps are ``rate`` long on average at first."""
    lengths = [torch.zeros(()) for _ in quantizer.parameters()]
    for call, target in zip(layer.work.calls, layer.work.targets, strict=True):
        quantizer.zero_grad()
        functional.mse_loss(run_with(layer.work.block, call, {NAME: quantizer()}), target).backward()
        for length, each in zip(lengths, quantizer.parameters(), strict=True):
            length += 0.0 if each.grad is None else each.grad.abs().mean() / len(layer.work.calls)
    groups = [
        {"params": [each], "lr": rate / max(float(length), 1e-30)}
        for length, each in zip(lengths, quantizer.parameters(), strict=True)
        if each.requires_grad
    ]
    return torch.optim.SGD(groups)
