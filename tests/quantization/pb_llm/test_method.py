"""PB-GPTQ against brute force, against the published loop, and at its ends; what it stores and costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from transformers.pytorch_utils import Conv1D

from lab.quantization.baselines import XNOR
from lab.quantization.blocks import set_weight, weight_of
from lab.quantization.grid import fit_grid
from lab.quantization.pb_llm import PBLLM, binarize, pb_mask, published_pb_gptq
from lab.quantization.statistics import Statistics
from lab.quantization.storage import paper_bits_pb_llm
from lab.quantization.weights import Affine, Binary, Mixed, unpack


def draw(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def seen(columns: int, seed: int = 1, tokens: int = 64) -> Statistics:
    """Statistics of correlated inputs."""
    found = Statistics(columns)
    found.add(draw(tokens, columns, seed) @ draw(columns, columns, seed + 1))
    return found


def uncorrelated(sizes: torch.Tensor) -> Statistics:
    found = Statistics(len(sizes))
    found.add(sizes.diag())
    return found


def damped(statistics: Statistics) -> torch.Tensor:
    hessian = statistics.hessian().double()
    return hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)


@pytest.mark.parametrize("sizes", [torch.ones(16), torch.linspace(0.1, 3, 16)])
@pytest.mark.parametrize("metric", ["magnitude", "hessian", "hessian_exact"])
def test_uncorrelated_inputs_leave_nothing_to_compensate(sizes: torch.Tensor, metric: Any) -> None:
    weight, statistics = draw(10, 16), uncorrelated(sizes)
    ours, plain = (PBLLM(low_frac=0.7, metric=metric, gptq=gptq).layer(weight, statistics) for gptq in (True, False))
    assert torch.equal(ours.dequantize(), plain.dequantize())


def test_the_ends_are_eight_bits_and_one() -> None:
    weight, statistics = draw(10, 16), seen(16)
    rounded = PBLLM(low_frac=0.0, gptq=False).layer(weight, statistics)
    assert isinstance(rounded, Affine) and torch.equal(rounded.dequantize(), fit_grid(weight, 8).round(weight))
    signs = PBLLM(low_frac=1.0, gptq=False).layer(weight, statistics)
    assert isinstance(signs, Binary) and signs.storage() == XNOR().layer(weight, statistics).storage()
    assert torch.allclose(signs.dequantize(), XNOR().layer(weight, statistics).dequantize(), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("stats", ["masked", "official"])
def test_the_loop_is_brute_force(stats: Any) -> None:
    """After each column is rounded, all later ones solve their least-squares problem anew, in float64."""
    weight, statistics = draw(6, 8).double(), seen(8)
    hessian = damped(statistics)
    low = pb_mask(weight, 0.7, "hessian", statistics)
    alpha, mu, _ = binarize(weight, low, stats=stats)
    alpha, mu, grid = alpha.half().double(), mu.half().double(), fit_grid(weight, 8)
    left = weight.clone()
    for k in range(8):
        column = left[:, k : k + 1]
        ones = torch.where(column >= mu, mu + alpha, mu - alpha)
        error = (column - torch.where(low[:, k : k + 1], ones, grid.round(column)))[:, 0]
        left[:, k] -= error
        if k < 7:
            left[:, k + 1 :] += torch.linalg.solve(
                hessian[k + 1 :, k + 1 :], hessian[k + 1 :, k : k + 1] @ error[None]
            ).T
    ours = PBLLM(low_frac=0.7, stats=stats).layer(weight, statistics).dequantize()
    assert torch.allclose(ours.double(), left, atol=1e-5)


@pytest.mark.parametrize("metric", ["magnitude", "hessian", "hessian_exact"])
@pytest.mark.parametrize(("stats", "groupsize"), [("official", None), ("masked", None), ("official", 128)])
def test_the_loop_is_the_published_one(metric: Any, stats: Any, groupsize: int | None) -> None:
    weight, statistics = draw(24, 256).double(), seen(256, tokens=600)
    settings = {"metric": metric, "stats": stats, "groupsize": groupsize, "low_frac": 0.8}
    published = published_pb_gptq(weight, statistics.hessian(), scale_dtype=torch.float16, **settings)
    ours = PBLLM(**settings).layer(weight, statistics).dequantize()
    assert torch.allclose(ours.double(), published, atol=1e-5)


def test_dead_channels_as_published() -> None:
    statistics = uncorrelated(torch.tensor([1.0, 0.0, 2.0, 1.0]))
    ours = PBLLM(low_frac=0.5).layer(draw(5, 4), statistics).dequantize()
    published = published_pb_gptq(
        draw(5, 4), statistics.hessian(), low_frac=0.5, stats="masked", scale_dtype=torch.float16
    )
    assert torch.allclose(ours, published, atol=1e-6)


def test_half_precision_scales_are_all_that_differs_from_published_ones() -> None:
    weight, statistics = draw(24, 128), seen(128, tokens=600)
    exact, half = (
        published_pb_gptq(weight, statistics.hessian(), scale_dtype=dtype) for dtype in (torch.float32, torch.float16)
    )
    errors = [
        float(((rounded - weight) @ damped(statistics).float() * (rounded - weight)).sum()) for rounded in (exact, half)
    ]
    assert errors[1] == pytest.approx(errors[0], rel=0.02)


@pytest.mark.parametrize("low_frac", [0.5, 0.9])
def test_compensation_helps_where_it_counts(low_frac: float) -> None:
    wins = 0
    for seed in range(40):
        statistics, weight = seen(16, seed=seed), draw(8, 16, seed=100 + seed)
        errors = []
        for gptq in (True, False):
            change = PBLLM(low_frac=low_frac, gptq=gptq).layer(weight, statistics).dequantize() - weight
            errors.append(float((change @ statistics.hessian() * change).sum()))
        wins += errors[0] <= errors[1]
    assert wins >= 38


def test_the_bill_is_the_papers_and_its_scales() -> None:
    weight, statistics = draw(40, 50), seen(50, tokens=200)
    stored = PBLLM(low_frac=0.9).layer(weight, statistics)
    assert isinstance(stored, Mixed)
    low = 2000 - int(stored.mask.sum())
    assert low == 1801
    cost = stored.storage()
    assert (cost.weights, cost.mask) == (low + 8 * (2000 - low), 2000)
    assert (cost.weights + cost.mask) / 2000 == pytest.approx(paper_bits_pb_llm(low / 2000))
    assert paper_bits_pb_llm(0.9) == 2.7
    assert (cost.scales, cost.zeros) == (40 * 3 * 16, 40 * 8)
    assert stored.storage(mask="csr").mask == 199 * 6 + 41 * 8 and stored.storage(mask="entropy").mask < 0.5 * 2000
    grouped = PBLLM(low_frac=0.9, groupsize=10).layer(weight, statistics)
    assert grouped.storage().scales == 40 * (1 + 5 * 2) * 16


@pytest.mark.parametrize("settings", [{}, {"groupsize": 4}, {"low_frac": 0.0}, {"low_frac": 1.0}, {"gptq": False}])
def test_a_file_gives_back_every_bit(settings: dict[str, Any]) -> None:
    stored = PBLLM(**{"low_frac": 0.8, "stats": "official", **settings}).layer(draw(7, 12), seen(12))
    back = unpack(load(save(stored.pack())))
    assert torch.equal(back.dequantize(), stored.dequantize()) and back.storage() == stored.storage()


def test_layers_of_one_input_are_factorized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.quantization import statistics as module

    calls: list[int] = []
    once = module.upper_factor
    monkeypatch.setattr(module, "upper_factor", lambda *given: calls.append(1) or once(*given))
    shared = seen(12)
    for seed in range(3):
        PBLLM().layer(draw(6, 12, seed), shared)
    assert len(calls) == 1


def test_a_conv1d_is_quantized_along_its_inputs() -> None:
    turned, weight, statistics = Conv1D(6, 12), draw(6, 12), seen(12)
    set_weight(turned, weight)
    assert torch.equal(weight_of(turned), weight)
    set_weight(turned, PBLLM().layer(weight_of(turned).detach(), statistics).dequantize())
    assert torch.equal(turned.weight.T, PBLLM().layer(weight, statistics).dequantize())
    with pytest.raises(ValueError, match="statistics are of 12 channels, and the weight has 6 inputs"):
        PBLLM().layer(turned.weight.detach(), statistics)


def test_more_salient_weights_lose_less() -> None:
    weight, statistics = draw(32, 64), seen(64, tokens=200)
    errors = []
    for low_frac in (0.5, 0.7, 0.8, 0.9, 0.95, 1.0):
        change = PBLLM(low_frac=low_frac).layer(weight, statistics).dequantize() - weight
        errors.append(float((change @ statistics.hessian() * change).sum()))
    assert errors == sorted(errors)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"low_frac": 1.5}, r"low_frac must lie in \[0, 1\], got 1.5"),
        ({"low_frac": float("nan")}, "low_frac"),
        ({"high_bits": 0}, r"high_bits must lie in 1\.\.8, got 0"),
        ({"high_bits": 9}, "high_bits"),
        ({"metric": "size"}, "metric"),
        ({"stats": "both"}, "stats"),
        ({"damping": -1.0}, "damping must be at least 0, got -1.0"),
        ({"groupsize": 0}, "groupsize must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_a_sentence(settings: dict[str, Any], says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        PBLLM(**settings)


@pytest.mark.parametrize(
    ("weight", "statistics", "settings", "says"),
    [
        (torch.full((2, 4), torch.nan), seen(4), {}, "weight holds NaN or inf"),
        (torch.full((2, 4), torch.inf), seen(4), {}, "weight holds NaN or inf"),
        (draw(2, 4), Statistics(4), {}, "the calibration is empty"),
        (draw(2, 4), seen(5), {}, "statistics are of 5 channels, and the weight has 4 inputs"),
        (draw(2, 4), seen(4), {"groupsize": 3}, "groupsize must divide the weight's 4 inputs, got 3"),
    ],
)
def test_bad_layers_are_a_sentence(weight: Any, statistics: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PBLLM(**settings).layer(weight, statistics)


def test_magnitude_without_compensation_needs_no_calibration() -> None:
    assert PBLLM(metric="magnitude", gptq=False).layer(draw(6, 8), Statistics(8)).shape == (6, 8)


def test_the_published_loop_refuses_what_is_not_positive_definite() -> None:
    with pytest.raises(RuntimeError, match="positive-definite"):
        published_pb_gptq(draw(2, 2), torch.tensor([[1.0, 5.0], [5.0, 1.0]]))
