"""The block's loss: what costs nothing, the published quirks, gradients by finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from lab.quantization.ptq1_61 import FactoredLinear, PTQ161Weight, block_loss, nlc_loss


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_same_directions_cost_nothing_whatever_their_sizes() -> None:
    a, b = draw(2, 5, 8), draw(2, 5, 8, seed=1) + 1
    assert nlc_loss(a, a).abs() < 1e-6 and nlc_loss(a, 7 * a).abs() < 1e-6
    assert torch.allclose(nlc_loss(a, b), nlc_loss(0.1 * a, 30 * b), atol=1e-5)
    assert torch.allclose(nlc_loss(a, b), nlc_loss(b, a))


def test_opposite_directions_cost_nothing_either() -> None:
    a = draw(3, 8)
    assert nlc_loss(a, -a).abs() < 1e-6  # the absolute value of the official code


def test_cosines_are_averaged_before_the_logarithm() -> None:
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    b = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert nlc_loss(a, b).item() == pytest.approx(math.log(2))  # the other way round it would be infinite
    assert nlc_loss(a, torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item() == pytest.approx(-math.log(1e-4))


def test_orthogonal_outputs_cost_much_but_not_infinity() -> None:
    a = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss = nlc_loss(a, torch.tensor([[0.0, 1.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(1e-4)) and a.grad is not None and torch.isfinite(a.grad).all()
    assert torch.isfinite(nlc_loss(torch.zeros(1, 2), torch.ones(1, 2)))


def test_halves_do_not_overflow() -> None:
    a = torch.full((1, 4), 3e4, dtype=torch.float16)
    assert block_loss(a, -a, a).item() == pytest.approx(3.6e9, rel=1e-3)


def test_four_terms_or_two() -> None:
    ours, full, mixed = (draw(2, 3, 4, seed=seed) for seed in range(3))
    squares = functional.mse_loss(ours, full) + functional.mse_loss(ours, mixed)
    assert torch.allclose(block_loss(ours, full, mixed, nlc=False), squares)
    assert torch.allclose(block_loss(ours, full, mixed), squares + nlc_loss(ours, full) + nlc_loss(ours, mixed))
    assert block_loss(ours, ours, ours).abs() < 1e-5


@pytest.mark.parametrize("dense", [True, False])
def test_gradients_are_finite_differences(dense: bool) -> None:
    weight = PTQ161Weight(draw(5, 6, dtype=torch.float64), torch.tensor([1, 0, 0, 1, 0, 0]).bool())
    x, full, mixed = (draw(3, 4, n, seed=n + k, dtype=torch.float64) for k, n in enumerate((6, 5, 5)))
    layer = FactoredLinear(weight)

    def loss() -> torch.Tensor:
        return block_loss(functional.linear(x, weight()) if dense else layer(x), full, mixed)

    loss().backward()
    for part in (weight.alpha, weight.r1, weight.r2):
        assert part.grad is not None
        for place in range(part.numel()):
            values = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    part.view(-1)[place] += step
                    values.append(loss().item())
                    part.view(-1)[place] -= step
            assert part.grad.view(-1)[place].item() == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-7, rel=1e-4)


def test_outputs_of_other_shapes_are_refused() -> None:
    ones = torch.ones(2, 4)
    with pytest.raises((ValueError, TypeError), match=r"a and b must have one shape, with entries, got|'b'"):
        nlc_loss(ones, ones[:, :3])
    with pytest.raises(ValueError, match=r"a and b must have one shape, with entries, got \(0, 4\) and \(0, 4\)"):
        nlc_loss(ones[:0], ones[:0])
    for name in ("full", "full_on_ours"):
        with pytest.raises((ValueError, TypeError), match=f"ours and {name} must have one shape|'{name}'"):
            block_loss(**{"ours": ones, "full": ones, "full_on_ours": ones} | {name: ones[:, :3]})
