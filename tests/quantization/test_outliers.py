"""The outlier dial: inputs grow, outputs stay."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from families import FAMILIES, batches
from torch import nn

from lab.quantization.blocks import UnknownModel, find_blocks, first_calls
from lab.quantization.outliers import add_outliers
from lab.quantization.pipeline import BlockInputs


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_inputs_grow_and_outputs_stay(family: str) -> None:
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    changed: Any = copy.deepcopy(model)
    channels = add_outliers(changed, 1000.0, channels=3, seed=1)
    assert len(channels) in (2, 4, 8, 10) and all(len(chosen) == 3 for chosen in channels.values())
    with torch.no_grad():
        for batch in batches():
            assert torch.allclose(changed(**batch)[0], model(**batch)[0], atol=1e-4)
    place, blocks = find_blocks(changed)
    calls = first_calls(changed, batches())
    found = BlockInputs("b", blocks[0], blocks[0], calls, calls).statistics()
    for name, chosen in channels.items():
        if name.startswith(f"{place}.0."):
            size = found[name.removeprefix(f"{place}.0.")].absmax
            assert size[chosen].min() > 20 * size.median()
    assert add_outliers(copy.deepcopy(model), 1000.0, channels=3, seed=1) == channels


@pytest.mark.parametrize(
    ("strength", "channels"), [(0.0, 1), (-1.0, 1), (float("inf"), 1), (float("nan"), 1), (2.0, 99)]
)
def test_bad_settings_are_refused(strength: float, channels: int) -> None:
    with pytest.raises(ValueError, match="strength|channels"):
        add_outliers(FAMILIES["gpt2"](), strength, channels=channels)


def test_unknown_blocks_are_named() -> None:
    with pytest.raises(UnknownModel, match="no norm or value layer"):
        add_outliers(nn.Sequential(nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])), 2.0)
