"""BiLLM: its searches against brute force, its loop against the published steps, its bill, and its file."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from lab.quantization.baselines import XNOR
from lab.quantization.billm import BiLLM, binarize_block, salient_count, split_point
from lab.quantization.statistics import Statistics
from lab.quantization.storage import StorageCost
from lab.quantization.weights import Mixed, unpack


def draw(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def seen(columns: int, seed: int = 1) -> Statistics:
    found = Statistics(columns)
    found.add(draw(3 * columns, columns, seed) @ (draw(columns, columns, seed + 1) / columns**0.5 + torch.eye(columns)))
    return found


def residual_binarization(x: torch.Tensor, mask: torch.Tensor, order: int, half: bool = False) -> torch.Tensor:
    """As published: binarize the masked entries, then what is left of them, each time with a row's mean and mean size."""
    total = torch.zeros_like(x)
    for _ in range(order):
        left = torch.where(mask, x - total, torch.nan)
        mean = left.nanmean(1, keepdim=True).nan_to_num()
        mean = mean.half().to(x.dtype) if half else mean
        alpha = (left - mean).abs().nanmean(1, keepdim=True).nan_to_num()
        alpha = alpha.half().to(x.dtype) if half else alpha
        total = total + torch.where(mask, mean + torch.where(left >= mean, alpha, -alpha), 0)
    return total


def published_masks(judged: torch.Tensor, score: torch.Tensor) -> list[torch.Tensor]:
    """Near, far and salient, by trying every candidate in full."""
    judged, (rows, columns) = judged.double(), judged.shape
    order = score.sum(0).argsort(descending=True)
    errors = []
    for count in range(1, min(50, columns)):
        salient = torch.zeros(columns, dtype=torch.bool)
        salient[order[:count]] = True
        both = salient.expand(rows, -1), (~salient).expand(rows, -1)
        errors.append((judged - sum(residual_binarization(judged, mask, 2) for mask in both)).square().sum())
    salient = torch.zeros(columns, dtype=torch.bool)
    salient[order[: int(torch.stack(errors).argmin()) + 1]] = True
    size = judged.abs().masked_fill(salient, 0.0)
    best = (torch.inf, torch.zeros(()))
    for point in torch.quantile(size, torch.linspace(0.1, 0.9, 81).double()):
        near, far = ((half & ~salient) for half in (size < point, size >= point))
        rest = judged - sum(residual_binarization(judged, mask, 1) for mask in (near, far))
        best = min(best, (float(rest[:, ~salient].square().sum()), point), key=lambda found: found[0])
    return [(size < best[1]) & ~salient, (size >= best[1]) & ~salient, salient.expand(rows, -1)]


@pytest.mark.parametrize("search", ["official", "weight"])
@pytest.mark.parametrize("columns", [20, 64])
def test_the_searches_are_brute_force(search: Any, columns: int) -> None:
    for seed in range(3):
        block = draw(9, columns, seed).double() * (1 + 3 * draw(1, columns, seed + 50).abs().double())
        pivots = 0.5 + torch.rand(columns, generator=torch.Generator().manual_seed(seed)).double()
        score = (block / pivots).square()
        part = binarize_block(block, pivots, search)
        near, far, salient = published_masks(score if search == "official" else block, score)
        assert torch.equal(part.salient.expand(9, -1), salient)
        assert torch.equal(part.split.far & ~salient, far) and torch.equal(~part.split.far & ~salient, near)


def test_the_searches_take_what_is_degenerate() -> None:
    assert salient_count(torch.ones(3, 1)) == 1 and salient_count(torch.zeros(3, 5)) == 1
    assert split_point(torch.zeros(3, 5), torch.tensor([True] + [False] * 4)) == 0.0
    assert split_point(torch.ones(3, 1), torch.tensor([True])) == 0.0
    for weight in (torch.zeros(4, 8), torch.ones(4, 8), draw(1, 1), draw(4, 1), draw(1, 8)):
        assert torch.isfinite(BiLLM().layer(weight, seen(weight.shape[1])).dequantize()).all()


@pytest.mark.parametrize("search", ["official", "weight"])
def test_errors_go_to_the_blocks_that_follow(search: Any) -> None:
    weight, statistics = draw(12, 256), seen(256)
    upper, _ = statistics.factor(0.01)
    left, pivots = weight.clone(), upper.diagonal()
    for start in (0, 128):
        block, here = left[:, start : start + 128], slice(start, start + 128)
        score = (block / pivots[here]).square()
        masks = published_masks(score if search == "official" else block, score)
        rounded = sum(
            residual_binarization(block, mask, order, half=True) for mask, order in zip(masks, (1, 1, 2), strict=True)
        )
        errors = (block - rounded) / pivots[here]
        left[:, here] = rounded
        left[:, start + 128 :] -= errors @ upper[here, start + 128 :]
    ours = BiLLM(search=search).layer(weight, statistics).dequantize()
    close = (ours - left).abs() < 1e-3  # float16 may round a mean the other way
    assert close.float().mean() > 0.995


def test_two_halves_and_two_bits_beat_one_sign() -> None:
    weight, statistics = draw(32, 128) ** 3, seen(128)
    one, ours = (method.layer(weight, statistics).dequantize() for method in (XNOR(), BiLLM(search="weight")))
    assert (ours - weight).square().sum() < 0.6 * (one - weight).square().sum()


def test_the_bill_by_hand() -> None:
    stored = BiLLM().layer(draw(10, 256), seen(256))
    salient = int(stored.mask.sum())
    cost = stored.storage()
    assert cost == StorageCost(2560, 2560 + 10 * salient, 256 + 2560 - 10 * salient, 2 * 10 * 8 * 16)
    assert cost.per_weight > 3
    assert stored.outside.storage().total == 2 * 2560 + 2 * 10 * 4 * 16


@pytest.mark.parametrize("columns", [20, 256])
def test_a_file_gives_back_every_bit_and_takes_what_the_bill_says(columns: int) -> None:
    stored = BiLLM().layer(draw(11, columns), seen(columns))
    packed = load(save(stored.pack()))
    back = unpack(packed)
    assert torch.equal(back.dequantize(), stored.dequantize()) and back.storage() == stored.storage()
    assert all(torch.equal(back.pack()[key], packed[key]) for key in packed)
    size = 8 * sum(part.numel() * part.element_size() for key, part in packed.items() if key != "facts")
    assert 0 <= size - stored.storage().total < 8 * 8


@pytest.mark.parametrize("harm", ["signs", "far", "alpha", "mean"])
def test_tensors_that_do_not_fit_are_a_sentence(harm: str) -> None:
    stored = BiLLM().layer(draw(11, 20), seen(20))
    assert isinstance(stored, Mixed)
    packed = stored.outside.pack()
    packed[harm] = torch.zeros(1, 2, 2)
    with pytest.raises(ValueError, match="these tensors are no packed weight"):
        unpack(packed)


def test_all_channels_dead_is_all_zero() -> None:
    statistics = Statistics(6)
    statistics.add(torch.zeros(5, 6))
    assert (BiLLM().layer(draw(4, 6), statistics).dequantize() == 0).all()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: BiLLM(search="both"), "search"),
        (lambda: BiLLM(damping=-1.0), "damping must be at least 0, got -1.0"),
        (lambda: BiLLM().layer(torch.full((2, 4), torch.nan), seen(4)), "weight holds NaN or inf"),
        (lambda: BiLLM().layer(draw(2, 4), Statistics(4)), "the calibration is empty"),
        (lambda: BiLLM().layer(draw(2, 4), seen(5)), "statistics are of 5 channels, and the weight has 4 inputs"),
        (lambda: BiLLM().layer(draw(2, 200), seen(200)), "a block of 128 inputs does not divide the weight's 200"),
    ],
)
def test_bad_input_is_a_sentence(call: Any, says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        call()
