r"""A model goes through a method, block by block: the pipeline that all methods share.

Every block sees what the method's earlier choices did to its input. Three streams run through the blocks side by side: the
full-precision one, :math:`Y_f = b(X_f)`; the quantized one, :math:`Y_q = b_q(X_q)`; and the full-precision block on the
quantized stream, :math:`Y_{fq} = b(X_q)`. A method gets one block's `BlockInputs` and returns a stored form for each of its
linear layers; embeddings, norms, biases and the head stay as they are.
"""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lab.experiment import Progress, no_progress, part
from lab.quantization.blocks import Call, find_blocks, first_calls, linears, set_weight, weight_of
from lab.quantization.grid import check_weight
from lab.quantization.statistics import Statistics
from lab.quantization.storage import MaskCode, StorageCost
from lab.quantization.weights import QuantizedWeight

Stream = Literal["full", "quantized"]


@dataclass(eq=False)
class BlockInputs:
    """One block in the pipeline: as it was (``full``), to be quantized (``block``), and how each stream calls it."""

    name: str
    full: nn.Module
    block: nn.Module
    calls_full: Sequence[Call]
    calls: Sequence[Call]
    _statistics: dict[Stream, dict[str, Statistics]] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def layers(self) -> dict[str, nn.Module]:
        """The block's linear layers by name."""
        return linears(self.block)

    def weight(self, name: str) -> Float[Tensor, "o i"]:
        """A layer's weight as it was, float32; ValueError naming it when it holds NaN or inf."""
        weight = weight_of(linears(self.full)[name]).detach().float()
        check_weight(weight, f"{self.name}.{name}")
        return weight

    @cached_property
    def targets(self) -> list[Float[Tensor, "b t d"]]:
        """Y_f: what the full-precision stream gives for each call."""
        with torch.no_grad():
            return [call.run(self.full) for call in self.calls_full]

    def statistics(self, stream: Stream = "quantized") -> dict[str, Statistics]:
        """Statistics of every layer's inputs with the full-precision weights; layers of one input share theirs.

        Taken once: methods that work on the same block share them, and the factors that they keep.
        """
        if stream not in self._statistics:
            self._statistics[stream] = self._take(stream)
        return self._statistics[stream]

    @torch.no_grad()
    def _take(self, stream: Stream) -> dict[str, Statistics]:
        statistics: dict[str, Statistics] = {}
        for call, inputs in self._inputs(self.calls_full if stream == "full" else self.calls):
            if not statistics:
                statistics = _shared(inputs)
            fed: set[int] = set()
            for name, tensor in inputs.items():  # (b, t, i)
                if id(statistics[name]) not in fed:
                    statistics[name].add(tensor.flatten(0, -2).float(), samples=len(call.hidden))  # (b t, i)
                    fed.add(id(statistics[name]))
        return statistics

    def _inputs(self, calls: Iterable[Call]) -> Iterator[tuple[Call, dict[str, Tensor]]]:
        for call in calls:
            yield call, _layer_inputs(self.full, call)


def _layer_inputs(block: nn.Module, call: Call) -> dict[str, Tensor]:
    """What each linear layer of a block gets in one call."""
    caught: dict[str, Tensor] = {}

    def catcher(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, args: caught.__setitem__(name, args[0])

    hooks = [layer.register_forward_pre_hook(catcher(name)) for name, layer in linears(block).items()]
    try:
        call.run(block)
    finally:
        for hook in hooks:
            hook.remove()
    return caught


def _shared(inputs: Mapping[str, Tensor]) -> dict[str, Statistics]:
    """One `Statistics` for each distinct input; all are alive here, so two at one address are one."""
    by_address: dict[tuple[int, torch.Size], Statistics] = {}
    statistics = {}
    for name, tensor in inputs.items():
        address = tensor.data_ptr(), tensor.shape
        statistics[name] = by_address.setdefault(address, Statistics(tensor.shape[-1]))
    return statistics


class Method(ABC):
    """A way to quantize a block; its fields are its settings, `key` is what it is called in a mapping of methods."""

    key: ClassVar[str]
    title: ClassVar[str]

    @property
    def label(self) -> str:
        """The title with what tells this setting from others in a picture."""
        bits = getattr(self, "bits", None)
        return self.title if bits is None else f"{self.title}, {bits} bit"

    @property
    def paper_bits(self) -> float:
        """Bits per weight as the method's paper counts them, which may leave something out."""
        return float(getattr(self, "bits", 1))

    @abstractmethod
    def quantize(self, work: BlockInputs, progress: Progress = no_progress) -> dict[str, QuantizedWeight]:
        """A stored form for every linear layer of the block."""


class LayerMethod(Method):
    """A method that looks at one layer at a time: its weight, and the statistics of its inputs."""

    @abstractmethod
    def layer(self, weight: Float[Tensor, "o i"], statistics: Statistics) -> QuantizedWeight:
        """The stored form of one weight."""

    def quantize(self, work: BlockInputs, progress: Progress = no_progress) -> dict[str, QuantizedWeight]:
        weights = {name: work.weight(name) for name in work.layers}
        statistics = work.statistics()
        stored: dict[str, QuantizedWeight] = {}
        for name, weight in weights.items():
            progress(len(stored) / len(weights), f"{work.name}.{name}")
            stored[name] = self.layer(weight, statistics[name])
        return stored


@dataclass(frozen=True)
class BlockReport:
    """What a block came to: ``error`` is the mean square of Y_q - Y_f, ``relative`` that over the mean square of Y_f."""

    name: str
    error: float
    relative: float
    seconds: float


@dataclass(eq=False)
class Quantized:
    """A quantized model, with each layer's stored form, the blocks' errors, and what all of it takes to store.

    ``model`` computes with the dequantized weights, so everything that runs on the original runs on it.
    """

    model: nn.Module
    method: Method
    weights: dict[str, QuantizedWeight] = field(default_factory=dict)
    blocks: list[BlockReport] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """For all blocks together."""
        return sum(block.seconds for block in self.blocks)

    def storage(self, mask: MaskCode = "bitmap") -> StorageCost:
        """The bits of all quantized layers; what stays in full precision is not in it."""
        return sum((weight.storage(mask=mask) for weight in self.weights.values()), StorageCost(0))


@torch.no_grad()
def quantize_model(
    model: nn.Module,
    method: Method,
    calibration: Iterable[Mapping[str, Tensor]],
    *,
    progress: Progress = no_progress,
) -> Quantized:
    """Quantize the linear layers of a transformer's blocks; ``calibration`` are batches of the model's inputs.

    The model given is left as it is: one copy of it is made and returned. ``progress`` may raise `Stopped`. Raises
    UnknownModel when no blocks are found, ValueError for an empty calibration, and for weights or inputs with NaN or inf.
    """
    model = model.eval()
    list_name, blocks = find_blocks(model)
    calls = calls_full = first_calls(model, calibration)
    result = Quantized(copy.deepcopy(model), method)
    copies = find_blocks(result.model)[1]
    for number, (full, block) in enumerate(zip(blocks, copies, strict=True)):
        began = time.perf_counter()
        work = BlockInputs(f"{list_name}.{number}", full, block, calls_full, calls)
        with torch.enable_grad():
            weights = method.quantize(work, part(progress, number / len(blocks), 1 / len(blocks)))
        for name, weight in weights.items():
            set_weight(work.layers[name], weight.dequantize())
            result.weights[f"{work.name}.{name}"] = weight
        outputs = [call.run(block) for call in calls]
        result.blocks.append(_report(work, outputs, time.perf_counter() - began))
        calls = [call.after(output) for call, output in zip(calls, outputs, strict=True)]
        calls_full = [call.after(target) for call, target in zip(calls_full, work.targets, strict=True)]
    progress(1.0, "done")
    return result


@torch.no_grad()
def block_inputs(model: nn.Module, number: int, calibration: Iterable[Mapping[str, Tensor]]) -> BlockInputs:
    """One block of a model by itself, with what the full-precision blocks before it give; the model stays as it is."""
    list_name, blocks = find_blocks(model)
    calls = first_calls(model, calibration)
    for before in blocks[:number]:
        calls = [call.after(call.run(before)) for call in calls]
    return BlockInputs(f"{list_name}.{number}", blocks[number], copy.deepcopy(blocks[number]), calls, calls)


def _report(work: BlockInputs, outputs: Sequence[Tensor], seconds: float) -> BlockReport:
    pairs = list(zip(outputs, work.targets, strict=True))
    error = sum(float((ours - full).square().sum()) for ours, full in pairs)
    size = sum(float(full.square().sum()) for _, full in pairs)
    count = sum(full.numel() for _, full in pairs)
    return BlockReport(work.name, error / count, error / size if size else float("nan"), seconds)
