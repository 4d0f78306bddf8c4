"""The shared bench: blocks are found and called rightly, streams advance, bills add up, files give back every bit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from families import FAMILIES, batches
from safetensors.torch import load, save
from torch import nn

from lab.experiment import Stopped
from lab.quantization.blocks import UnknownModel, find_blocks, first_calls, linears, set_weight, weight_of
from lab.quantization.gptq import compensate, gptq
from lab.quantization.grid import fit_grid
from lab.quantization.pb_llm.methods import METHODS
from lab.quantization.pipeline import quantize_model
from lab.quantization.registry import method
from lab.quantization.statistics import Statistics, upper_factor
from lab.quantization.storage import StorageCost, entropy, mask_bits, paper_bits_pb_llm
from lab.quantization.weights import Affine, Binary, Mixed, QuantizedWeight, Scaled, Sum, unpack

LEARNED = ("adaquant", "adaround", "flexround", "ptq1-61", "signround")


@pytest.fixture(params=sorted(FAMILIES))
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return FAMILIES[request.param]().eval()


def draw(rows: int, columns: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def seen(columns: int, tokens: int = 64, seed: int = 1) -> Statistics:
    """Statistics of correlated inputs."""
    found = Statistics(columns)
    found.add(draw(tokens, columns, seed) @ draw(columns, columns, seed + 1))
    return found


@pytest.mark.parametrize("padded", [False, True])
def test_blocks_called_one_by_one_are_the_model(model: nn.Module, padded: bool) -> None:
    _, blocks = find_blocks(model)
    ends: list[torch.Tensor] = []

    def note(module: nn.Module, args: Any, out: Any) -> None:
        ends.append(out[0] if isinstance(out, tuple) else out)

    with torch.no_grad():
        calls = first_calls(model, batches(padded))
        for call, batch in zip(calls, batches(padded), strict=True):
            for block in blocks:
                call = call.after(call.run(block))
            with blocks[-1].register_forward_hook(note):
                model(**batch)
            assert torch.allclose(call.hidden, ends[-1], atol=1e-5)


def test_every_method_runs_on_every_family(model: nn.Module) -> None:
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    for key in sorted(METHODS):
        settings = {"steps": 2} if key in LEARNED else {}
        result = quantize_model(model, method(key, METHODS, **settings), batches())
        assert len(result.weights) == 2 * len(linears(find_blocks(model)[1][0])) and len(result.blocks) == 2
        assert all(math.isfinite(block.error) and block.error >= 0 for block in result.blocks)
        place, blocks = find_blocks(result.model)
        for name, weight in result.weights.items():
            number, _, layer = name.removeprefix(f"{place}.").partition(".")
            assert torch.equal(weight_of(linears(blocks[int(number)])[layer]), weight.dequantize())
        assert result.storage().count == sum(weight.storage().count for weight in result.weights.values())
        out = result.model(**batches()[0])[0]
        assert torch.isfinite(out).all()
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in before.items())


def test_many_bits_change_nothing_and_few_change_much(model: nn.Module) -> None:
    errors = [quantize_model(model, method("rtn", bits=bits), batches()).blocks[-1].relative for bits in (8, 4, 2)]
    assert errors == sorted(errors) and errors[0] < 0.01 * errors[2]


def test_what_cannot_be_quantized_is_a_sentence(model: nn.Module) -> None:
    with pytest.raises(ValueError, match="the calibration is empty"):
        quantize_model(model, method("rtn"), [])
    with pytest.raises(UnknownModel, match="no transformer blocks were found in a Sequential: it has no lists"):
        find_blocks(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="there is no method 'rnt'"):
        method("rnt")
    with pytest.raises(ValueError, match="rtn does not take these settings"):
        method("rtn", bit=3)
    name, layer = next(iter(linears(find_blocks(model)[1][0]).items()))
    set_weight(layer, weight_of(layer) * torch.nan)
    with pytest.raises(ValueError, match=rf"0\.{name} holds NaN or inf"):
        quantize_model(model, method("rtn"), batches())


def test_stop_goes_through(model: nn.Module) -> None:
    def stop(fraction: float, note: str = "", partial: Any = None) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        quantize_model(model, method("gptq"), batches(), progress=stop)


def test_layers_of_one_input_share_statistics() -> None:
    from lab.quantization.pipeline import BlockInputs

    model = FAMILIES["bert"]().eval()
    calls = first_calls(model, batches())
    block = find_blocks(model)[1][0]
    found = BlockInputs("b", block, block, calls, calls).statistics()
    query, key, value = (found[f"attention.self.{name}"] for name in ("query", "key", "value"))
    assert query is key is value and found["attention.output.dense"] is not query
    inputs = torch.cat([call.hidden.flatten(0, 1) for call in calls])
    assert torch.allclose(query.hessian(), 2 / 6 * inputs.T @ inputs, atol=1e-4)
    assert torch.allclose(query.absmean, inputs.abs().mean(0), atol=1e-5)
    assert query.factor(0.01)[0] is key.factor(0.01)[0]


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("per", ["tensor", "row", 4])
def test_a_grid_rounds_to_the_nearest_of_its_points(bits: int, per: Any) -> None:
    weight = draw(5, 12)
    grid = fit_grid(weight, bits, per=per)
    rounded = grid.round(weight)
    scale, zero = (part.expand(5, 12) for part in grid.spread(12))
    points = scale[..., None] * (torch.arange(2**bits) - zero[..., None])
    nearest = (points - weight[..., None]).abs().amin(-1)
    assert torch.allclose((rounded - weight).abs(), nearest, atol=1e-6)
    assert (Affine.of(weight, grid).dequantize() == rounded).all()
    better = fit_grid(weight, bits, per=per, init="mse").round(weight)
    assert (better - weight).abs().pow(2.4).sum() <= (rounded - weight).abs().pow(2.4).sum() * (1 + 1e-5)


def test_compensation_never_loses_to_rounding_where_it_counts() -> None:
    wins = 0
    for seed in range(40):
        statistics, weight = seen(12, seed=seed), draw(6, 12, seed=100 + seed)
        hessian = statistics.hessian()
        grid = fit_grid(weight, 3)
        plain, ours = grid.round(weight) - weight, gptq(weight, statistics, bits=3).dequantize() - weight
        wins += float((ours @ hessian * ours).sum()) <= float((plain @ hessian * plain).sum())
    assert wins >= 38


def test_compensation_is_the_least_squares_of_what_is_left() -> None:
    """Against brute force: after each column is rounded, all later ones solve their least-squares problem anew."""
    weight, statistics = draw(4, 7, dtype=torch.float64), seen(7)
    hessian = statistics.hessian().double()
    hessian = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(7, dtype=torch.float64)
    upper, _ = upper_factor(hessian, damping=0.0)
    grid = fit_grid(weight, 3)
    scale, zero = grid.scale[:, 0], grid.zero[:, 0]

    def nearest(column: torch.Tensor, k: int) -> torch.Tensor:
        return scale * (torch.clamp(torch.round(column / scale) + zero, 0, 7) - zero)

    left = weight.clone()
    for k in range(7):
        error = left[:, k] - nearest(left[:, k], k)
        left[:, k] -= error
        if k < 6:
            free = hessian[k + 1 :, k + 1 :]
            left[:, k + 1 :] += torch.linalg.solve(free, hessian[k + 1 :, k : k + 1] @ error[None]).T
    for block in (1, 3, 7, 32):
        assert torch.allclose(compensate(weight, upper, nearest, block=block), left, atol=1e-8)


@pytest.mark.parametrize(
    ("hessian", "says"),
    [
        (torch.ones(2, 3), "hessian"),
        (torch.full((2, 2), torch.nan), "hessian holds NaN or inf"),
        (torch.tensor([[1.0, 5.0], [5.0, 1.0]]), "not positive definite"),
    ],
)
def test_bad_hessians_are_refused(hessian: torch.Tensor, says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):  # the shape checker of the tests says the first by itself
        upper_factor(hessian)


def test_dead_channels_become_zero() -> None:
    found = Statistics(3)
    found.add(draw(20, 3) * torch.tensor([1.0, 0.0, 1.0]))
    assert (gptq(draw(4, 3), found).dequantize()[:, 1] == 0).all()
    with pytest.raises(ValueError, match="no calibration token"):
        gptq(draw(4, 3), Statistics(3))
    with pytest.raises(ValueError, match="NaN or inf in the inputs"):
        found.add(torch.full((1, 3), torch.inf))


def forms() -> dict[str, QuantizedWeight]:
    weight = draw(6, 20)
    affine = Affine.of(weight, fit_grid(weight, 3, per=5))
    binary = Binary(weight > 0, weight.abs().mean(1, keepdim=True).half(), weight.mean(1, keepdim=True).half())
    mask = weight.abs() > 1
    return {
        "affine": affine,
        "binary": binary,
        "mixed": Mixed(mask, affine, binary),
        "channels": Mixed(mask[:1], affine, binary),
        "scaled": Scaled(affine, torch.rand(20).half()),
        "sum": Sum((binary, Binary(weight > 0.5, weight[:, :1].abs().half()))),
        "scaled mixture": Scaled(Mixed(mask, affine, binary), torch.rand(20).half()),
    }


@pytest.mark.parametrize("name", sorted(forms()))
def test_a_file_gives_back_every_bit_and_takes_what_the_bill_says(name: str) -> None:
    weight = forms()[name]
    packed = load(save(weight.pack()))
    back = unpack(packed)
    assert torch.equal(back.dequantize(), weight.dequantize()) and back.storage() == weight.storage()
    assert set(back.pack()) == set(packed) and all(torch.equal(back.pack()[key], packed[key]) for key in packed)
    stored = 8 * sum(part.numel() * part.element_size() for key, part in packed.items() if key != "facts")
    assert 0 <= stored - weight.storage().total < 8 * 8 * len(packed), "the rest of a byte, for each plane of bits"


@pytest.mark.parametrize("harm", ["facts", "codes", "scale"])
def test_tensors_that_do_not_fit_are_a_sentence(harm: str) -> None:
    packed = forms()["affine"].pack()
    packed[harm] = torch.zeros(1, dtype=torch.uint8)
    with pytest.raises((ValueError, TypeError)):
        unpack(packed).dequantize()


def test_bills_by_hand() -> None:
    weight = draw(6, 20)
    assert Affine.of(weight, fit_grid(weight, 4)).storage() == StorageCost(120, 480, 0, 6 * 16, 6 * 4)
    assert forms()["binary"].storage() == StorageCost(120, 120, 0, 2 * 6 * 16, 0)
    marked = int((weight.abs() > 1).sum())
    mixed = forms()["mixed"].storage()
    assert (mixed.weights, mixed.mask) == (3 * marked + 120 - marked, 120)
    assert forms()["mixed"].storage(mask="csr").mask == marked * 5 + 7 * math.ceil(math.log2(marked + 2))
    assert forms()["mixed"].storage(mask="entropy").mask == pytest.approx(120 * entropy(marked / 120))
    assert forms()["channels"].storage().mask == 20
    assert paper_bits_pb_llm(0.9) == 2.7 and paper_bits_pb_llm(1.0) == 2.0
    assert entropy(0.0) == entropy(1.0) == 0 and entropy(0.05) == pytest.approx(0.286, abs=1e-3)
    assert mask_bits(10, 10, 0, "csr") < 100 < mask_bits(10, 10, 50, "csr")


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_bits_are_bounded(bits: int) -> None:
    with pytest.raises(ValueError, match=rf"bits must lie in 1\.\.8, got {bits}"):
        fit_grid(draw(2, 4), bits)


@pytest.mark.parametrize("per", [3, 0, 40])
def test_groups_divide(per: int) -> None:
    with pytest.raises(ValueError, match=f"a group of {per} inputs does not divide the weight's 20"):
        fit_grid(draw(2, 20), 4, per=per)


@pytest.mark.parametrize("bad", [torch.zeros(0, 3), torch.full((2, 2), torch.nan), torch.zeros(2, 2).long()])
def test_bad_weights_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises((ValueError, TypeError), match="weight"):
        fit_grid(bad, 4)
