"""What the three papers' `matrix` experiments share: a weight matrix of your own, quantized by any method."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from lab.experiment import Config, Progress, knob
from lab.files import FileError, Limits, read_tensor, read_tensor_header
from lab.quantization.awq import AWQ
from lab.quantization.baselines import RTN, XNOR
from lab.quantization.layer_experiment import LayerResult, examined
from lab.quantization.one_layer import matrix_inputs
from lab.quantization.pipeline import Method
from lab.quantization.registry import Methods, method

MEGABYTES = 64
LIMITS = Limits(max_bytes=MEGABYTES * 2**20)
FLOATS = ("F16", "BF16", "F32", "F64")
MAX_TOKENS = 4096  # of the inputs that are used
INPUTS = "inputs"  # the tensor's name
Key = Literal[
    "pb-llm", "ptq1-61", "flexround", "rtn", "gptq", "xnor", "awq", "billm", "adaround", "adaquant", "signround"
]


@dataclass(frozen=True)
class Matrices:
    """A safetensors file of up to 64 MB. Any tensor of floating-point numbers with two dimensions, outputs by inputs, can
    be quantized; a tensor called `inputs` (tokens by inputs), if there is one, calibrates, else white noise does."""

    accept: ClassVar[tuple[str, ...]] = (".safetensors",)
    max_megabytes: ClassVar[int] = MEGABYTES

    title: str
    data: bytes
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def read(cls, source: Path | bytes, *, name: str) -> Matrices:
        """Look at the header; FileError in one sentence for what is no such file, too large, or holds no matrix."""
        entries = read_tensor_header(source, name=name, limits=LIMITS)
        shapes = {
            entry.name: entry.shape
            for entry in entries
            if len(entry.shape) == 2 and entry.dtype in FLOATS and min(entry.shape) > 0 and entry.name != INPUTS
        }
        if not shapes:
            kinds = sorted({f"{entry.dtype} {list(entry.shape)}" for entry in entries})
            tensors = ", ".join(kinds[:4]) or "nothing"
            raise FileError(f"{name} holds no matrix of floating-point numbers: its tensors are {tensors}")
        return cls(name, source if isinstance(source, bytes) else source.read_bytes(), shapes)

    def fingerprint(self) -> str:
        """Hex digits that name the bytes."""
        return hashlib.sha256(self.data).hexdigest()[:16]

    def matrix(self, tensor: str) -> tuple[str, np.ndarray]:
        """A matrix by its name, the largest for an empty one; FileError for a name that is not there, NaN or inf."""
        chosen = tensor or max(self.shapes, key=lambda each: self.shapes[each][0] * self.shapes[each][1])
        if chosen not in self.shapes:
            names = ", ".join(list(self.shapes)[:6]) + (", ..." if len(self.shapes) > 6 else "")
            raise FileError(f"{self.title} holds no matrix {chosen[:80]!r}; there are {names}")
        return chosen, read_tensor(self.data, chosen, name=self.title, limits=LIMITS)

    def inputs(self, channels: int) -> np.ndarray | None:
        """The file's own calibration inputs, if there are any; FileError for ones that do not fit."""
        if INPUTS not in {entry.name for entry in read_tensor_header(self.data, name=self.title, limits=LIMITS)}:
            return None
        inputs = read_tensor(self.data, INPUTS, name=self.title, limits=LIMITS)
        if inputs.ndim != 2 or inputs.shape[1] != channels or not len(inputs):
            raise FileError(
                f"{self.title}: the tensor inputs has the shape {list(inputs.shape)}; wanted is tokens by {channels}"
            )
        return inputs[:MAX_TOKENS]


def method_knob(default: Key) -> Any:
    """The choice of method, beginning with a room's own."""
    return knob(default, "how it is quantized")


def salient_knob(default: int) -> Any:
    """The share that stays precise."""
    return knob(
        default,
        "PB-LLM: share of the weights that stay precise; PTQ1.61: of the channels",
        unit="%",
        ge=0,
        le=50,
        label="salient share",
    )


class MatrixConfig(Config):
    """Which matrix, and by which method."""

    primary: ClassVar[tuple[str, ...]] = ("method", "bits", "salient", "tensor")

    method: Key = method_knob("pb-llm")
    bits: int = knob(4, "of a weight; where only some stay precise, theirs are the method's own", ge=2, le=8)
    salient: int = salient_knob(10)
    tensor: str = knob("", "the matrix's name in the file; the largest if left empty", max_length=200, label="matrix")
    steps: int = knob(30, "optimizer steps of methods that learn", ge=0, le=200)
    per: Literal["row", "tensor"] = knob("row", "what shares a scale", label="a scale for")


def run_matrix(config: MatrixConfig, inputs: Matrices, methods: Methods, *, progress: Progress) -> LayerResult:
    """Quantize one matrix of the file by one of the ``methods``; pictures and numbers as for a layer of a model."""
    name, weight = inputs.matrix(config.tensor)
    brought = inputs.inputs(weight.shape[1])
    work = matrix_inputs(torch.from_numpy(weight), None if brought is None else torch.from_numpy(brought), name=name)
    ours = configured(config, methods)
    peers = [peer for peer in (XNOR(), *(RTN(bits=bits) for bits in (2, 3, 4))) if peer != ours]
    return examined(work, ours, peers, progress=progress)


def configured(config: MatrixConfig, methods: Methods) -> Method:
    """The method that a config names, with those of its settings that there are knobs for."""
    kind, share = methods[config.method], config.salient / 100
    knobs = {"bits": config.bits, "per": config.per, "steps": config.steps, "low_frac": 1 - share, "ratio": share}
    if kind is AWQ:
        del knobs["per"]  # one scale for each row always
    taken = set(inspect.signature(kind).parameters) & set(knobs)
    return method(config.method, methods, **{name: knobs[name] for name in taken})
