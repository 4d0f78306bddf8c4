"""Two values a row are the best two; masks have the promised counts; scores are what the paper and the code say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lab.quantization.pb_llm import binarize, pb_mask, salience, two_sided_mask
from lab.quantization.statistics import Statistics, upper_factor


def draw(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def seen(columns: int, seed: int = 1) -> Statistics:
    found = Statistics(columns)
    found.add(draw(64, columns, seed) @ draw(columns, columns, seed + 1))
    return found


def test_by_hand() -> None:
    row = torch.tensor([[1.0, -2.0, 3.0, -4.0]])
    alpha, mu, signs = binarize(row, mean=False)
    assert (alpha.item(), mu.item()) == (2.5, 0.0) and signs.tolist() == [[1, -1, 1, -1]]
    assert (row - alpha * signs).square().sum().item() == 5.0
    alpha, mu, signs = binarize(row)
    assert (alpha.item(), mu.item()) == (2.5, -0.5) and (mu + alpha * signs).tolist() == [[2, -3, 2, -3]]
    assert (row - mu - alpha * signs).square().sum().item() == 4.0


def test_official_statistics_count_the_salient_slots_as_zeros() -> None:
    row = torch.tensor([[10.0, 1.0, -1.0, 2.0]])
    low = row.abs() < 10
    alpha, mu, _ = binarize(row, low)
    assert (mu.item(), alpha.item()) == (pytest.approx(2 / 3), pytest.approx(10 / 9))
    alpha, mu, _ = binarize(row, low, stats="official")
    assert (mu.item(), alpha.item()) == (0.5, 1.0)
    whole = torch.ones_like(low)
    assert all(torch.equal(*pair) for pair in zip(binarize(row), binarize(row, whole, stats="official"), strict=True))


@pytest.mark.parametrize("mean", [False, True])
def test_no_other_scale_is_better(mean: bool) -> None:
    w, low = draw(5, 24), draw(5, 24, seed=3) > -0.8
    alpha, mu, signs = binarize(w, low, mean=mean)

    def error(scale: torch.Tensor) -> torch.Tensor:
        return ((w - mu - scale * signs).square() * low).sum(1)

    for factor in torch.linspace(0.5, 1.5, 41):
        assert (error(alpha) <= error(factor * alpha) + 1e-5).all()


def test_groups_are_rows_of_their_own() -> None:
    w, low = draw(3, 12), draw(3, 12, seed=5) > 0
    alpha, mu, signs = binarize(w, low, groupsize=4)
    parts = [binarize(w[:, k : k + 4], low[:, k : k + 4]) for k in (0, 4, 8)]
    assert torch.allclose(alpha, torch.cat([part[0] for part in parts], 1))
    assert torch.allclose(mu, torch.cat([part[1] for part in parts], 1))
    assert torch.equal(signs, torch.cat([part[2] for part in parts], 1))


def test_a_row_of_salient_weights_has_no_scale_and_zero_is_positive() -> None:
    alpha, mu, _ = binarize(draw(2, 4), torch.tensor([[False] * 4, [True] * 4]))
    assert alpha[0] == mu[0] == 0 < alpha[1]
    assert binarize(torch.zeros(1, 3))[2].tolist() == [[1, 1, 1]]


def test_scores() -> None:
    w, statistics = draw(4, 6), seen(6)
    upper, _ = statistics.factor(0.01)
    assert torch.equal(salience(w), w.abs())
    assert torch.allclose(salience(w, "hessian", statistics), w**2 / upper.diagonal() ** 2)
    damped = statistics.hessian() + 0.01 * statistics.hessian().diagonal().mean() * torch.eye(6)
    exact = w**2 / damped.inverse().diagonal() ** 2
    assert torch.allclose(salience(w, "hessian_exact", statistics), exact, rtol=1e-3)
    for k in range(6):  # what the code divides by is the inverse that is left when column k's turn comes
        assert upper[k, k] ** 2 == pytest.approx(damped[k:, k:].inverse()[0, 0].item(), rel=1e-3)
    assert torch.equal(upper_factor(statistics.hessian())[0], upper)


@pytest.mark.parametrize("low_frac", [0.0, 0.001, 0.3, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("metric", ["magnitude", "hessian", "hessian_exact"])
def test_the_mask_binarizes_the_least_salient(low_frac: float, metric: Any) -> None:
    w, statistics = draw(10, 12), seen(12)
    low = pb_mask(w, low_frac, metric, statistics)
    assert int(low.sum()) == (120 * int(low_frac) if low_frac in (0, 1) else int(120 * low_frac) + 1)
    score = salience(w, metric, statistics)
    if low_frac not in (0, 1):
        assert score[low].max() < score[~low].min()
        assert torch.equal(low, score <= score.flatten().sort().values[int(120 * low_frac)])


def test_ties_are_binarized_and_groups_have_their_own_threshold() -> None:
    assert pb_mask(torch.tensor([[1.0, 1.0, 1.0, 2.0]]), 0.25).tolist() == [[True, True, True, False]]
    w = draw(6, 8) * torch.tensor([1.0] * 4 + [100.0] * 4)
    low = pb_mask(w, 0.5, groupsize=4)
    assert low[:, :4].sum() == low[:, 4:].sum() == 13 and pb_mask(w, 0.5)[:, 4:].sum() < 5


def test_two_sided_quantiles_are_not_the_largest_when_skewed() -> None:
    skewed = draw(20, 30).exp()
    official, ours = two_sided_mask(skewed, 0.1), pb_mask(skewed, 0.9)
    flat = skewed.flatten().sort().values
    assert torch.equal(official, (skewed >= flat[29]) & (skewed <= flat[569]))  # ranks 600 * .05 and 600 * .95, from 1
    assert (
        not official[skewed.argmin() // 30, skewed.argmin() % 30] and ours[skewed.argmin() // 30, skewed.argmin() % 30]
    )
    assert two_sided_mask(skewed, 0.0).all() and not two_sided_mask(skewed, 1.0).any()


BAD = torch.tensor([[torch.nan, 1.0]])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: binarize(BAD), "w holds NaN or inf"),
        (lambda: binarize(-BAD / 0), "w holds NaN or inf"),
        (lambda: binarize(draw(2, 4), torch.ones(2, 3) > 0), "mask"),
        (lambda: binarize(draw(2, 4), groupsize=3), "groupsize must divide the weight's 4 inputs, got 3"),
        (lambda: binarize(draw(2, 4), groupsize=0), "groupsize must divide"),
        (lambda: binarize(draw(2, 4), stats="both"), "stats"),
        (lambda: salience(BAD), "W holds NaN or inf"),
        (lambda: salience(draw(2, 4), "size"), "metric"),
        (lambda: salience(draw(2, 4), "hessian"), "metric 'hessian' needs statistics"),
        (lambda: salience(draw(2, 4), "hessian", seen(5)), "statistics are of 5 channels, and the weight has 4 inputs"),
        (lambda: salience(draw(2, 4), "hessian", Statistics(4)), "the calibration is empty"),
        (lambda: pb_mask(draw(2, 4), 1.1), r"low_frac must lie in \[0, 1\], got 1.1"),
        (lambda: pb_mask(draw(2, 4), -0.1), r"low_frac must lie in \[0, 1\]"),
        (lambda: pb_mask(draw(2, 4), float("nan")), r"low_frac must lie in \[0, 1\], got nan"),
        (lambda: pb_mask(draw(2, 4), 0.5, groupsize=3), "groupsize must divide"),
        (lambda: pb_mask(BAD), "W holds NaN or inf"),
        (lambda: two_sided_mask(draw(2, 4), 2.0), r"salient_frac must lie in \[0, 1\], got 2.0"),
        (lambda: two_sided_mask(BAD, 0.1), "W holds NaN or inf"),
    ],
)
def test_bad_input_is_a_sentence(call: Any, says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):  # the shape checker of the tests may come first
        call()
