"""The bill in closed form: figures by hand, the paper's formula, and what the stored forms say."""

from __future__ import annotations

import pytest
import torch

from lab.quantization.ptq1_61 import PTQ161Weight, layer_storage, paper_bits
from lab.quantization.storage import StorageCost, paper_bits_pb_llm


def test_figures_of_the_paper_and_of_its_code() -> None:
    cost = layer_storage(4096, 4096, 0.2 * 4096)
    assert cost.weights / cost.count == pytest.approx(1.6, abs=1e-12)
    assert cost.mask / cost.count == pytest.approx(0.000244, abs=1e-6)
    assert cost.per_weight == pytest.approx(1.6168, abs=5e-5)
    assert paper_bits() == pytest.approx(1.608, abs=5e-5)
    assert paper_bits(per="weight") == pytest.approx(1.6127, abs=5e-5)
    assert round(paper_bits(), 2) == round(paper_bits(per="weight"), 2) == 1.61
    assert paper_bits_pb_llm(0.9) == 2.7


def test_a_block_of_minilm() -> None:
    square, wide, tall = layer_storage(384, 384, 77), layer_storage(1536, 384, 77), layer_storage(384, 1536, 308)
    block = square + square + square + square + wide + tall
    assert block.count == 1_769_472 and block.per_weight == pytest.approx(1.736, abs=5e-4)


@pytest.mark.parametrize("salient", [0, 1, 5, 12])
@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_the_stored_form_costs_what_the_closed_form_says(salient: int, mean: bool, bits: int) -> None:
    weight = torch.randn(7, 12, generator=torch.Generator().manual_seed(0))
    stored = PTQ161Weight(weight, torch.arange(12) < salient, high_bits=bits, mean=mean).finish()
    assert stored.storage() == layer_storage(7, 12, salient, bits, mean=mean)


def test_parts_by_hand() -> None:
    cost = layer_storage(10, 20, 4)
    assert cost == StorageCost(200, 10 * 16 + 4 * 10 * 4, 20, 10 * 48 + 20 * 16, 10 * 4)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((0, 4, 1), "rows and columns must be at least 1, got 0 and 4"),
        ((4, 4, 5), "salient must lie between 0 and the 4 columns, got 5"),
        ((4, 4, 1, 9), r"high_bits must lie in 1\.\.8, got 9"),
    ],
)
def test_sizes_that_cannot_be(arguments: tuple[int, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        layer_storage(*arguments)


def test_the_paper_s_formula_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match=r"ratio must lie in \[0, 1\], got 1.5"):
        paper_bits(ratio=1.5)
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        paper_bits(0)
    with pytest.raises((ValueError, TypeError), match="per"):
        paper_bits(per="byte")  # type: ignore[arg-type]
