"""Salient channels: how many, which, ties; and the bound that is the reason for them."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.quantization.ptq1_61 import activation_scores, channel_mask, error_bound
from lab.quantization.statistics import Statistics


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_scores_are_the_largest_and_the_mean_size() -> None:
    inputs = draw(50, 6)
    inputs[:, 2] = 0
    seen = Statistics(6)
    seen.add(inputs[:20])
    seen.add(inputs[20:])
    expected = inputs.abs().amax(0).clamp(min=1e-5)
    assert torch.equal(activation_scores(seen), expected) and expected[2] == torch.tensor(1e-5)
    assert torch.allclose(activation_scores(seen, "absmean"), inputs.abs().mean(0).clamp(min=1e-5))
    with pytest.raises((ValueError, TypeError), match="score"):
        activation_scores(seen, "absmedian")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="statistics has seen no calibration token"):
        activation_scores(Statistics(6))


@pytest.mark.parametrize(
    ("channels", "official", "exact"), [(384, 77, 77), (4096, 820, 819), (1536, 308, 307), (1, 1, 0)]
)
def test_the_official_count_has_one_more(channels: int, official: int, exact: int) -> None:
    scores = torch.randperm(channels, generator=torch.Generator().manual_seed(0)).float()
    assert int(channel_mask(scores).sum()) == official
    mask = channel_mask(scores, exact_count=True)
    assert int(mask.sum()) == exact
    assert exact == 0 or scores[mask].min() > scores[~mask].max()


def test_ties_at_the_threshold_come_along() -> None:
    scores = torch.tensor([3.0, 2.0, 2.0, 2.0, 1.0])
    assert channel_mask(scores, 0.2).tolist() == [True, True, True, True, False]
    assert channel_mask(scores, 0.4, exact_count=True).tolist() == [True, True, False, False, False]


def test_when_all_are_equal_the_exact_count_is_taken_and_said() -> None:
    with pytest.warns(UserWarning, match="scores tie so that all 10 channels would be salient: the first 2"):
        mask = channel_mask(torch.ones(10))
    assert mask.tolist() == [True, True] + 8 * [False]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert channel_mask(torch.ones(10), exact_count=True).sum() == 2
        assert channel_mask(torch.ones(10), 0.0).sum() == 0 and channel_mask(torch.ones(10), 1.0).all()
        assert channel_mask(torch.arange(10.0), 0.95).all()  # the official count asks for all ten


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_ratios_outside_are_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match=r"ratio must lie in \[0, 1\]"):
        channel_mask(torch.ones(4), ratio)


@pytest.mark.parametrize(
    "scores", [torch.ones(0), torch.ones(2, 2), torch.tensor([1.0, torch.nan]), torch.tensor([1.0, -1.0])]
)
def test_scores_that_are_none_are_refused(scores: torch.Tensor) -> None:
    with pytest.raises((ValueError, TypeError), match="scores"):
        channel_mask(scores)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 8), st.integers(1, 5), st.integers(0, 10_000))
def test_the_bound_holds(rows: int, columns: int, tokens: int, seed: int) -> None:
    W, X = draw(rows, columns, seed=seed).double(), draw(tokens, columns, seed=seed + 1).double()
    Wq = W + draw(rows, columns, seed=seed + 2)
    bound = error_bound(W, Wq, X)
    assert bound.shape == (tokens,)
    assert ((X @ (Wq - W).T).abs().sum(1) <= bound * (1 + 1e-12)).all()


def test_the_bound_is_met_where_one_channel_is_wrong() -> None:
    W, X = draw(3, 4), draw(5, 4, seed=1)
    Wq = W.clone()
    Wq[:, 2] += 1.0
    assert torch.allclose(error_bound(W, Wq, X), (X @ (Wq - W).T).abs().sum(1), atol=1e-5)


def test_keeping_the_largest_inputs_is_best_only_where_errors_are_alike() -> None:
    X, W = torch.tensor([[1.0, 2.0, 3.0]]), torch.zeros(1, 3)

    def best_to_keep(errors: torch.Tensor) -> int:
        kept = [errors.clone().index_fill_(1, torch.tensor([channel]), 0.0) for channel in range(3)]
        return min(range(3), key=lambda channel: float(error_bound(W, kept[channel], X)))

    assert best_to_keep(torch.ones(1, 3)) == 2
    assert best_to_keep(torch.tensor([[9.0, 1.0, 1.0]])) == 0  # |x| is the least there, its error the largest


@pytest.mark.parametrize("name", ["W", "Wq", "X"])
def test_the_bound_names_what_is_wrong(name: str) -> None:
    given_ = {"W": draw(3, 4), "Wq": draw(3, 4), "X": draw(5, 4)}
    with pytest.raises(ValueError, match=f"{name} holds NaN or inf"):
        error_bound(**given_ | {name: given_[name] * torch.nan})
    if name != "W":
        with pytest.raises((ValueError, TypeError), match=name):
            error_bound(**given_ | {name: draw(3, 5)})
