"""The quantized weight: its equation, its limits, its stored form; the factored layer against it; the plain step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional

from lab.quantization.baselines import RTN, XNOR
from lab.quantization.ptq1_61 import FactoredLinear, PTQ161Weight, factored
from lab.quantization.ptq1_61.published import PublishedWeight
from lab.quantization.statistics import Statistics
from lab.quantization.weights import unpack

MASK = torch.arange(12) % 5 == 0


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def learned(
    dtype: torch.dtype = torch.float32, kind: type[PTQ161Weight] = PTQ161Weight, **settings: Any
) -> PTQ161Weight:
    """A weight whose scales have moved."""
    made = kind(draw(7, 12, dtype=dtype), MASK, **settings)
    with torch.no_grad():
        for seed, part in enumerate((made.alpha, made.r1, made.r2)):
            part += 0.1 * draw(*part.shape, seed=seed + 5, dtype=dtype)
    return made


def test_the_equation_entry_by_entry() -> None:
    weight, made = draw(7, 12), learned()
    with torch.no_grad():
        out = made()
    low, high = weight.amin(1).clamp(max=0), weight.amax(1).clamp(min=0)
    for j in range(7):
        others = weight[j][~MASK]
        mu = others.mean()
        assert torch.allclose(PTQ161Weight(weight, MASK).alpha[j], others.abs().mean())
        step = ((high - low) / 15)[j].half().float()
        for i in range(12):
            if MASK[i]:
                zero = (-low[j] / step).round()
                expected = step * ((weight[j, i] / step).round().add(zero).clamp(0, 15) - zero)
            else:
                sign = 1.0 if weight[j, i] >= mu else -1.0
                expected = made.r1[j, 0] * made.r2[0, i] * (made.alpha[j, 0] * sign + mu)
            assert torch.allclose(out[j, i], expected, atol=1e-5)


def test_without_salient_channels_it_is_one_bit_a_row() -> None:
    weight, none = draw(7, 12), torch.zeros(12, dtype=torch.bool)
    ours = PTQ161Weight(weight, none, mean=False).finish()
    assert torch.equal(ours.dequantize(), XNOR(mean=False).layer(weight, Statistics(12)).dequantize())
    with_mean = PTQ161Weight(weight, none)()
    mean, size = weight.mean(1, keepdim=True), weight.abs().mean(1, keepdim=True)  # of |w|, not of |w - mean|
    assert torch.allclose(with_mean, mean + size * torch.where(weight >= mean, 1.0, -1.0), atol=1e-6)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_with_salient_channels_only_it_is_rounding_to_nearest(bits: int) -> None:
    weight = draw(7, 12)
    ours = PTQ161Weight(weight, torch.ones(12, dtype=torch.bool), high_bits=bits)
    theirs = RTN(bits=bits).layer(weight, Statistics(12))
    assert torch.equal(ours.finish().dequantize(), theirs.dequantize())
    assert torch.allclose(ours(), theirs.dequantize())
    assert ours.finish().storage() == theirs.storage()


@pytest.mark.parametrize("mean", [True, False])
def test_folding_changes_nothing(mean: bool) -> None:
    made = learned(mean=mean)
    before, stored = made().detach(), made.finish().dequantize()
    made.fold()
    assert (made() - before).abs().max() < 1e-6 and (made.r1 == 1).all()
    assert torch.equal(made.finish().dequantize(), stored)
    assert torch.allclose(stored, before, atol=2e-3)  # scales are stored in float16


@pytest.mark.parametrize("mask", [MASK, MASK & False, MASK | True])
def test_a_file_gives_back_every_bit(mask: torch.Tensor) -> None:
    stored = PTQ161Weight(draw(7, 12), mask).finish()
    packed = load(save(stored.pack()))
    back = unpack(packed)
    assert torch.equal(back.dequantize(), stored.dequantize()) and back.storage() == stored.storage()
    assert all(torch.equal(back.pack()[name], packed[name]) for name in packed)


def test_a_sign_is_stored_for_zeros_which_count_in_no_mean() -> None:
    weight = torch.tensor([[5.0, 0.0, 2.0, 4.0, 0.0]])
    made = PTQ161Weight(weight, torch.tensor([True, False, False, False, False]))
    assert made.mean.item() == made.alpha.item() == 3.0
    assert made.finish().dequantize()[0, 1:].tolist() == [0.0, 0.0, 6.0, 0.0]
    assert PTQ161Weight(torch.zeros(1, 2), torch.zeros(2, dtype=torch.bool))().tolist() == [[0.0, 0.0]]
    assert (PTQ161Weight(torch.zeros(1, 2), torch.zeros(2, dtype=torch.bool)).signs == 1).all()


def test_a_grid_of_the_salient_entries_alone_is_finer() -> None:
    weight = draw(7, 12)
    weight[:, ~MASK] *= 10
    errors = [
        (PTQ161Weight(weight, MASK, high_range=kind)() - weight)[:, MASK].abs().mean() for kind in ("row", "salient")
    ]
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize("settings", [{}, {"mean": False}, {"high_range": "salient"}])
@pytest.mark.parametrize("mask", [MASK, MASK & False, MASK | True])
def test_the_factored_layer_is_the_layer_and_so_are_its_gradients(settings: dict[str, Any], mask: torch.Tensor) -> None:
    made = PTQ161Weight(draw(7, 12, dtype=torch.float64), mask, **settings)
    bias, x = draw(7, seed=3, dtype=torch.float64), draw(2, 5, 12, seed=4, dtype=torch.float64).requires_grad_()
    fast, probe = FactoredLinear(made, bias), draw(2, 5, 7, seed=6, dtype=torch.float64)
    wanted = [x, *made.parameters()]
    ours, theirs = fast(x), functional.linear(x, made(), bias)
    assert torch.allclose(ours, theirs, atol=1e-12) and torch.equal(fast.weight, made())
    for one, other in zip(
        torch.autograd.grad(ours, wanted, probe, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(theirs, wanted, probe, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        assert torch.allclose(one, other, atol=1e-12)


def test_the_plain_step_computes_the_same_weight() -> None:
    for settings in ({}, {"mean": False}, {"high_range": "salient"}, {"high_bits": 2}):
        assert torch.allclose(learned(kind=PublishedWeight, **settings)(), learned(**settings)(), atol=1e-6)


def test_a_factored_block_leaves_the_block_alone_and_shares_the_scales() -> None:
    block = nn.Sequential(nn.Linear(12, 7), nn.LayerNorm(7))
    before = {name: part.clone() for name, part in block.state_dict().items()}
    made = PTQ161Weight(block[0].weight, MASK)
    ours = factored(block, {"0": made})
    ours(draw(3, 12)).square().sum().backward()
    assert made.alpha.grad is not None and all(part.grad is None for part in block.parameters())
    assert all(torch.equal(before[name], part) for name, part in block.state_dict().items())
    assert all(part.requires_grad for part in block.parameters())
    with pytest.raises(ValueError, match="the block has no layer '2'"):
        factored(block, {"2": made})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"weight": torch.zeros(0, 12)}, "weight"),
        ({"weight": torch.full((2, 12), torch.nan)}, "weight holds NaN or inf"),
        ({"mask": MASK[:5]}, "mask"),
        ({"mask": MASK.float()}, "mask"),
        ({"high_bits": 0}, r"bits must lie in 1\.\.8, got 0"),
        ({"high_range": "column"}, "high_range"),
    ],
)
def test_what_is_no_weight_or_mask_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        PTQ161Weight(**{"weight": draw(2, 12), "mask": MASK} | change)


def test_a_bias_that_does_not_fit_is_refused() -> None:
    with pytest.raises((ValueError, TypeError), match="bias"):
        FactoredLinear(learned(), torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"bias must have 7 entries, got the shape \(3,\)"):
        FactoredLinear(learned(), torch.zeros(3))
