"""What the three papers' `layer` experiments share: one layer of a real model, quantized while a knob moves.

A room adds its method's knobs to `LayerConfig` and says which method they mean; everything else happens here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import model_validator

from lab.experiment import Config, Progress, knob
from lab.quantization.baselines import GPTQ, RTN, XNOR
from lab.quantization.one_layer import NAME, Outcome, examine, layer_inputs
from lab.quantization.pipeline import BlockInputs, Method
from lab.quantization.storage import mask_bits

if TYPE_CHECKING:
    import pandas as pd

TaskName = Literal["minilm", "stdlib-gpt"]
Part = Literal["query", "attention out", "mlp in", "mlp out"]
PARTS: dict[TaskName, dict[Part, str]] = {
    "minilm": {
        "query": "attention.self.query",
        "attention out": "attention.output.dense",
        "mlp in": "intermediate.dense",
        "mlp out": "output.dense",
    },
    "stdlib-gpt": {
        "query": "attn.c_attn",
        "attention out": "attn.c_proj",
        "mlp in": "mlp.c_fc",
        "mlp out": "mlp.c_proj",
    },
}
BLOCKS: dict[TaskName, int] = {"minilm": 6, "stdlib-gpt": 4}
ROWS, COLUMNS, BINS = 64, 192, 121  # of what a picture shows


class LayerConfig(Config):
    """Which layer, and how loud a few of its input channels are."""

    subject: TaskName = knob("minilm", "whose layer it is", label="model")
    block: int = knob(2, "the layer's block, counted from 0", ge=0, le=5)
    part: Part = knob(
        "query", "which of the block's layers; stdlib-gpt's query holds keys and values too", label="layer"
    )
    outliers: float = knob(
        1.0,
        "how many times larger four input channels are made; the model computes the same",
        ge=1,
        le=1000,
        scale="log",
    )
    seed: int = knob(0, "draws the calibration text", ge=0, le=20)

    @model_validator(mode="after")
    def _block_is_there(self) -> LayerConfig:
        if self.block >= BLOCKS[self.subject]:
            raise ValueError(f"block: {self.subject} has the blocks 0 to {BLOCKS[self.subject] - 1}, not {self.block}")
        return self


@dataclass(frozen=True)
class LayerResult:
    """One layer before and after; outputs are rows, inputs columns, and pictures get the first `ROWS` by `COLUMNS`.

    method, name: of the method and the layer; shape: (o, i); share: of the weights that are kept precise.
    weight, rounded, kept (r, c): kept is 1 where a weight is precise.
    bins (b + 1,), before, after (b,): how many weights lie where.
    activation (i,): mean size of each input channel; column_error (i,): each channel's share of the squared output error.
    methods: method, bits (effective, per weight), error (share of the output's energy), ours.
    bill: what, weights, mask, scales, zeros (bits per weight), with masks coded in each way.
    """

    method: str
    name: str
    shape: tuple[int, int]
    share: float
    weight: np.ndarray
    rounded: np.ndarray
    kept: np.ndarray
    bins: np.ndarray
    before: np.ndarray
    after: np.ndarray
    activation: np.ndarray
    column_error: np.ndarray
    methods: pd.DataFrame
    bill: pd.DataFrame


def run_layer(config: LayerConfig, ours: Method, peers: Sequence[Method], *, progress: Progress) -> LayerResult:
    """Quantize the configured layer by a paper's method and by its peers."""
    layer = PARTS[config.subject][config.part]
    work = layer_inputs(config.subject, config.block, layer, seed=config.seed, outliers=config.outliers)
    return examined(work, ours, peers, progress=progress)


def examined(work: BlockInputs, ours: Method, peers: Sequence[Method], *, progress: Progress) -> LayerResult:
    """The same for any layer that stands by itself."""
    import pandas as pd

    outcomes: list[Outcome] = []
    for number, each in enumerate((ours, *peers)):
        progress(number / (1 + len(peers)), each.label)
        outcomes.append(examine(work, each))
    one = outcomes[0]
    weight, rounded = one.weight.numpy(), one.rounded.numpy()
    edges = np.linspace(weight.min(), weight.max(), BINS + 1)
    precise = np.zeros(weight.shape, np.uint8) if one.mask is None else one.mask.numpy().astype(np.uint8)
    corner = np.s_[:ROWS, :COLUMNS]
    rows = [(each.method.label, each.storage.per_weight, each.error, each is one) for each in outcomes]
    progress(1.0, "done")
    return LayerResult(
        method=ours.title,
        name=work.name,
        shape=(weight.shape[0], weight.shape[1]),
        share=float(precise.mean()),
        weight=weight[corner],
        rounded=rounded[corner],
        kept=precise[corner],
        bins=edges,
        before=np.histogram(weight, edges)[0],
        after=np.histogram(rounded.clip(edges[0], edges[-1]), edges)[0],
        activation=work.statistics()[NAME].absmean.numpy(),
        column_error=one.column_error,
        methods=pd.DataFrame(rows, columns=["method", "bits", "error", "ours"]),
        bill=_cost_table(one, ours.paper_bits),
    )


def _cost_table(one: Outcome, paper_bits: float) -> pd.DataFrame:
    """Bits a weight: as the paper counts, and as stored, with an unstructured mask coded in three ways."""
    import pandas as pd

    n, cost = one.storage.count, one.storage
    rows = [("as the paper counts", paper_bits, 0.0, 0.0, 0.0)]
    codes = {"stored": cost.mask}
    if one.mask is not None and cost.mask == n:
        marked = int(one.mask.sum())
        codes = {
            "stored, bitmap": cost.mask,
            "stored, indices": mask_bits(*one.stored.shape, marked, "csr"),
            "at the entropy bound": mask_bits(*one.stored.shape, marked, "entropy"),
        }
    rows += [(name, cost.weights / n, mask / n, cost.scales / n, cost.zeros / n) for name, mask in codes.items()]
    return pd.DataFrame(rows, columns=["what", "weights", "mask", "scales", "zeros"])


def baselines_around(bits: int) -> tuple[Method, ...]:
    """What every paper's layer is compared with: rounding and GPTQ at like bits and around them, and one bit a weight."""
    around = sorted({max(2, bits - 1), max(2, bits), min(8, bits + 1)})
    return (XNOR(), *(RTN(bits=each) for each in around), *(GPTQ(bits=each) for each in around))
