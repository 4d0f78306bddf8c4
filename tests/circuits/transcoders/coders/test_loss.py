"""The loss: by hand, its scale law, and remedies whose gradients reach dead features alone."""

from __future__ import annotations

import pytest
import torch

from lab.circuits.transcoders.coders.loss import TranscoderLoss, official_lambda
from lab.circuits.transcoders.errors import CircuitError


def test_by_hand() -> None:
    y_hat, y = torch.tensor([[2.5], [-1.0]]), torch.tensor([[4.0], [-1.0]])
    z = torch.tensor([[2.0, 0.0], [0.0, 1.5]])
    loss = TranscoderLoss(lam=0.1)
    assert loss.error(y_hat, y).item() == pytest.approx(0.28125)
    assert loss.sparsity(z).item() == pytest.approx(0.175)
    assert TranscoderLoss(lam=0.1, mse="plain").error(y_hat, y).item() == pytest.approx(1.125)


def test_the_loss_scales_with_the_target() -> None:
    """Multiply z, biases and y by c: error and sparsity are multiplied by c, so lambda need not know the scale."""
    y_hat, y, z = torch.randn(8, 5), torch.randn(8, 5), torch.rand(8, 9)
    loss = TranscoderLoss(lam=0.3)
    for c in (3.0, 0.1):
        assert torch.allclose(loss.error(c * y_hat, c * y), c * loss.error(y_hat, y), rtol=1e-5)
        assert torch.allclose(loss.sparsity(c * z), c * loss.sparsity(z), rtol=1e-5)


def test_lambda_times_width_is_what_carries_over() -> None:
    assert official_lambda(768) == pytest.approx(1.4e-4) and official_lambda(128) * 128 == pytest.approx(0.10752)


@pytest.mark.parametrize("remedy", ["auxk", "ghost"])
def test_a_remedy_lowers_the_residual_and_leaves_it_alone(remedy: str) -> None:
    """A few steps down the term alone: the dead feature comes to explain the residual, which gets no gradient."""
    torch.manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(5), dim=0)
    residual = ((1 + torch.rand(64, 1)) * direction).requires_grad_()
    weight = torch.randn(1, 5, requires_grad=True)
    pre = torch.full((64, 1), -0.5, requires_grad=True)
    term = TranscoderLoss(lam=0.1, dead=remedy, aux_weight=1.0)
    for _ in range(200):
        term.dead_feature_loss(pre, residual, weight).backward()
        with torch.no_grad():
            for part in (pre, weight):
                part -= 0.5 * part.grad
                part.grad = None
    assert residual.grad is None
    assert torch.nn.functional.cosine_similarity(weight[0], direction, dim=0).abs() > 0.9


def test_without_dead_features_there_is_no_remedy() -> None:
    for remedy in ("none", "auxk", "ghost"):
        assert (
            TranscoderLoss(lam=0.1, dead=remedy).dead_feature_loss(
                torch.randn(4, 0), torch.randn(4, 2), torch.randn(0, 2)
            )
            == 0
        )
    assert (
        TranscoderLoss(lam=0.1, dead="none").dead_feature_loss(torch.randn(4, 3), torch.randn(4, 2), torch.randn(3, 2))
        == 0
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"lam": -1.0}, "lam must"),
        ({"lam": float("nan")}, "lam must"),
        ({"lam": 0.1, "mse": "l1"}, "mse"),
        ({"lam": 0.1, "dead": "prayer"}, "dead"),
        ({"lam": 0.1, "aux_weight": -1.0}, "aux_weight must"),
    ],
)
def test_bad_values(values: dict[str, object], said: str) -> None:
    with pytest.raises((CircuitError, TypeError), match=said):
        TranscoderLoss(**values)
