"""Learned rounding: what AdaRound, AdaQuant and SignRound may and may not do to a weight, and that they help."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lab.quantization.baselines import RTN
from lab.quantization.grid import fit_grid
from lab.quantization.pipeline import quantize_model
from lab.quantization.rounding import (
    AdaQuant,
    AdaQuantQuantizer,
    AdaRound,
    AdaRoundQuantizer,
    LearnedRounding,
    RoundingMethod,
    SignRound,
    SignRoundQuantizer,
    SignSGD,
    check_settings,
    moved,
    nearest_code,
    storable,
)
from lab.quantization.weights import Affine, unpack

QUANTIZERS: list[Any] = [AdaRoundQuantizer, AdaQuantQuantizer, SignRoundQuantizer]
METHODS: list[Any] = [AdaRound, AdaQuant, SignRound]
PERS = ["tensor", "row", 4]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def learn(quantizer: LearnedRounding, steps: int = 30, lr: float = 0.1) -> None:
    """Towards another weight, near enough that not all is clipped."""
    goal = quantizer().detach() + 0.5 * draw(*quantizer.shape, seed=5)
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        (quantizer() - goal).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("per", PERS)
@pytest.mark.parametrize("kind", [AdaQuantQuantizer, SignRoundQuantizer])
def test_it_starts_at_round_to_nearest_bit_for_bit(kind: Any, per: Any) -> None:
    weight = draw(6, 12) * 0.07
    for bits, init in ((2, "mse"), (4, "minmax"), (8, "mse")):
        quantizer = kind(weight, bits, per=per, init=init)
        assert torch.equal(quantizer(), Affine.of(weight, fit_grid(weight, bits, per=per, init=init)).dequantize())
        assert not moved(quantizer).any()


@pytest.mark.parametrize("per", PERS)
@pytest.mark.parametrize("kind", QUANTIZERS)
def test_what_is_stored_is_what_was_computed(kind: Any, per: Any) -> None:
    quantizer = kind(draw(6, 12), 3, per=per)
    learn(quantizer)
    quantizer.eval()
    stored = quantizer.finish()
    assert moved(quantizer).any() and torch.equal(stored.dequantize(), quantizer())
    assert torch.equal(unpack(load(save(stored.pack()))).dequantize(), quantizer())
    assert stored.storage() == Affine.of(draw(6, 12), fit_grid(draw(6, 12), 3, per=per)).storage()


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_convolutions_and_parametrizations(kind: Any) -> None:
    layer = nn.Conv2d(2, 6, 2)
    quantizer = kind(layer.weight, 3)
    parametrize.register_parametrization(layer, "weight", quantizer)
    layer.weight.square().sum().backward()
    assert all(parameter.grad is not None for parameter in quantizer.parameters())
    layer.eval()
    assert torch.equal(layer.weight, quantizer.finish().dequantize().view(6, 2, 2, 2))
    assert moved(quantizer).shape == (6, 2, 2, 2)


def test_adaround_starts_unrounded_and_would_round_to_nearest() -> None:
    weight = draw(8, 20, dtype=torch.float64)
    quantizer = AdaRoundQuantizer(weight, 4)
    assert torch.allclose(quantizer(), weight.clamp(quantizer().amin(1, True), quantizer().amax(1, True)), atol=1e-9)
    fraction = quantizer.steps - quantizer.steps.floor()
    assert torch.allclose(quantizer.h(), fraction, atol=1e-9)
    assert torch.equal(quantizer.a >= 0, fraction >= 0.5)
    assert not moved(quantizer).any()


def test_adaround_moves_up_or_down_and_no_further() -> None:
    weight = draw(8, 20)
    quantizer = AdaRoundQuantizer(weight, 3, per="row")
    for size in (1.0, 5.0, 100.0):
        with torch.no_grad():
            quantizer.a.copy_(size * draw(*quantizer.a.shape, seed=2))
        assert (quantizer.h() >= 0).all() and (quantizer.h() <= 1).all()
        codes, scale, zero = quantizer.integers()
        off = (scale * (codes.float() - zero.float()) - weight).abs() / scale
        assert (off <= 1 + 1e-4)[(codes > 0) & (codes < 7)].all()
        assert moved(quantizer).abs().max() == 1
        assert torch.equal(scale, fit_grid(weight, 3).scale)
    assert torch.allclose(quantizer.eval()(), quantizer.train()(), atol=1e-6)  # 100: h is 0 or 1


def test_adarounds_regulariser_by_hand() -> None:
    quantizer = AdaRoundQuantizer(torch.tensor([[0.25, 0.5, 3.0]]), 2, regularizer=0.5)  # h: 1/4, 1/2, 0
    assert quantizer.penalty(0.0) == quantizer.penalty(0.19) == 0
    for done, beta in ((0.2, 20.0), (0.6, 11.0), (1.0, 2.0)):
        penalty = quantizer.penalty(done)
        assert isinstance(penalty, Tensor)
        assert penalty.item() == pytest.approx(0.5 * (1 - 0.5**beta + 1 + 0), rel=1e-5)
    with torch.no_grad():
        quantizer.a.copy_(torch.tensor([[[0.3, -0.3, 0.0]]]))
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        penalty = quantizer.penalty(1.0)
        assert isinstance(penalty, Tensor)
        penalty.backward()
        optimizer.step()
    assert quantizer.h().flatten().tolist() == [1.0, 0.0, 0.5]  # to the nearer end; from the middle nowhere


def test_adaquant_moves_as_far_as_it_likes_and_signround_one_point() -> None:
    for kind, furthest in ((AdaQuantQuantizer, 2), (SignRoundQuantizer, 1)):
        quantizer = kind(draw(6, 12), 4, per="row")
        with torch.no_grad():
            quantizer.v.fill_(2.0)
        assert int(quantizer.integers()[0].int().amax()) <= 15
        quantizer()
        assert int(moved(quantizer).abs().max()) == furthest
    assert (quantizer.v.abs() <= 0.5).all()


def test_gradients_go_straight_through_and_stop_at_the_ends() -> None:
    steps = torch.tensor([[[-0.6, -0.4, 1.2, 3.4, 3.6]]], dtype=torch.float64, requires_grad=True)
    out = nearest_code(steps, torch.zeros(1, 1, 1, dtype=torch.float64), 3)
    out.sum().backward()
    assert out.tolist() == [[[0, 0, 1, 3, 3]]] and steps.grad is not None
    assert steps.grad.tolist() == [[[0, 1, 1, 1, 0]]]


def test_adaquants_gradients_are_those_of_the_plain_formula() -> None:
    weight, upstream = draw(4, 8, dtype=torch.float64), draw(4, 8, seed=1, dtype=torch.float64)
    quantizer = AdaQuantQuantizer(weight, 3)
    with torch.no_grad():
        quantizer.v.copy_(0.4 * draw(4, 1, 8, seed=2, dtype=torch.float64))
        quantizer.d1 += 0.1
        quantizer.d1.copy_(quantizer.scale.log())
    (quantizer() * upstream).sum().backward()
    v, d1 = (part.detach().clone().requires_grad_() for part in (quantizer.v[:, 0], quantizer.d1[:, 0]))
    divided = (weight + quantizer.start[:, 0] * v) / d1.exp()
    codes = torch.clamp(divided + (divided.round() - divided).detach(), -quantizer.zero[:, 0], 7 - quantizer.zero[:, 0])
    (codes * d1.exp() * upstream).sum().backward()
    assert v.grad is not None and torch.allclose(quantizer.v.grad[:, 0], v.grad, atol=1e-10)
    assert d1.grad is not None and torch.allclose(quantizer.d1.grad[:, 0], d1.grad, atol=1e-10)


def test_a_scale_is_what_float16_holds() -> None:
    scales = torch.logspace(-7, 4, 200).half().float()
    assert torch.equal(storable(scales.log()), scales)
    assert torch.isfinite(storable(torch.tensor([-1e4, 1e4]))).all() and float(storable(torch.tensor(-1e4))) > 0


@pytest.mark.parametrize(
    "ours", [AdaRound(2, "row", 120, 0.1), AdaQuant(2, "row"), SignRound(2, "row")], ids=lambda one: one.key
)
def test_every_method_beats_rounding(ours: RoundingMethod) -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    model = transformers.BertModel(config).eval()
    with torch.no_grad():
        for layer in model.encoder.layer.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(8)
    ids = [torch.randint(1, 30, (4, 8), generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    calibration = [{"input_ids": each} for each in ids]
    plain = quantize_model(model, RTN(bits=2, per="row", init="mse"), calibration)
    learned = quantize_model(model, ours, calibration)
    assert learned.blocks[0].error < 0.9 * plain.blocks[0].error
    assert learned.storage() == plain.storage()


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_bad_weights_are_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="a group of 3 inputs does not divide the weight's 8"):
        kind(draw(4, 8), per=3)
    with pytest.raises(ValueError, match="weight holds NaN or inf"):
        kind(draw(4, 8) * math.nan)
    with pytest.raises(ValueError, match=r"bits must lie in 2\.\.8, got 1"):
        kind(draw(4, 8), 1)
    with pytest.raises((ValueError, TypeError), match="weight must"):
        kind(draw(4, 8).long())
    with pytest.raises(ValueError, match=r"weight must have the shape \(4, 8\), got \(8, 4\)"):
        kind(draw(4, 8))(draw(8, 4))


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"bits": 9}, r"bits must lie in 2\.\.8, got 9"),
        ({"per": "column"}, "per"),
        ({"init": "best"}, "init"),
        ({"steps": -1}, "steps must be at least 0, got -1"),
        ({"lr": 0.0}, r"lr must be positive, got 0\.0"),
        ({"lr": math.nan}, "lr must be positive, got nan"),
    ],
)
def test_bad_settings_are_refused(kind: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        kind(**settings)


def test_other_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="regularizer must be at least 0, got -1"):
        AdaRoundQuantizer(draw(2, 4), regularizer=-1.0)
    with pytest.raises(ValueError, match="regularizer must be at least 0, got nan"):
        AdaRound(regularizer=math.nan)
    with pytest.raises(ValueError, match="lr must be positive, got 0"):
        SignSGD([torch.zeros(1, requires_grad=True)], lr=0)
    with pytest.raises(TypeError, match="quantizer"):
        moved(nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises((ValueError, TypeError), match="per"):
        check_settings(4, "column", "mse")  # type: ignore[arg-type]
    with pytest.raises((ValueError, TypeError), match="init"):
        check_settings(4, "row", "best")  # type: ignore[arg-type]
