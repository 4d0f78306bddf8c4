"""Long-tailed digits and blobs: the class counts are the formula's, and the seed draws everything else."""

from __future__ import annotations

import numpy as np
import pytest

from lab.datasets.blobs import LARGEST, long_tailed_blobs
from lab.datasets.digits import class_counts, digits, long_tailed_digits, long_tailed_indices


def test_counts_follow_the_geometric_tail() -> None:
    assert class_counts(10) == (174, 134, 104, 80, 62, 48, 37, 29, 22, 17)
    assert class_counts(1) == (174,) * 10
    images, labels = long_tailed_digits(10, seed=3)
    assert images.shape == (707, 8, 8) and images.dtype == np.float32
    assert images.min() >= 0 and images.max() == 1
    assert tuple(sorted(np.bincount(labels), reverse=True)) == class_counts(10)


def test_the_seed_draws_which_digit_is_rare_and_which_images_are_kept() -> None:
    rare = {int(np.bincount(long_tailed_digits(10, seed)[1]).argmin()) for seed in range(12)}
    assert len(rare) > 4
    first, again, other = (long_tailed_indices(10, seed) for seed in (5, 5, 6))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert len(set(first.tolist())) == len(first), "no image twice"
    images, labels = long_tailed_digits(10, 5)
    assert np.array_equal(images, digits()[0][first]) and np.array_equal(labels, digits()[1][first])


def test_what_is_handed_out_can_be_changed_without_harm() -> None:
    images, _ = digits()
    images[:] = 0
    assert digits()[0].max() == 1


@pytest.mark.parametrize("imbalance", [0.5, 175, float("nan")])
def test_a_bad_imbalance_is_named(imbalance: float) -> None:
    with pytest.raises(ValueError, match="imbalance"):
        long_tailed_digits(imbalance)
    with pytest.raises(ValueError, match="imbalance"):
        long_tailed_blobs(imbalance)


def test_blobs_are_long_tailed_and_stand_apart() -> None:
    points, labels = long_tailed_blobs(16, seed=1)
    assert np.bincount(labels).tolist() == [LARGEST, LARGEST // 2, LARGEST // 4, LARGEST // 8, LARGEST // 16]
    means = np.array([points[labels == k].mean(0) for k in range(5)])
    nearest = np.linalg.norm(points[:, None] - means, axis=2).argmin(1)
    assert np.mean(nearest == labels) > 0.9
    assert np.array_equal(points, long_tailed_blobs(16, seed=1)[0])
