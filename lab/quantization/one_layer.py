r"""One linear layer by itself: small enough to be quantized while a knob moves, real enough to mean something.

The layer stands alone as a block whose inputs X are those that calibration brings it in the full-precision model. So every
method runs on it as it runs on a model, and what it does is judged by the layer's own output,

.. math:: e(\hat W) = \frac{\|X(\hat W - W)^T\|^2}{\|X W^T\|^2}.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lab.cache import cached
from lab.experiment import Progress, no_progress
from lab.quantization.blocks import Call, find_blocks, first_calls, linears
from lab.quantization.outliers import add_outliers
from lab.quantization.pipeline import BlockInputs, Method
from lab.quantization.storage import StorageCost
from lab.quantization.tasks import TASKS
from lab.quantization.weights import Mixed, QuantizedWeight, Scaled

NAME = "layer"
CHANNELS = 4  # that the outlier dial makes larger
NOISE, TOKENS = 1024, 256  # of stand-in inputs; in one calibration batch


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a method made of one layer.

    weight, rounded (o, i); mask (o, i), True where a weight is kept precise, or None; storage; error as defined above, on
    the calibration itself; column_error (i,): each input column's share of the squared output error if it were alone.
    """

    method: Method
    weight: Float[Tensor, "o i"]
    rounded: Float[Tensor, "o i"]
    mask: Bool[Tensor, "o i"] | None
    storage: StorageCost
    stored: QuantizedWeight
    error: float
    column_error: Float[np.ndarray, " i"]


@cached(maxsize=8)
def layer_inputs(task: str, block: int, layer: str, *, seed: int = 0, outliers: float = 1.0) -> BlockInputs:
    """A layer of a task as a block by itself, with its inputs; ``outliers`` > 1 turns the dial of `add_outliers`.

    Raises ValueError for a block or layer that is not there.

    >>> layer_inputs("minilm", 0, "attention.self.query").weight("layer").shape
    torch.Size([384, 384])
    """
    model = TASKS[task].model()
    if outliers != 1.0:
        model = copy.deepcopy(model)
        add_outliers(model, outliers, channels=CHANNELS, seed=seed)
    name, blocks = find_blocks(model)
    if not 0 <= block < len(blocks):
        raise ValueError(f"block must lie in 0..{len(blocks) - 1}, got {block}")
    layers = linears(blocks[block])
    if layer not in layers:
        raise ValueError(f"layer must be one of {', '.join(layers)}, got {layer!r}")
    alone = nn.Sequential(OrderedDict({NAME: copy.deepcopy(layers[layer])}))
    calls = [Call(inputs, (), {}) for inputs in _inputs(model, blocks, block, layers[layer], task, seed)]
    return BlockInputs(f"{name}.{block}.{layer}", alone, copy.deepcopy(alone), calls, calls)


def matrix_inputs(
    weight: Float[Tensor, "o i"], inputs: Float[Tensor, "t i"] | None = None, *, name: str = "matrix", seed: int = 0
) -> BlockInputs:
    """A bare weight matrix (o, i) as a block by itself, with the inputs (t, i) that it gets.

    Without inputs, white noise stands in for them, `NOISE` tokens of it: then every channel weighs the same. ValueError for
    inputs of another width.

    >>> matrix_inputs(torch.randn(3, 4)).weight("layer").shape
    torch.Size([3, 4])
    """
    if inputs is None:
        inputs = torch.randn(NOISE, weight.shape[1], generator=torch.Generator().manual_seed(seed))
    if inputs.shape[1] != weight.shape[1]:
        raise ValueError(f"inputs have {inputs.shape[1]} channels, and the weight has {weight.shape[1]}")
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = nn.Parameter(weight.detach().clone())
    alone = nn.Sequential(OrderedDict({NAME: linear}))
    calls = [Call(some[None], (), {}) for some in inputs.split(TOKENS)]
    return BlockInputs(name, alone, copy.deepcopy(alone), calls, calls)


@torch.no_grad()
def _inputs(
    model: nn.Module, blocks: nn.ModuleList, block: int, layer: nn.Module, task: str, seed: int
) -> list[Float[Tensor, "b t i"]]:
    """What the layer gets for each calibration batch."""
    caught: list[Tensor] = []

    def catch(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        caught.append(args[0])

    with layer.register_forward_pre_hook(catch):
        for call in first_calls(model, TASKS[task].calibration(seed)):
            for before in blocks[:block]:
                call = call.after(call.run(before))
            call.run(blocks[block])
    return caught


def examine(work: BlockInputs, method: Method, progress: Progress = no_progress) -> Outcome:
    """Quantize the layer by a method and judge it."""
    stored = method.quantize(work, progress)[NAME]
    weight, rounded = work.weight(NAME), stored.dequantize()
    hessian = work.statistics()[NAME].hessian()
    off = rounded - weight
    error = float(((off @ hessian) * off).sum() / ((weight @ hessian) * weight).sum())
    alone = off.square().sum(0) * hessian.diagonal()
    share = (alone / alone.sum().clamp(min=1e-30)).numpy()
    return Outcome(method, weight, rounded, mask_of(stored), stored.storage(), stored, error, share)


def mask_of(stored: QuantizedWeight) -> Bool[Tensor, "o i"] | None:
    """Which weights a stored form keeps precise; None where it makes no difference between them."""
    if isinstance(stored, Scaled):
        return mask_of(stored.inner)
    return stored.mask.expand(stored.shape) if isinstance(stored, Mixed) else None
