"""The measures: matched by hand on small cases, by brute force on all permutations, and unmoved by relabelling."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from lab.clustering.sp2ot.metrics import (
    SCORES,
    alignment,
    balanced_accuracy,
    by_frequency,
    contingency,
    precision,
    recalls,
    scores,
)

TRUTH = np.repeat(np.arange(10), [40, 30, 20, 10, 9, 8, 7, 3, 2, 1])


def test_alignment_is_the_best_of_all_permutations() -> None:
    rng = np.random.default_rng(0)
    truth, labels = rng.integers(0, 4, 60), rng.integers(0, 4, 60)
    agreement = max(int((np.array(order)[labels] == truth).sum()) for order in permutations(range(4)))
    assert int((alignment(truth, labels, 4)[labels] == truth).sum()) == agreement


def test_a_perfect_clustering_under_other_names_scores_one() -> None:
    names = np.random.default_rng(1).permutation(10)
    found = scores(TRUTH, names[TRUTH], 10)
    assert tuple(found) == SCORES
    assert all(value == pytest.approx(1.0) for value in found.values())


def test_head_medium_and_tail_are_30_40_and_30_percent_of_the_classes() -> None:
    labels = TRUTH.copy()
    labels[np.isin(TRUTH, (7, 8, 9))] = 0  # the tail is swallowed by the largest class
    found = scores(TRUTH, labels, 10)
    assert (found["head"], found["medium"]) == (1.0, 1.0)
    assert found["tail"] == 0.0
    assert found["balanced_accuracy"] == pytest.approx(0.7)
    assert found["balanced_accuracy"] == pytest.approx(
        0.3 * found["head"] + 0.4 * found["medium"] + 0.3 * found["tail"]
    )


def test_balanced_accuracy_counts_rare_classes_in_full() -> None:
    truth = np.array([0] * 99 + [1])
    everything_zero = np.zeros(100, np.int64)
    assert balanced_accuracy(truth, everything_zero, 2) == 0.5
    assert precision(truth, everything_zero) == 0.99
    assert np.isnan(recalls(truth, everything_zero, 3)[2])


def test_precision_weighs_by_mass() -> None:
    truth, labels = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0])
    assert precision(truth, labels) == 0.5
    assert precision(truth, labels, np.array([1.0, 0.0, 0.5, 0.0])) == 1.0
    assert precision(truth, labels, np.array([1.0, 3.0, 0.0, 0.0])) == 0.25


def test_contingency_and_frequency() -> None:
    assert contingency(np.array([0, 1, 1]), np.array([1, 1, 0]), 2).tolist() == [[0, 1], [1, 1]]
    assert by_frequency(np.array([2, 2, 0, 1, 1]), 3).tolist() == [1, 2, 0]


@pytest.mark.parametrize(("truth", "labels", "named"), [([0, 5], [0, 1], "truth"), ([0, 1], [0, -1], "labels")])
def test_bad_labels_are_named(truth: list[int], labels: list[int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        contingency(np.array(truth), np.array(labels), 3)
