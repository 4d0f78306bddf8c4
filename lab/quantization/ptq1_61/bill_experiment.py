"""Experiment `bill` of PTQ1.61: what one weight takes to store, by three papers' counts and really, at any width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lab.experiment import Config, Progress, experiment, knob
from lab.quantization.ptq1_61.storage import layer_storage, paper_bits
from lab.quantization.storage import MaskCode, StorageCost, mask_bits, paper_bits_pb_llm

if TYPE_CHECKING:
    import pandas as pd

SCALE = 16
CODES: dict[str, MaskCode] = {"PB-LLM, bitmap": "bitmap", "PB-LLM, at the entropy bound": "entropy"}
WIDTHS = tuple(int(2 ** (power / 2)) for power in range(12, 28))


class BillConfig(Config):
    """A square layer of this width, and how much of it stays precise."""

    primary: ClassVar[tuple[str, ...]] = ("width", "channels", "weights")

    width: int = knob(384, "inputs and outputs of the layer", ge=64, le=8192, scale="log")
    channels: int = knob(
        20, "PTQ1.61: share of the channels at 4 bits", unit="%", ge=0, le=60, label="salient channels"
    )
    weights: int = knob(10, "PB-LLM: share of the weights at 8 bits", unit="%", ge=0, le=50, label="salient weights")


@dataclass(frozen=True)
class BillResult:
    """bill: what, weights, mask, scales, zeros, paper (bits a weight; paper is the paper's own total); curves:
    method, width, bits (effective, of square layers of other widths)."""

    width: int
    bill: pd.DataFrame
    curves: pd.DataFrame


@experiment("bill", "What a bit costs", cost="live")
def bill(config: BillConfig, *, progress: Progress) -> BillResult:
    """Count; nothing is quantized."""
    import pandas as pd

    rows = [
        {
            "what": name,
            "weights": cost.weights / cost.count,
            "mask": cost.mask / cost.count,
            "scales": cost.scales / cost.count,
            "zeros": cost.zeros / cost.count,
            "paper": paper,
        }
        for name, (cost, paper) in _costs(config, config.width).items()
    ]
    curves = [
        {"method": name, "width": width, "bits": cost.per_weight}
        for width in WIDTHS
        for name, (cost, _) in _costs(config, width).items()
    ]
    return BillResult(config.width, pd.DataFrame(rows), pd.DataFrame(curves))


def _costs(config: BillConfig, width: int) -> dict[str, tuple[StorageCost, float]]:
    """Every stored form: what it takes, and the bits per weight that its paper counts."""
    n = width * width
    ratio, share = config.channels / 100, config.weights / 100
    ones = 2 * SCALE * width  # a mean and a scale for each row
    low = n * (1 - share)
    pb = {
        name: (
            StorageCost(
                n, low + 8 * (n - low), mask_bits(width, width, round(n * share), code), ones + SCALE * width, 8 * width
            ),
            paper_bits_pb_llm(1 - share),
        )
        for name, code in CODES.items()
    }
    return {
        "one bit, scale a row": (StorageCost(n, n, 0, ones), 1.0),
        "PTQ1.61": (layer_storage(width, width, ratio * width), paper_bits(4096, ratio)),
        **pb,
        "GPTQ, 2 bit": (StorageCost(n, 2 * n, 0, SCALE * width, 2 * width), 2.0),
        "GPTQ, 3 bit": (StorageCost(n, 3 * n, 0, SCALE * width, 3 * width), 3.0),
    }
