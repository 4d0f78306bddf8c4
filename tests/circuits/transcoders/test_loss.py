"""The loss: by hand, its scale law, and remedies whose gradients reach dead features alone."""

from __future__ import annotations

import pytest
import torch

from lab.circuits.transcoders.coder import CoderError
from lab.circuits.transcoders.loss import TranscoderLoss, official_lambda


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
def test_a_remedy_reaches_dead_features_alone(remedy: str) -> None:
    torch.manual_seed(0)
    pre = (torch.randn(16, 9) - 1).requires_grad_()
    weight = torch.randn(9, 5, requires_grad=True)
    residual = torch.randn(16, 5, requires_grad=True)
    dead = torch.tensor([True, False] * 4 + [True])
    term = TranscoderLoss(lam=0.1, dead=remedy).remedy(pre, residual, weight, dead)
    term.backward()
    assert residual.grad is None
    assert (pre.grad[:, ~dead] == 0).all() and (weight.grad[~dead] == 0).all()
    assert (pre.grad[:, dead] != 0).any() and (weight.grad[dead] != 0).any()


def test_a_step_down_the_remedy_explains_more_of_the_residual() -> None:
    torch.manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(5), dim=0)
    residual = torch.rand(64, 1) * direction
    pre = torch.full((64, 1), -0.5, requires_grad=True)
    for remedy in ("auxk", "ghost"):
        pre.grad = None
        TranscoderLoss(lam=0.1, dead=remedy).remedy(pre, residual, direction[None], torch.tensor([True])).backward()
        assert (pre.grad.sum() < 0) or remedy == "ghost"  # towards firing; ghosts are held at half the residual's norm


def test_without_dead_features_there_is_no_remedy() -> None:
    for remedy in ("none", "auxk", "ghost"):
        loss = TranscoderLoss(lam=0.1, dead=remedy)
        assert (
            loss.remedy(torch.randn(4, 3), torch.randn(4, 2), torch.randn(3, 2), torch.zeros(3, dtype=torch.bool)) == 0
        )
    alive = TranscoderLoss(lam=0.1, dead="none")
    assert alive.remedy(torch.randn(4, 3), torch.randn(4, 2), torch.randn(3, 2), torch.ones(3, dtype=torch.bool)) == 0


@pytest.mark.parametrize(
    ("values", "said"),
    [({"lam": -1.0}, "lam must"), ({"lam": float("nan")}, "lam must"), ({"lam": 0.1, "mse": "l1"}, "mse"),
     ({"lam": 0.1, "dead": "prayer"}, "dead"), ({"lam": 0.1, "aux_weight": -1.0}, "aux_weight must")],
)  # fmt: skip
def test_bad_values(values: dict[str, object], said: str) -> None:
    with pytest.raises((CoderError, TypeError), match=said):
        TranscoderLoss(**values)
