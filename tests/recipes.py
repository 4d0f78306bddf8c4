"""Small recipes that the tests train, in this process and in others: `lab train recipes:NOISY`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from lab.state import save_state
from lab.train import Recipe, train

POINTS = torch.linspace(-1, 1, 320).reshape(-1, 4)


def module() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))


def plain_module() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def loss(model: nn.Module, pair: Any) -> torch.Tensor:
    return (model(pair[0]) - pair[1]).square().mean()


def write(model: nn.Module, folder: Path) -> dict[str, Any]:
    from safetensors.torch import save_file

    save_file(model.state_dict(), folder / "model.safetensors")
    return {"samples": ["a sample"]}


def evaluate(model: nn.Module) -> dict[str, float]:
    return {"error": float((model(POINTS) - POINTS.square().sum(1, keepdim=True)).square().mean())}


NOISY = Recipe(
    name="noisy",
    model=module,
    examples=lambda: TensorDataset(POINTS, POINTS.square().sum(1, keepdim=True)),
    loss=loss,
    optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=0.01),
    schedule=lambda step: 1 - step / 1000,
    clip=1.0,
    steps=300,
    batch=6,  # 80 examples: the last of an epoch are left out
    seed=3,
    evaluate=evaluate,
    evaluate_every=70,
    write=write,
    config={"dropout": 0.3},
    data="points on a line",
)
PLAIN = dataclasses.replace(NOISY, name="plain", model=plain_module, batch=8, config={})
SLOW = dataclasses.replace(NOISY, name="slow", steps=1_000_000, evaluate_every=0)


def trains(folder: Path, *, resume: bool = False, minutes: float | None = None) -> None:
    """What a process of its own does: it trains NOISY in a folder, saves after every step, and at the end leaves all it has."""
    torch.set_num_threads(1)
    done = train(NOISY, folder=folder, resume=resume, minutes=minutes, save_seconds=0)
    end = {"weights": dict(done.model.state_dict()), "curve": done.curve, "step": done.step}
    save_state(folder / "end", end | {"evaluations": done.evaluations})
