r"""Learned quantizers: a block's weights become functions of parameters, fitted so that the block's output survives.

.. math:: \min_\theta \sum_{X_q} L\big(b_{\hat W(\theta)}(X_q),\; b(X_f),\; b(X_q)\big)

The block itself is not touched while it is fitted: each step computes the weights and calls the block with them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from lab.experiment import Progress, no_progress
from lab.quantization.blocks import Call
from lab.quantization.pipeline import BlockInputs
from lab.quantization.weights import QuantizedWeight

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


class LearnedWeight(nn.Module, ABC):
    """A weight as a function of learned parameters."""

    @abstractmethod
    def forward(self) -> Float[Tensor, "o i"]:
        """The quantized weight, differentiable in the parameters."""

    @abstractmethod
    def finish(self) -> QuantizedWeight:
        """What is stored when the parameters are learned."""

    def penalty(self, done: float) -> Tensor | float:
        """What is added to the loss when the share ``done`` of the steps is done."""
        return 0.0


def output_error(ours: Tensor, full: Tensor, full_on_ours: Tensor) -> Tensor:
    """Mean square of Y_q - Y_f."""
    return functional.mse_loss(ours, full)


@dataclass(frozen=True)
class Fit:
    """How a block is fitted: steps of one calibration batch each, and the optimizer's schedule.

    ``cosine`` lets the rates fall to 0; ``keep_best`` ends in the parameters of the least mean loss over an epoch, the
    start included.
    """

    steps: int
    loss: Loss = output_error
    three_streams: bool = False
    cosine: bool = False
    keep_best: bool = False
    seed: int = 0


def reconstruct(
    work: BlockInputs,
    learned: Mapping[str, LearnedWeight],
    optimizer: torch.optim.Optimizer,
    fit: Fit,
    progress: Progress = no_progress,
) -> list[float]:
    """Fit the learned weights of a block in place; the loss of every step.

    Each step takes one calibration batch, in an order drawn anew each epoch from ``fit.seed``.
    """
    with _frozen(work.block, optimizer):
        return _fitted(work, learned, optimizer, fit, progress)


@contextmanager
def _frozen(block: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """What the optimizer does not move, biases and norms, takes no gradient."""
    moved = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    others = [each for each in block.parameters() if each.requires_grad and id(each) not in moved]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def _fitted(
    work: BlockInputs,
    learned: Mapping[str, LearnedWeight],
    optimizer: torch.optim.Optimizer,
    fit: Fit,
    progress: Progress,
) -> list[float]:
    generator = torch.Generator().manual_seed(fit.seed)
    rates = [group["lr"] for group in optimizer.param_groups]
    with torch.no_grad():
        on_ours = [call.run(work.full) for call in work.calls] if fit.three_streams else work.targets
    losses: list[float] = []
    best, best_state = (_epoch_loss(work, learned, on_ours, fit), _copied(learned)) if fit.keep_best else (0.0, {})
    order: list[int] = []
    for step in range(fit.steps):
        if not order:
            if fit.keep_best and step:
                best, best_state = _better(best, best_state, work, learned, on_ours, fit)
            order = torch.randperm(len(work.calls), generator=generator).tolist()
        if fit.cosine:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (1 + torch.cos(torch.tensor(torch.pi * step / fit.steps)).item()) / 2
        chosen = order.pop()
        ours = run_with(work.block, work.calls[chosen], {name: weight() for name, weight in learned.items()})
        loss = fit.loss(ours, work.targets[chosen], on_ours[chosen])  # L(b_W_hat(X_q), b(X_f), b(X_q))
        for weight in learned.values():
            loss = loss + weight.penalty(step / fit.steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        progress((step + 1) / fit.steps, f"{work.name}, step {step + 1}, loss {losses[-1]:.4g}")
    if fit.keep_best:
        _, best_state = _better(best, best_state, work, learned, on_ours, fit)
        for name, weight in learned.items():
            weight.load_state_dict(best_state[name])
    return losses


def run_with(block: nn.Module, call: Call, weights: Mapping[str, Tensor]) -> Float[Tensor, "b t d"]:
    """The block's output with other weights (outputs, inputs) in its linear layers; gradients flow to them."""
    modules = dict(block.named_modules())
    placed = {
        f"{name}.weight": weight if isinstance(modules[name], nn.Linear) else weight.T
        for name, weight in weights.items()
    }
    out = functional_call(block, placed, (call.hidden, *call.args), dict(call.kwargs))
    return out[0] if isinstance(out, tuple) else out


@torch.no_grad()
def _epoch_loss(work: BlockInputs, learned: Mapping[str, LearnedWeight], on_ours: list[Tensor], fit: Fit) -> float:
    """The loss over the whole calibration, with the weights as they would be stored."""
    for weight in learned.values():
        weight.eval()
    weights = {name: weight() for name, weight in learned.items()}
    for weight in learned.values():
        weight.train()
    batches = zip(work.calls, work.targets, on_ours, strict=True)
    return sum(float(fit.loss(run_with(work.block, call, weights), full, ours)) for call, full, ours in batches)


def _better(
    best: float, best_state: Any, work: BlockInputs, learned: Any, on_ours: list[Tensor], fit: Fit
) -> tuple[float, Any]:
    now = _epoch_loss(work, learned, on_ours, fit)
    return (now, _copied(learned)) if now < best else (best, best_state)


def _copied(learned: Mapping[str, LearnedWeight]) -> dict[str, dict[str, Tensor]]:
    return {
        name: {key: value.clone() for key, value in weight.state_dict().items()} for name, weight in learned.items()
    }
