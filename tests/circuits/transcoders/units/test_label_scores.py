"""Naming units: F1 against brute force, labels chosen on one half and scored on the other."""

from __future__ import annotations

import pytest
import torch

from lab.circuits.transcoders.errors import CircuitError
from lab.circuits.transcoders.units.label_scores import QUANTILES, f1_scores, label_scores


def draw(seed: int, *shape: int, share: float = 0.3) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def test_f1_is_scikit_learn_s() -> None:
    from sklearn.metrics import f1_score

    active, labels = draw(0, 80, 5), draw(1, 80, 7, share=0.1)
    active[:, 4], labels[:, 6] = False, False
    found = f1_scores(active, labels)
    for unit in range(5):
        for column in range(7):
            expected = f1_score(labels[:, column].numpy(), active[:, unit].numpy(), zero_division=0.0)
            assert found[unit, column].item() == pytest.approx(expected, abs=1e-6)


def test_a_unit_that_is_a_label_scores_one_and_one_that_is_its_opposite_less() -> None:
    labels = draw(2, 400, 6)
    z = torch.stack([labels[:, 3] * 2.5, (~labels[:, 3]).float()], dim=1)
    found = label_scores(z, labels)
    assert found.f1[0] == 1 and found.label[0] == 3 and found.threshold[0] == 0
    assert found.f1[1] < 0.6


def test_the_label_is_chosen_on_the_first_half_and_scored_on_the_second() -> None:
    labels = draw(3, 400, 5)
    z = torch.cat([labels[:200, 1], labels[200:, 2]])[:, None].float()
    found = label_scores(z, labels)
    active, chosen = z[200:, 0] > 0, labels[200:, 1]
    assert found.label[0] == 1
    assert found.f1[0].item() == pytest.approx(2 * float((active & chosen).sum()) / float(active.sum() + chosen.sum()))


def test_trying_many_labels_earns_nothing() -> None:
    """Noise against 2,000 labels of noise: the best on its own half is far above chance, the score is not."""
    labels, z = draw(4, 400, 2000, share=0.1), draw(5, 400, 40, share=0.1).float()
    flattering = f1_scores(z[:200] > 0, labels[:200]).max(1).values.mean()
    assert flattering > 0.3
    assert label_scores(z, labels).mean < 0.15


def test_dead_units_are_left_out() -> None:
    labels = draw(6, 50, 3)
    z = torch.stack([torch.zeros(50), labels[:, 0].float(), -torch.ones(50)], dim=1)
    found = label_scores(z, labels)
    assert found.unit.tolist() == [1] and found.units == 3 and found.mean == 1.0


def test_a_dense_unit_finds_its_threshold() -> None:
    """Active everywhere, and far more so where its label says yes: only a quantile can tell."""
    labels = draw(7, 2000, 4, share=0.1)
    noise = torch.rand(2000, generator=torch.Generator().manual_seed(8))
    z = (noise + 2 * labels[:, 2])[:, None]
    assert label_scores(z, labels).mean < 0.3
    found = label_scores(z, labels, QUANTILES)
    assert found.mean > 0.85 and found.label[0] == 2 and 0.5 < found.threshold[0] < 1.01


def test_thresholds_never_hurt_where_they_are_chosen() -> None:
    labels, z = draw(9, 300, 6), torch.randn(300, 8, generator=torch.Generator().manual_seed(10))
    plain, more = label_scores(z, labels), label_scores(z, labels, QUANTILES)
    for unit in range(8):
        best = [
            f1_scores(z[:150, unit : unit + 1] > found.threshold[unit], labels[:150]).max() for found in (plain, more)
        ]
        assert best[1] >= best[0]


def test_bad_inputs_are_named() -> None:
    z, labels = torch.rand(6, 2), draw(11, 6, 3)
    with pytest.raises(CircuitError, match="quantiles must lie between 0 and 1, got 1.5"):
        label_scores(z, labels, (0.5, 1.5))
    with pytest.raises((TypeError, ValueError), match="activations"):
        label_scores(z[:1], labels[:1])
    for function in (lambda: label_scores(z, labels[:5]), lambda: f1_scores(z > 0, labels[:5])):
        with pytest.raises((TypeError, ValueError), match="labels"):
            function()
