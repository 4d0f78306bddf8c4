"""Quantized models as files: a dense folder that plain transformers reads, and beside it the packed weights, to the bit.

`packed.safetensors` holds for each layer what `QuantizedWeight.pack` gives, under `<layer>/<tensor>`. The dense weights are
those that the packed ones stand for, in the model's own type.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lab import paths
from lab.files import FileError, Limits, read_tensor_header
from lab.quantization.blocks import linears, set_weight
from lab.quantization.pipeline import Quantized
from lab.quantization.weights import QuantizedWeight, unpack

PACKED = "packed.safetensors"
PACKED_LIMITS = Limits(max_bytes=2**31)


def save_quantized(result: Quantized, folder: Path) -> None:
    """Write the dense model (config, safetensors) and the packed weights; the folder appears whole or not at all.

    Raises TypeError for a model that has no ``save_pretrained``.
    """
    model: Any = result.model
    if not hasattr(model, "save_pretrained"):
        raise TypeError(f"a {type(model).__name__} has no save_pretrained; keep result.weights with save_packed")

    def fill(fresh: Path) -> None:
        model.save_pretrained(fresh)
        save_packed(result.weights, fresh / PACKED)

    paths.replace_folder(folder, fill)


def save_packed(weights: Mapping[str, QuantizedWeight], path: Path) -> None:
    """Write stored forms by layer into one safetensors file."""
    from safetensors.torch import save

    tensors = {
        f"{layer}/{name}": tensor.contiguous()
        for layer, weight in weights.items()
        for name, tensor in weight.pack().items()
    }
    paths.write_atomic(path, save(tensors))


def load_packed(path: Path) -> dict[str, QuantizedWeight]:
    """Stored forms by layer, as `save_packed` wrote them.

    Raises FileError for what is no such file, ValueError naming the layer for parts that do not fit together.
    """
    from safetensors.torch import load_file

    names = [entry.name for entry in read_tensor_header(path, limits=PACKED_LIMITS)]
    if not names or not all("/" in name for name in names):
        raise FileError(f"{path.name}: these are no packed weights; write them with save_packed")
    layers: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(path).items():
        layer, _, own_name = name.rpartition("/")
        layers.setdefault(layer, {})[own_name] = tensor
    weights = {}
    for layer, tensors in layers.items():
        try:
            weights[layer] = unpack(tensors)
        except ValueError as error:
            raise ValueError(f"{layer}: {error}") from error
    return weights


def apply(weights: Mapping[str, QuantizedWeight], model: nn.Module) -> None:
    """Write what the stored forms stand for into a model's linear layers; ValueError for a layer it does not have, or
    one of another shape; then nothing is written."""
    layers = linears(model)
    for name, weight in weights.items():
        if name not in layers:
            raise ValueError(f"the model has no linear layer {name!r}")
        if weight.shape != tuple(_shape(layers[name])):
            raise ValueError(f"{name} is {_shape(layers[name])} in the model and {weight.shape} in the file")
    for name, weight in weights.items():
        set_weight(layers[name], weight.dequantize())


def _shape(layer: nn.Module) -> tuple[int, ...]:
    from lab.quantization.blocks import weight_of

    return tuple(weight_of(layer).shape)
