"""Salient weights stay, signs move, gradients go straight through; a trained layer becomes an ordinary one again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from transformers.pytorch_utils import Conv1D

from lab.quantization.blocks import weight_of
from lab.quantization.grid import fit_grid
from lab.quantization.pb_llm import PBWeight, partially_binarize, pb_mask, to_linear, two_sided_mask
from lab.quantization.weights import unpack


def made(kind: Any = nn.Linear, **settings: Any) -> tuple[nn.Module, PBWeight]:
    torch.manual_seed(0)
    layer = nn.Linear(12, 8) if kind is nn.Linear else Conv1D(8, 12)
    nn.init.normal_(layer.weight, std=0.5)
    return layer, partially_binarize(layer, **{"low_frac": 0.75, **settings})


def train(layer: nn.Module, steps: int = 20, **settings: Any) -> list[float]:
    generator = torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(64, 12, generator=generator), torch.randn(64, 8, generator=generator)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2, **settings)
    losses = []
    for _ in range(steps):
        loss = (layer(inputs) - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
def test_salient_weights_are_frozen_and_the_rest_learns(kind: Any) -> None:
    layer, part = made(kind)
    before = weight_of(layer).detach().clone()
    losses = train(layer, weight_decay=0.5)
    after = weight_of(layer).detach()
    assert losses[-1] < losses[0]
    assert torch.equal(after[~part.low], before[~part.low]) and not torch.equal(after[part.low], before[part.low])
    gradient = layer.parametrizations.weight.original.grad
    gradient = gradient if kind is nn.Linear else gradient.T
    assert (gradient[~part.low] == 0).all() and (gradient[part.low] != 0).any()


def test_salient_weights_may_train() -> None:
    layer, part = made(freeze=False)
    before = layer.weight.detach().clone()
    train(layer)
    assert not torch.equal(layer.weight[~part.low], before[~part.low])
    assert (layer.parametrizations.weight.original.grad[~part.low] != 0).any()


def test_the_weight_is_signs_with_a_scale_and_eight_bits() -> None:
    torch.manual_seed(0)
    weight = nn.init.normal_(torch.empty(8, 12), std=0.5)
    layer, part = made()
    latent = layer.parametrizations.weight.original.detach()
    assert torch.equal(part.low, pb_mask(latent, 0.75)) and latent.shape == weight.shape
    for j in range(8):
        row, low = latent[j], part.low[j]
        assert torch.allclose(layer.weight[j, low].abs(), row[low].abs().mean().expand(int(low.sum())))
        assert torch.equal(layer.weight[j, low] >= 0, row[low] >= 0)
    assert torch.equal(layer.weight[~part.low], fit_grid(latent, 8).round(latent)[~part.low])


def test_the_official_quirks() -> None:
    layer, part = made(scale="layer", two_sided=True)
    latent = layer.parametrizations.weight.original.detach()
    assert torch.equal(part.low, two_sided_mask(latent, 0.25))
    assert torch.allclose(layer.weight[part.low].abs(), latent[part.low].abs().mean())


def test_gradients_go_straight_through_with_alpha_held() -> None:
    latent = torch.tensor([[0.5, -2.0, 0.2, 3.0]], requires_grad=True)
    low = torch.tensor([[True, True, True, False]])
    outer = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    for straight, expected in (("identity", [0.9, 1.8, 2.7, 0.0]), ("clipped", [0.9, 0.0, 2.7, 0.0])):
        (PBWeight(latent, low, straight=straight)(latent) * outer).sum().backward()
        assert latent.grad[0].tolist() == pytest.approx(expected)
        latent.grad = None


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
def test_an_exported_layer_computes_the_same_and_is_ordinary(kind: Any) -> None:
    layer, part = made(kind)
    train(layer, steps=5)
    inputs = torch.randn(3, 12)
    expected, stored = layer(inputs), part.stored(layer.parametrizations.weight.original)
    back = unpack(load(save(stored.pack())))
    assert torch.equal(back.dequantize(), stored.dequantize())
    assert torch.equal(back.dequantize()[~part.low], weight_of(layer)[~part.low])
    assert torch.allclose(back.dequantize(), weight_of(layer), rtol=1e-3)
    assert to_linear(layer) is layer and type(layer) is kind
    assert torch.equal(layer(inputs), expected) and set(layer.state_dict()) == {"weight", "bias"}


def test_the_state_goes_to_a_file_and_back() -> None:
    layer, _ = made()
    train(layer, steps=3)
    other, _ = made()
    other.load_state_dict(load(save(layer.state_dict())))
    assert torch.equal(other.weight, layer.weight)


@pytest.mark.parametrize("low_frac", [0.0, 1.0])
def test_the_ends(low_frac: float) -> None:
    for two_sided in (False, True):
        layer, part = made(low_frac=low_frac, two_sided=two_sided)
        assert part.low.float().mean() == low_frac and torch.isfinite(layer.weight).all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"low_frac": 1.1}, r"low_frac must lie in \[0, 1\], got 1.1"),
        ({"mask": torch.ones(12, 8) > 0}, "^mask must be torch.bool of the weight's shape"),
        ({"scale": "column"}, "scale"),
        ({"straight": "through"}, "straight"),
        ({"high_bits": 9}, r"bits must lie in 1\.\.8, got 9"),
    ],
)
def test_bad_input_is_a_sentence_and_leaves_the_layer_alone(settings: dict[str, Any], says: str) -> None:
    layer = nn.Linear(12, 8)
    with pytest.raises((ValueError, TypeError), match=says):
        partially_binarize(layer, **settings)
    assert type(layer) is nn.Linear


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises((ValueError, TypeError), match="low"):  # the shape checker of the tests may come first
        PBWeight(torch.ones(2, 3), torch.ones(3, 2) > 0)


def test_other_layers_are_refused() -> None:
    with pytest.raises(TypeError, match="layer must be an nn.Linear or a Conv1D, got Embedding"):
        partially_binarize(nn.Embedding(3, 4))
    layer, part = made()
    with pytest.raises(ValueError, match="partly binary already"):
        partially_binarize(layer)
    with pytest.raises(ValueError, match="layer is not partly binary"):
        to_linear(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="weight holds NaN or inf"):
        PBWeight(torch.full((8, 12), torch.nan), part.low)
