"""The deep variant: what the labeler remembers, that it passes no gradient, that training learns, that it can resume."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import nn
from torch.nn import functional

from lab import assets
from lab.clustering.sp2ot import (
    CosineHead,
    PseudoLabeler,
    RhoSchedule,
    knn_similarity,
    partial_uot,
    self_label,
    soft_cross_entropy,
)
from lab.clustering.sp2ot.encoder import (
    CHECKPOINT,
    DigitEncoder,
    contrastive_loss,
    distort,
    load_encoder,
    pretrain,
    recipe,
)
from lab.clustering.sp2ot.heads import prototypes
from lab.clustering.sp2ot.pretrain import neighbour_agreement
from lab.datasets.digits import digits, long_tailed_digits
from lab.train import train

FULL = RhoSchedule(kind="fixed")


def logits(n: int = 40, k: int = 4, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


def test_targets_are_the_plan_and_carry_no_gradient() -> None:
    x = logits().requires_grad_(True)
    labeler = PseudoLabeler(4, steps=10, schedule=RhoSchedule(0.3, 0.3, "fixed"))
    targets = labeler(x)
    assert not targets.requires_grad and targets.dtype == x.dtype
    plan = partial_uot(-functional.log_softmax(x.detach().double(), 1).numpy(), 0.3)
    assert np.allclose(targets.numpy(), 40 * plan, atol=1e-4)
    assert targets.sum().item() / 40 == pytest.approx(0.3, abs=1e-5)
    assert targets.sum(1).max() <= 1 + 1e-5
    soft_cross_entropy(x, targets).backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_soft_cross_entropy_is_the_usual_one_times_the_row_s_mass() -> None:
    x, classes = logits(), torch.arange(40) % 4
    assert torch.allclose(
        soft_cross_entropy(x, 0.25 * functional.one_hot(classes, 4)), 0.25 * functional.cross_entropy(x, classes)
    )


def test_the_switches_are_sela_uot_and_the_schedule() -> None:
    x = logits()
    sela = PseudoLabeler(4, 5, schedule=FULL, reg_m=float("inf"))(x)
    assert torch.allclose(sela.sum(0), torch.full((4,), 10.0), atol=1e-3)
    assert torch.allclose(sela.sum(1), torch.ones(40), atol=1e-4)
    free = PseudoLabeler(4, 5, schedule=FULL, reg=1.0, reg_m=0.0)(x)
    assert torch.allclose(free, functional.softmax(x, 1), atol=1e-4)
    labeler = PseudoLabeler(4, steps=5)
    masses = []
    for _ in range(5):
        masses.append(labeler(x).sum().item() / 40)
        labeler.advance()
    assert masses == pytest.approx([RhoSchedule()(t / 4) for t in range(5)], abs=1e-4)


def test_a_memory_as_large_as_the_data_labels_batches_as_if_all_came_at_once() -> None:
    x = logits(40)
    whole = PseudoLabeler(4, 10, schedule=RhoSchedule(0.5, 0.5, "fixed"))(x)
    labeler = PseudoLabeler(4, 10, schedule=RhoSchedule(0.5, 0.5, "fixed"), memory=40)
    batches = torch.randperm(40, generator=torch.Generator().manual_seed(1)).split(8)
    for rows in batches:
        labeler(torch.randn(8, 4), rows)  # an older view, to be replaced
    for rows in batches:
        last = labeler(x[rows], rows)
    assert torch.allclose(last, whole[batches[-1]], atol=1e-4)


def test_a_full_memory_forgets_the_oldest_samples() -> None:
    labeler = PseudoLabeler(3, 10, memory=6)
    x = logits(12, 3)
    for start in (0, 4, 8):
        labeler(x[start : start + 4], torch.arange(start, start + 4))
        labeler.advance()
    kept = dict(zip(labeler.ids.tolist(), labeler.logits.tolist(), strict=True))
    assert {8, 9, 10, 11} < set(kept) and len(set(kept) & {4, 5, 6, 7}) == 2
    for sample, row in kept.items():
        assert row == pytest.approx(x[sample].tolist())


def test_the_state_resumes_to_the_bit() -> None:
    def run(labeler: PseudoLabeler, seeds: range) -> torch.Tensor:
        for seed in seeds:
            out = labeler(logits(6, 3, seed), torch.arange(6) + 3 * (seed % 2))
            labeler.advance()
        return out

    one = PseudoLabeler(3, 10, memory=9)
    run(one, range(4))
    two = PseudoLabeler(3, 10, memory=9)
    two.load_state_dict(one.state_dict())
    assert torch.equal(run(one, range(4, 8)), run(two, range(4, 8)))


def test_neighbours_share_labels_and_the_absolute_weight_is_the_relative_one_times_n() -> None:
    x, near = logits(40), sp.csr_matrix(np.kron(np.eye(20), [[0, 1.0], [1.0, 0]]))
    pairs: list[float] = []
    for weight in (0.0, 0.5):
        labeler = PseudoLabeler(4, 1, schedule=RhoSchedule(0.5, 0.5, "fixed"), semantic_weight=weight, similarity=near)
        targets = labeler(x)
        pairs.append(float((targets[::2] * targets[1::2]).sum()))
    assert pairs[1] > 1.2 * pairs[0]
    absolute = PseudoLabeler(
        4, 1, schedule=RhoSchedule(0.5, 0.5, "fixed"), semantic_weight_absolute=0.5 * 40, similarity=near
    )
    assert torch.equal(absolute(x), targets)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"n_clusters": 0}, "n_clusters"),
        ({"steps": 0}, "steps"),
        ({"memory": -1}, "memory"),
        ({"semantic_weight": -1.0}, "semantic_weight"),
        ({"semantic_weight": 0.1}, "similarity"),
    ],
)
def test_a_bad_argument_is_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}"):
        PseudoLabeler(**{"n_clusters": 3, "steps": 5, **arguments})


@pytest.mark.parametrize(
    "idx", [[0, 1], [0, 1, 1], [-1, 0, 1], [0, 1, 9], [[0], [1], [2]]], ids=["short", "twice", "below", "beyond", "2-D"]
)
def test_ids_that_name_no_sample_are_refused(idx: list[Any]) -> None:
    labeler = PseudoLabeler(2, 5, memory=6, semantic_weight=0.1, similarity=np.eye(9))
    with pytest.raises((ValueError, TypeError), match="idx"):
        labeler(torch.zeros(3, 2), torch.tensor(idx))


def test_a_similarity_may_be_dense_and_must_be_a_matrix() -> None:
    logits = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    near = sp.random(9, 9, 0.4, format="csr", random_state=0)
    plans = [PseudoLabeler(3, 5, semantic_weight=0.2, similarity=S)(logits) for S in (near, near.toarray())]
    assert torch.equal(*plans)
    with pytest.raises(ValueError, match="similarity is a str"):
        PseudoLabeler(3, 5, semantic_weight=0.2, similarity="near")


@pytest.mark.parametrize("bad", [torch.zeros(4, 5), torch.full((4, 3), float("nan")), torch.zeros(0, 3)])
def test_bad_logits_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"^logits"):
        PseudoLabeler(3, 5)(bad)


@pytest.mark.parametrize("bad", [torch.zeros(0, 3), torch.full((2, 3), float("nan"))])
def test_prototypes_that_are_none_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="^prototypes"):
        CosineHead(bad)


def test_labels_must_have_the_logits_shape() -> None:
    with pytest.raises((ValueError, TypeError), match="targets"):  # the shape checker of the tests says so first
        soft_cross_entropy(torch.zeros(4, 3), torch.zeros(4, 2))


def test_whole_numbers_are_no_logits() -> None:
    with pytest.raises((ValueError, TypeError), match="logits"):  # the shape checker of the tests says so first
        PseudoLabeler(3, 5)(torch.zeros(4, 3).long())


@pytest.fixture(scope="module")
def small() -> tuple[np.ndarray, np.ndarray, DigitEncoder, list[float]]:
    """Long-tailed digits and an encoder pre-trained on them for a second or two."""
    images, truth = long_tailed_digits(10, seed=0)
    trained = train(recipe(images, steps=40, batch=128, seed=0))
    encoder = pretrain(images, steps=40, batch=128, seed=0)
    assert all(
        torch.equal(one, two) for one, two in zip(encoder.parameters(), trained.model.encoder.parameters(), strict=True)
    )
    return images, truth, encoder, [loss for _, loss in trained.curve]


def test_contrastive_loss_by_hand() -> None:
    one, two = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    by_hand = -np.log(np.exp(2) / (np.exp(2) + 2))  # the partner at similarity 1, two others at 0, temperature 1/2
    assert contrastive_loss(one, two, 0.5).item() == pytest.approx(by_hand, rel=1e-5)


def test_views_are_drawn_from_the_generator_and_stay_pictures() -> None:
    images = torch.from_numpy(digits()[0][:20])
    one, again, other = (distort(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert one.min() >= 0 and one.max() <= 1
    assert 0.5 < float((one * images).sum() / (images * images).sum()) < 1.2


def test_pretraining_learns_and_is_deterministic(small: tuple[Any, ...]) -> None:
    images, truth, encoder, losses = small
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.3
    embedded = encoder(torch.from_numpy(images)).numpy()
    pixels = neighbour_agreement(pretrain(images, steps=1)(torch.from_numpy(images)).numpy(), truth)
    assert neighbour_agreement(embedded, truth) > pixels
    one, two = (pretrain(images[:40], steps=3, batch=32, seed=5).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any(weight.requires_grad for weight in encoder.parameters())


def test_nothing_touches_the_global_random_state() -> None:
    state = torch.get_rng_state()
    pretrain(digits()[0][:8], steps=2)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("batch", [None, 256])
def test_the_loop_learns_its_own_labels(small: tuple[Any, ...], batch: int | None) -> None:
    images, _, encoder, _ = small
    data, generator = torch.from_numpy(images), torch.Generator().manual_seed(0)
    views = [encoder.features(distort(data, generator)) for _ in range(2)]
    z = encoder(data)
    model = nn.Sequential(nn.Linear(256, 128), CosineHead(prototypes(z, 10, "random", generator)))
    model[0].load_state_dict(encoder.last.state_dict())
    labeler = PseudoLabeler(
        10,
        30,
        schedule=RhoSchedule(0.2),
        semantic_weight=0.02,
        similarity=knn_similarity(z.numpy(), 10),
        memory=0 if batch is None else 1024,
    )
    steps = list(
        self_label(
            model,
            labeler,
            lambda rows, g: (views[0][rows], views[1][rows]),
            len(images),
            lr=2e-3,
            generator=generator,
            batch=batch,
        )
    )
    relative = [step.loss / step.rho for step in steps]
    assert len(steps) == 30 and np.mean(relative[-3:]) < 0.8 * np.mean(relative[:3])
    assert steps[0].rho == pytest.approx(0.2 + 0.8 * np.exp(-5)) and steps[-1].rho == 1.0
    assert all(len(step.rows) == len(step.targets) == (batch or len(images)) for step in steps)


def test_the_shipped_encoder_is_the_card_s(small: tuple[Any, ...]) -> None:
    encoder, digit_map = load_encoder()
    images, labels = digits()
    assert digit_map.shape == (1797, 2)
    found = neighbour_agreement(encoder(torch.from_numpy(images)).numpy(), labels)
    assert found == pytest.approx(assets.card(CHECKPOINT).metrics["neighbour_agreement"], abs=2e-3)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="images"):
        pretrain(digits()[0][:1], steps=1)


def test_no_warning_for_the_early_stop_of_the_semantic_steps() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        near = knn_similarity(np.random.default_rng(0).standard_normal((40, 2)), 8)
        labels = PseudoLabeler(4, 5, semantic_weight=5.0, similarity=near)(logits())
    assert torch.isfinite(labels).all() and (labels.sum(1) <= 1 + 1e-5).all()
