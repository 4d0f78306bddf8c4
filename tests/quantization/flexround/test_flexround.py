"""FlexRound: starts at round-to-nearest, gradients in closed form, what is stored is what was computed, exhaustive search."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lab.quantization.baselines import RTN
from lab.quantization.flexround import FlexRound, FlexRoundQuantizer, PublishedFlexRound, moved
from lab.quantization.flexround.quantizer import FARTHEST
from lab.quantization.grid import fit_grid
from lab.quantization.pipeline import Quantized, quantize_model
from lab.quantization.weights import Affine, unpack

SIZES = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
GPT2 = {
    "vocab_size": 30,
    "n_positions": 16,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
FAMILIES: dict[str, Any] = {
    "bert": lambda: transformers.BertModel(transformers.BertConfig(**SIZES)),
    "gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2)),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)),
}
GRIDS: list[dict[str, Any]] = [{"per": per} for per in ("tensor", "row", 4)]
SWITCHES = [{}, {"use_s3": False}, {"use_s4": True}, {"learn_s1": False}]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def stir(quantizer: FlexRoundQuantizer, size: float = 0.4) -> None:
    """Other parameters than the start's, on a step that float16 holds, so that all forms compute the same."""
    with torch.no_grad():
        for number, parameter in enumerate((quantizer.d2, quantizer.d3, quantizer.d4)):
            if parameter is not None:
                parameter.copy_(size * draw(*parameter.shape, seed=number + 1, dtype=parameter.dtype))
        if quantizer.d1.requires_grad:
            quantizer.d1 += 0.2 * draw(*quantizer.d1.shape, seed=9, dtype=quantizer.d1.dtype)
            quantizer.d1.copy_(quantizer.scale.log())


def learn(quantizer: FlexRoundQuantizer, steps: int = 5, lr: float = 0.05) -> None:
    """Some steps towards another weight."""
    optimizer = torch.optim.Adam([each for each in quantizer.parameters() if each.requires_grad], lr=lr)
    goal = quantizer().detach() + draw(*quantizer.shape, seed=5)
    for _ in range(steps):
        optimizer.zero_grad()
        (quantizer() - goal).square().sum().backward()
        optimizer.step()


def likely(grid: dict[str, Any]) -> str:
    return "-".join(str(value) for value in grid.values())


@pytest.mark.parametrize("grid", GRIDS, ids=likely)
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("init", ["minmax", "mse"])
def test_it_starts_at_round_to_nearest_bit_for_bit(grid: dict[str, Any], bits: int, init: Any) -> None:
    weight = draw(6, 12) * 0.07
    quantizer = FlexRoundQuantizer(weight, bits, init=init, **grid)
    stored = Affine.of(weight, fit_grid(weight, bits, init=init, **grid))
    assert torch.equal(quantizer(), stored.dequantize())
    assert torch.equal(quantizer.integers()[0], stored.codes) and quantizer.finish().storage() == stored.storage()
    assert not moved(quantizer).any()


@pytest.mark.parametrize("grid", GRIDS, ids=likely)
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_gradients_are_those_of_the_plain_formula(grid: dict[str, Any], switches: dict[str, Any]) -> None:
    weight, upstream = draw(6, 12, dtype=torch.float64), draw(6, 12, seed=3, dtype=torch.float64)
    ours = FlexRoundQuantizer(weight, 3, **grid, **switches)
    plain = PublishedFlexRound(weight, 3, **grid, **switches)
    stir(ours)
    plain.load_state_dict(ours.state_dict())
    assert torch.allclose(ours(), plain(), atol=1e-12, rtol=0)
    codes = ours.integers()[0]
    assert (codes == 0).any() and (codes == 7).any()  # some were clipped
    for quantizer in (ours, plain):
        (quantizer() * upstream).sum().backward()
    theirs = dict(plain.named_parameters())
    for name, parameter in ours.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None and name == "d1"
            continue
        assert parameter.grad is not None and theirs[name].grad is not None
        assert (parameter.grad - theirs[name].grad).abs().max() < 1e-10, name
        assert parameter.grad.abs().max() > 1e-3


def test_gradients_in_closed_form_and_by_finite_differences() -> None:
    """dL/dd2 = -W/S' G R, dL/dd1 = sum G (s1 q - R W/S'); and the slopes of the function with the rounding's error frozen."""
    weight, upstream = draw(5, 8, dtype=torch.float64), draw(5, 8, seed=3, dtype=torch.float64)
    quantizer = FlexRoundQuantizer(weight, 3)
    stir(quantizer)
    out = quantizer()
    (out * upstream).sum().backward()
    factor = quantizer.S2 * quantizer.s3
    scale, zero, top = quantizer.s1, quantizer.zero[0], 7
    divided = weight / (scale * factor)
    kept = (torch.round(divided) >= -zero) & (torch.round(divided) <= top - zero)
    assert not kept.all()
    by_d2 = -weight / factor * upstream * kept
    assert torch.allclose(quantizer.d2.grad, by_d2, atol=1e-12)
    assert torch.allclose(quantizer.d3.grad, by_d2.sum(1, keepdim=True), atol=1e-12)
    by_d1 = (upstream * (out - kept * weight / factor)).sum()
    assert torch.allclose(quantizer.d1.grad.squeeze(), by_d1, atol=1e-12)

    error = (torch.round(divided) - divided).detach()

    def surrogate(d1: Tensor, d2: Tensor, d3: Tensor) -> Tensor:
        moving = weight / torch.exp(d1 + d2 + d3) + error
        codes = torch.where(kept, moving, torch.clamp(moving, -zero, top - zero))
        return (codes * d1.exp() * upstream).sum()

    point = [part.detach().clone() for part in (quantizer.d1[0], quantizer.d2, quantizer.d3)]
    slopes = [quantizer.d1.grad[0], quantizer.d2.grad, quantizer.d3.grad]
    for number, place in ((0, (0, 0)), (1, (2, 3)), (2, (1, 0))):
        ends = []
        for step in (1e-6, -1e-6):
            shifted = [part.clone() for part in point]
            shifted[number][place] += step
            ends.append(surrogate(*shifted))
        assert float((ends[0] - ends[1]) / 2e-6) == pytest.approx(float(slopes[number][place]), abs=1e-6)


def test_tiny_numbers_by_hand() -> None:
    quantizer = FlexRoundQuantizer(torch.tensor([[1.2, -0.6, 0.3]]), 4, per="tensor", init="minmax")
    with torch.no_grad():
        quantizer.d1.fill_(math.log(0.5))
    out = quantizer()
    assert out.tolist() == [[1.0, -0.5, 0.5]]
    codes, scale, zero = quantizer.integers()
    assert (codes.int() - zero.int()).tolist() == [[2, -1, 1]] and float(scale) == 0.5
    out.sum().backward()  # G = 1; at S2 = 1 the gradient in d2 is that in S2
    assert torch.allclose(quantizer.d2.grad, torch.tensor([[-1.2, 0.6, -0.3]]))
    assert float(quantizer.d1.grad) == pytest.approx(0.1, abs=1e-6)
    with torch.no_grad():
        quantizer.d2[0, 0] = math.log(0.8)
    assert quantizer().tolist() == [[1.5, -0.5, 0.5]]


def test_halves_go_to_the_even_code() -> None:
    quantizer = FlexRoundQuantizer(torch.tensor([[0.5, 2.5, 3.5, 15.0]]), 4, init="minmax")
    assert float(quantizer.s1) == 1.0 and quantizer().tolist() == [[0.0, 2.0, 4.0, 15.0]]


def test_zeros_stay_and_signs_stay() -> None:
    weight = draw(6, 12).masked_fill(draw(6, 12, seed=2) > 0.5, 0.0)
    quantizer = FlexRoundQuantizer(weight, 3, per="row", use_s4=True)
    zeros = weight == 0
    quantizer().sum().backward()
    assert (quantizer.d2.grad[zeros] == 0).all() and (quantizer.d2.grad[~zeros] != 0).any()
    learn(quantizer, steps=40)
    assert moved(quantizer).any()
    assert (quantizer()[zeros] == 0).all() and (quantizer.d2[zeros] == 0).all()
    assert ((quantizer().sign() == 0) | (quantizer().sign() == weight.sign())).all()


def test_large_weights_move_further() -> None:
    weight = draw(40, 50)
    quantizer = FlexRoundQuantizer(weight, 6, use_s3=False, learn_s1=False, init="minmax")
    with torch.no_grad():
        quantizer.d2.copy_(0.1 * draw(40, 50, seed=4))  # equal steps for all, as Adam makes them
    far = moved(quantizer).abs().float().flatten()[weight.abs().flatten().argsort()]
    thirds = [float(part.mean()) for part in far.chunk(3)]
    assert thirds == sorted(thirds) and thirds[2] > 3 * thirds[0] and far.max() >= 2


@pytest.mark.parametrize("grid", GRIDS, ids=likely)
def test_what_is_stored_is_what_was_computed(grid: dict[str, Any]) -> None:
    quantizer = FlexRoundQuantizer(draw(6, 12), 3, use_s4=True, **grid)
    learn(quantizer)
    stored = quantizer.finish()
    assert torch.equal(stored.dequantize(), quantizer())
    codes, scale, zero = quantizer.integers()
    if grid["per"] != 4:
        assert torch.equal(scale * (codes.float() - zero.float()), quantizer())
    assert torch.equal(unpack(load(save(stored.pack()))).dequantize(), quantizer())
    assert stored.storage() == Affine.of(draw(6, 12), fit_grid(draw(6, 12), 3, **grid)).storage()  # nothing is added


def test_factors_stay_positive_and_finite() -> None:
    quantizer = FlexRoundQuantizer(draw(2, 4), 2, use_s4=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for step in range(10_000):
            for parameter in quantizer.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
            if step % 500 == 0 or step == 9_999:
                assert torch.isfinite(quantizer()).all() and quantizer.d2.abs().max() <= FARTHEST
                for factor in (quantizer.s1, quantizer.S2, quantizer.s3, quantizer.s4):
                    assert (factor > 0).all() and torch.isfinite(factor).all()
        for far in (-200.0, 200.0):
            quantizer.d1.fill_(far)
            assert 0 < float(quantizer.s1) < math.inf and torch.isfinite(quantizer()).all()


def test_exhaustive_search_over_eight_weights() -> None:
    """Within 5 % of the best of {q - 1, q, q + 1}^8 for most weights, and with the best iterate never behind the start."""
    near = 0
    for case in range(4):
        weight, inputs = draw(1, 8, seed=case), draw(64, 8, seed=10 + case) @ draw(8, 8, seed=20 + case)
        hessian = inputs.T @ inputs

        def error(rounded: Tensor, weight: Tensor = weight, hessian: Tensor = hessian) -> Tensor:
            return ((rounded - weight) @ hessian * (rounded - weight)).sum(-1)

        codes, scale, zero = FlexRoundQuantizer(weight, 2).integers()
        choices = torch.tensor(list(itertools.product((-1, 0, 1), repeat=8))) + codes
        choices = choices[((choices >= 0) & (choices <= 3)).all(1)]
        least = float(error(scale * (choices - zero.float())).min())
        start = float(error(FlexRoundQuantizer(weight, 2)().detach()))
        found = min(_searched(weight, inputs, error, seed) for seed in range(5))
        assert found <= start * (1 + 1e-6)
        near += found <= 1.05 * least
    assert near >= 3


def _searched(weight: Tensor, inputs: Tensor, error: Any, seed: int) -> float:
    quantizer = FlexRoundQuantizer(weight, 2)
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.1, fused=True)
    generator = torch.Generator().manual_seed(seed)
    best = math.inf
    for _ in range(60):
        out = quantizer()
        best = min(best, float(error(out.detach())))
        some = torch.randint(0, len(inputs), (16,), generator=generator)
        optimizer.zero_grad()
        ((out - weight) @ inputs[some].T).square().mean().backward()
        optimizer.step()
    return best


@pytest.mark.parametrize("per", ["tensor", "row", 9])
def test_convolutions(per: Any) -> None:
    layer = nn.Conv2d(4, 6, 3)
    quantizer = FlexRoundQuantizer(layer.weight, 4, per=per, use_s4=True)
    assert quantizer.S2.shape == layer.weight.shape and quantizer.s3.shape == (6, 1) and quantizer.s4.shape == (1, 4)
    learn(quantizer)
    assert quantizer().shape == moved(quantizer).shape == (6, 4, 3, 3)
    assert torch.equal(quantizer.finish().dequantize().view(6, 4, 3, 3), quantizer())
    before = quantizer().detach()
    with torch.no_grad():
        quantizer.d4[0, 2] += 1.0
    changed = (quantizer() != before).flatten(2).any(2).any(0)
    assert changed.tolist() == [False, False, True, False]


@pytest.mark.parametrize("layer", [nn.Linear(8, 6), nn.Conv2d(2, 6, 2), nn.Linear(8, 6).half()], ids=str)
def test_it_is_a_parametrization(layer: nn.Module) -> None:
    weight: Any = layer.weight
    quantizer = FlexRoundQuantizer(weight, 3, per="row")
    parametrize.register_parametrization(layer, "weight", quantizer)
    now: Any = layer.weight
    assert now.dtype == weight.dtype and torch.equal(now, quantizer().to(weight.dtype))
    now.float().square().sum().backward()
    assert quantizer.d2.grad is not None and quantizer.d2.grad.abs().sum() > 0 and weight.grad is None
    with torch.no_grad():
        quantizer.d2 += 0.3
    parametrize.remove_parametrizations(layer, "weight")
    assert torch.equal(layer.weight, quantizer.finish().dequantize().view(weight.shape).to(weight.dtype))


def test_a_state_comes_back() -> None:
    one, other = FlexRoundQuantizer(draw(4, 8)), FlexRoundQuantizer(draw(4, 8))
    learn(one)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(), other())


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_model_block_by_block(family: str) -> None:
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    ids = [torch.randint(1, 30, (4, 8), generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    calibration = [{"input_ids": each} for each in ids]
    plain = quantize_model(model, RTN(bits=2, per="tensor", init="mse"), calibration)
    first = quantize_model(model, FlexRound(bits=2, steps=12, lr=1e-2, keep_best=True), calibration)
    assert first.blocks[0].error <= plain.blocks[0].error * (1 + 1e-5)
    assert first.blocks[-1].error < plain.blocks[-1].error
    assert first.storage() == plain.storage()
    assert sum(moved_from(first, plain, name) for name in plain.weights)


def moved_from(ours: Quantized, theirs: Quantized, name: str) -> int:
    """How many weights of a layer have another code."""
    one, other = ours.weights[name], theirs.weights[name]
    assert isinstance(one, Affine) and isinstance(other, Affine)
    return int((one.codes != other.codes).sum())


def test_no_steps_are_round_to_nearest_and_a_seed_gives_the_same_again() -> None:
    torch.manual_seed(0)
    model = FAMILIES["gpt2"]().eval()
    calibration = [{"input_ids": torch.tensor([[1, 2, 3, number]])} for number in range(3)]
    plain = quantize_model(model, RTN(bits=3, per="row", init="minmax"), calibration)
    none = quantize_model(model, FlexRound(bits=3, per="row", init="minmax", steps=0), calibration)
    one, same, other = (quantize_model(model, FlexRound(bits=3, steps=5, seed=seed), calibration) for seed in (1, 1, 2))
    for name, weight in plain.weights.items():
        assert torch.equal(weight.dequantize(), none.weights[name].dequantize())
        assert torch.equal(one.weights[name].dequantize(), same.weights[name].dequantize())
    assert one.blocks[0].error != other.blocks[0].error


BAD: list[tuple[dict[str, Any], str]] = [
    ({"bits": 1}, r"bits must lie in 2\.\.8, got 1"),
    ({"bits": 9}, r"bits must lie in 2\.\.8, got 9"),
    ({"per": "column"}, "per"),
    ({"init": "best"}, "init"),
]


@pytest.mark.parametrize(("settings", "says"), BAD)
@pytest.mark.parametrize("kind", [FlexRoundQuantizer, PublishedFlexRound, FlexRound])
def test_bad_settings_are_refused(kind: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        kind(**({} if kind is FlexRound else {"weight": draw(4, 8)}), **settings)


@pytest.mark.parametrize("kind", [FlexRoundQuantizer, PublishedFlexRound])
def test_bad_weights_are_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="a group of 3 inputs does not divide the weight's 8"):
        kind(draw(4, 8), per=3)
    with pytest.raises(ValueError, match="weight holds NaN or inf"):
        kind(draw(4, 8) / 0)
    with pytest.raises((ValueError, TypeError), match="weight must"):
        kind(torch.zeros(4, 8).long())
    with pytest.raises((ValueError, TypeError), match="weight must"):
        kind(draw(8))
    with pytest.raises(ValueError, match=r"weight must have the shape \(4, 8\), got \(8, 4\)"):
        kind(draw(4, 8))(draw(8, 4))


def test_bad_methods_and_calibrations_are_refused() -> None:
    with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
        FlexRound(steps=-1)
    with pytest.raises(ValueError, match="lr must be positive, got 0"):
        FlexRound(lr=0)
    model = FAMILIES["gpt2"]().eval()
    with pytest.raises(ValueError, match="the calibration is empty"):
        quantize_model(model, FlexRound(), [])
    with pytest.raises(ValueError, match="a group of 5 inputs does not divide"):
        quantize_model(model, FlexRound(per=5), [{"input_ids": torch.tensor([[1, 2, 3]])}])
    with pytest.raises(TypeError, match="quantizer"):
        moved(nn.Linear(2, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "weight", [torch.zeros(3, 8), torch.full((3, 8), 0.3), torch.full((3, 8), -2.0)], ids=["0", "0.3", "-2"]
)
@pytest.mark.parametrize("per", ["tensor", "row"])
def test_constant_rows_are_exact(weight: Tensor, per: Any) -> None:
    quantizer = FlexRoundQuantizer(weight, 2, per=per, init="minmax")
    assert torch.allclose(quantizer(), weight, rtol=1e-3)
    quantizer().sum().backward()
    assert torch.isfinite(quantizer.d2.grad).all()
