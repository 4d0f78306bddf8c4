"""AWQ-like scaling: never worse than plain rounding where it looks, large channels first, every bit in its file."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from lab.quantization.awq import AWQ, EXPONENTS, inverse_scale
from lab.quantization.baselines import RTN
from lab.quantization.grid import fit_grid
from lab.quantization.statistics import Statistics
from lab.quantization.storage import StorageCost
from lab.quantization.weights import unpack


def draw(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def seen(columns: int, seed: int = 1) -> tuple[torch.Tensor, Statistics]:
    """Inputs of which a few channels are loud, and their statistics."""
    inputs = draw(200, columns, seed) * draw(1, columns, seed + 1).exp() ** 2
    found = Statistics(columns)
    found.add(inputs)
    return inputs, found


def test_the_best_of_all_exponents_by_the_output_itself() -> None:
    for seed in range(5):
        (inputs, statistics), weight = seen(16, seed), draw(12, 16, seed + 9)
        losses = []
        for exponent in EXPONENTS:
            size = inputs.abs().mean(0) ** exponent
            scale = size / (size.max() * size.min()).sqrt()
            change = fit_grid(weight * scale, 3).round(weight * scale) / scale - weight
            losses.append(float((inputs @ change.T).square().sum()))
        ours = AWQ(bits=3).layer(weight, statistics).dequantize() - weight
        assert float((inputs @ ours.T).square().sum()) == pytest.approx(min(losses), rel=0.05)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_never_worse_than_plain_rounding_and_better_where_channels_differ(bits: int) -> None:
    gains = []
    for seed in range(8):
        (_, statistics), weight = seen(32, seed), draw(16, 32, seed + 20)
        losses = []
        for method in (AWQ(bits=bits), RTN(bits=bits)):
            change = method.layer(weight, statistics).dequantize() - weight
            losses.append(float((change @ statistics.hessian() * change).sum()))
        gains.append(losses[1] / losses[0])
    assert min(gains) >= 1 - 1e-4 and sum(gains) / len(gains) > 1.3


def test_like_channels_are_rounded_plainly() -> None:
    statistics = Statistics(8)
    statistics.add(torch.where(draw(50, 8) > 0, 1.0, -1.0))
    weight = draw(5, 8)
    assert torch.equal(
        AWQ(bits=4).layer(weight, statistics).dequantize(), RTN(bits=4).layer(weight, statistics).dequantize()
    )


def test_scales_by_hand_and_within_half_precision() -> None:
    assert inverse_scale(torch.tensor([16.0, 1.0]), 0.0).tolist() == [1, 1]
    assert inverse_scale(torch.tensor([16.0, 1.0]), 1.0).tolist() == [0.25, 4]
    for size in (torch.tensor([0.0, 1.0]), torch.tensor([1e30, 0.0]), torch.zeros(3)):
        back = inverse_scale(size, 1.0)
        assert (back > 0).all() and torch.isfinite(back).all() and torch.equal(back.half().float(), back)


@pytest.mark.parametrize("per", ["row", "tensor", 4])
def test_the_bill_and_the_file(per: Any) -> None:
    stored = AWQ(bits=3, per=per).layer(draw(6, 16), seen(16)[1])
    groups = {"row": 6, "tensor": 1, 4: 24}[per]
    assert stored.storage() == StorageCost(96, 3 * 96, 0, 16 * (16 + groups), 3 * groups)
    back = unpack(load(save(stored.pack())))
    assert torch.equal(back.dequantize(), stored.dequantize()) and back.storage() == stored.storage()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: AWQ(bits=0), r"bits must lie in 1\.\.8, got 0"),
        (lambda: AWQ(bits=9), r"bits must lie in 1\.\.8, got 9"),
        (lambda: AWQ(per=5).layer(draw(2, 4), seen(4)[1]), "a group of 5 inputs does not divide the weight's 4"),
        (lambda: AWQ().layer(torch.full((2, 4), torch.inf), seen(4)[1]), "weight holds NaN or inf"),
        (lambda: AWQ().layer(draw(2, 4), Statistics(4)), "the calibration is empty"),
        (lambda: AWQ().layer(draw(2, 4), seen(5)[1]), "statistics are of 5 channels, and the weight has 4 inputs"),
    ],
)
def test_bad_input_is_a_sentence(call: Any, says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        call()
