r"""Quantized weights as they are stored: what they stand for, what they cost, and how they go to a file and back.

Every method ends in one of six forms, or in forms put together:

    Affine      codes on a uniform grid                 s (q - z)
    Binary      a sign per weight, scale and mean per row   mu + alpha sign
    Split       a sign per weight, and a bit that chooses between two scales and means per row
    Mixed       one form where a mask is set, another elsewhere
    Scaled      a form times a scale for each input     Q diag(t)
    Sum         forms added up (a binarized residual)

`storage` counts exactly what `pack` stores, entry by entry; with a bitmap the two agree but for the last byte of each array.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from lab.quantization.grid import Grid
from lab.quantization.storage import MaskCode, StorageCost, mask_bits

Packed = dict[str, Tensor]


class QuantizedWeight(ABC):
    """A weight (o, i) as it is stored."""

    shape: tuple[int, int]

    @abstractmethod
    def dequantize(self) -> Float[Tensor, "o i"]:
        """The weight that it stands for, float32."""

    @abstractmethod
    def storage(self, *, used: int | None = None, mask: MaskCode = "bitmap") -> StorageCost:
        """Its bits; ``used`` entries of it are stored (all, if None); ``mask`` says how masks are coded."""

    @abstractmethod
    def _parts(self, keep: Tensor | None) -> tuple[dict[str, Any], Packed]:
        """Facts and tensors for a file; only the entries where ``keep`` (o, i) is set are needed."""

    def pack(self) -> Packed:
        """Tensors for a safetensors file, facts as JSON among them; `unpack` gives back the same weight to the bit."""
        facts, tensors = self._parts(None)
        facts["shape"] = list(self.shape)
        return {"facts": torch.frombuffer(bytearray(json.dumps(facts).encode()), dtype=torch.uint8)} | {
            name: tensor.cpu() for name, tensor in tensors.items()
        }


@dataclass(frozen=True, eq=False)
class Affine(QuantizedWeight):
    """Codes (o, i) of 1 to 8 bits on a grid with ``scale`` and ``zero`` of (o, g), or (1, 1)."""

    codes: UInt8[Tensor, "o i"]
    scale: Float[Tensor, "r g"]
    zero: UInt8[Tensor, "r g"]
    bits: int

    @classmethod
    def of(cls, weight: Float[Tensor, "o i"], grid: Grid) -> Affine:
        """A weight that lies on ``grid`` already, or is rounded to it."""
        codes = grid.codes(weight).to(torch.uint8)
        return cls(codes, grid.scale.half(), grid.zero.to(torch.uint8), grid.bits)

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.codes.shape[0], self.codes.shape[1]

    def dequantize(self) -> Float[Tensor, "o i"]:
        grid = Grid(self.scale.float(), self.zero.float(), self.bits)
        return grid.values(self.codes.float()).expand(self.shape)

    def storage(self, *, used: int | None = None, mask: MaskCode = "bitmap") -> StorageCost:
        stored = self.codes.numel() if used is None else used
        scales = 8 * self.scale.element_size() * self.scale.numel()
        return StorageCost(self.codes.numel(), stored * self.bits, 0, scales, self.bits * self.zero.numel())

    def _parts(self, keep: Tensor | None) -> tuple[dict[str, Any], Packed]:
        codes = self.codes.flatten() if keep is None else self.codes[keep]
        tensors = {"codes": _planes(codes, self.bits), "scale": self.scale, "zero": _planes(self.zero, self.bits)}
        return {"form": "affine", "bits": self.bits}, tensors


@dataclass(frozen=True, eq=False)
class Binary(QuantizedWeight):
    """A sign (o, i) for each weight, True is +1; ``alpha`` and, where there is one, ``mean``, of (o, g)."""

    signs: Bool[Tensor, "o i"]
    alpha: Float[Tensor, "o g"]
    mean: Float[Tensor, "o g"] | None = None

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.signs.shape[0], self.signs.shape[1]

    def dequantize(self) -> Float[Tensor, "o i"]:
        size = self.shape[1] // self.alpha.shape[1]
        alpha = self.alpha.float().repeat_interleave(size, 1)
        values = torch.where(self.signs, alpha, -alpha)
        return values if self.mean is None else values + self.mean.float().repeat_interleave(size, 1)

    def storage(self, *, used: int | None = None, mask: MaskCode = "bitmap") -> StorageCost:
        stored = self.signs.numel() if used is None else used
        scales = sum(8 * scale.element_size() * scale.numel() for scale in (self.alpha, self.mean) if scale is not None)
        return StorageCost(self.signs.numel(), stored, 0, scales, 0)

    def _parts(self, keep: Tensor | None) -> tuple[dict[str, Any], Packed]:
        signs = self.signs.flatten() if keep is None else self.signs[keep]
        tensors = {"signs": _bits(signs), "alpha": self.alpha}
        return {"form": "binary"}, tensors if self.mean is None else tensors | {"mean": self.mean}


@dataclass(frozen=True, eq=False)
class Split(QuantizedWeight):
    """A sign (o, i) for each weight, and a second bit, ``far``: which of its row's two scales and means it takes.

    ``alpha`` and ``mean`` are (2, o, g), near ones first, for ``g`` groups of consecutive inputs. Two bits per
    weight: the second is not a mask that could be coded more cheaply, so it counts with the mask, at one bit.

    >>> weight = Split(torch.tensor([[True, True]]), torch.tensor([[False, True]]), torch.ones(2, 1, 1), torch.zeros(2, 1, 1))
    >>> weight.storage().per_weight, weight.dequantize().tolist()  # two bits, and four numbers of 32 for the two weights
    (66.0, [[1.0, 1.0]])
    """

    signs: Bool[Tensor, "o i"]
    far: Bool[Tensor, "o i"]
    alpha: Float[Tensor, "2 o g"]
    mean: Float[Tensor, "2 o g"]

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.signs.shape[0], self.signs.shape[1]

    def dequantize(self) -> Float[Tensor, "o i"]:
        near, far = (
            Binary(self.signs, alpha, mean).dequantize() for alpha, mean in zip(self.alpha, self.mean, strict=True)
        )
        return torch.where(self.far, far, near)

    def storage(self, *, used: int | None = None, mask: MaskCode = "bitmap") -> StorageCost:
        stored = self.signs.numel() if used is None else used
        scales = sum(8 * scale.element_size() * scale.numel() for scale in (self.alpha, self.mean))
        return StorageCost(self.signs.numel(), stored, stored, scales)

    def _parts(self, keep: Tensor | None) -> tuple[dict[str, Any], Packed]:
        signs, far = (bits.flatten() if keep is None else bits[keep] for bits in (self.signs, self.far))
        return {"form": "split"}, {"signs": _bits(signs), "far": _bits(far), "alpha": self.alpha, "mean": self.mean}

    @classmethod
    def unpacked(cls, tensors: Mapping[str, Tensor], shape: tuple[int, int], keep: Tensor | None) -> Split:
        """From what `_parts` gave; ValueError when the tensors do not fit together."""
        alpha, mean = tensors["alpha"], tensors["mean"]
        if len(alpha) != 2 or alpha.shape != mean.shape:
            raise ValueError("alpha and mean do not agree")
        _fits(alpha[0], shape)
        return cls(_spread(tensors["signs"], shape, keep), _spread(tensors["far"], shape, keep), alpha, mean)


@dataclass(frozen=True, eq=False)
class Mixed(QuantizedWeight):
    """``inside`` where ``mask`` is set, ``outside`` elsewhere; the mask is (o, i), or (1, i) for whole input channels."""

    mask: Bool[Tensor, "m i"]
    inside: QuantizedWeight
    outside: QuantizedWeight

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.inside.shape

    def dequantize(self) -> Float[Tensor, "o i"]:
        return torch.where(self.mask, self.inside.dequantize(), self.outside.dequantize())

    def storage(self, *, used: int | None = None, mask: MaskCode = "bitmap") -> StorageCost:
        rows, columns = self.shape
        marked = int(self.mask.sum()) * rows // self.mask.shape[0]
        if used not in (None, rows * columns):
            raise ValueError("a mixture inside a mixture is not counted: give the outer mask three values instead")
        inside, outside = self.inside.storage(used=marked), self.outside.storage(used=rows * columns - marked)
        cost = columns if self.mask.shape[0] == 1 != rows else mask_bits(rows, columns, marked, mask)
        both = inside + outside
        return StorageCost(rows * columns, both.weights, cost + both.mask, both.scales, both.zeros)

    def _parts(self, keep: Tensor | None) -> tuple[dict[str, Any], Packed]:
        full = self.mask.expand(self.shape)
        inner, inner_tensors = self.inside._parts(full)
        outer, outer_tensors = self.outside._parts(~full)
        tensors = {"mask": _bits(self.mask)} | _under("inside", inner_tensors) | _under("outside", outer_tensors)
        return {"form": "mixed", "rows": self.mask.shape[0], "inside": inner, "outside": outer}, tensors


@dataclass(frozen=True, eq=False)
class Scaled(QuantizedWeight):
    """A form whose input columns are multiplied by ``scale`` (i,)."""

    inner: QuantizedWeight
    scale: Float[Tensor, " i"]

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.inner.shape

    def dequantize(self) -> Float[Tensor, "o i"]:
        return self.inner.dequantize() * self.scale.float()

    def storage(self, *, used: int | None = None, mask: MaskCode = "bitmap") -> StorageCost:
        own = StorageCost(0, scales=8 * self.scale.element_size() * self.scale.numel())
        return self.inner.storage(used=used, mask=mask) + own

    def _parts(self, keep: Tensor | None) -> tuple[dict[str, Any], Packed]:
        facts, tensors = self.inner._parts(keep)
        return {"form": "scaled", "inner": facts}, {"scale": self.scale} | _under("inner", tensors)


@dataclass(frozen=True, eq=False)
class Sum(QuantizedWeight):
    """Forms of one shape, added up: each approximates what the ones before it left over."""

    terms: tuple[QuantizedWeight, ...]

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.terms[0].shape

    def dequantize(self) -> Float[Tensor, "o i"]:
        return torch.stack([term.dequantize() for term in self.terms]).sum(0)

    def storage(self, *, used: int | None = None, mask: MaskCode = "bitmap") -> StorageCost:
        first, *others = (term.storage(used=used, mask=mask) for term in self.terms)
        for other in others:
            first = first + StorageCost(0, other.weights, other.mask, other.scales, other.zeros)
        return first

    def _parts(self, keep: Tensor | None) -> tuple[dict[str, Any], Packed]:
        parts = [term._parts(keep) for term in self.terms]
        tensors: Packed = {}
        for number, (_, packed) in enumerate(parts):
            tensors |= _under(str(number), packed)
        return {"form": "sum", "terms": [facts for facts, _ in parts]}, tensors


def unpack(packed: Mapping[str, Tensor]) -> QuantizedWeight:
    """The weight that `QuantizedWeight.pack` packed, to the bit; ValueError when the tensors do not fit together.

    >>> weight = Binary(torch.tensor([[True, False]]), torch.ones(1, 1))
    >>> unpack(weight.pack()).dequantize()
    tensor([[ 1., -1.]])
    """
    try:
        facts = json.loads(bytes(packed["facts"].numpy()).decode())
        rows, columns = (int(size) for size in facts["shape"])
        tensors = {name: tensor for name, tensor in packed.items() if name != "facts"}
        return _built(facts, tensors, (rows, columns), None)
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError, AttributeError, RecursionError) as error:
        raise ValueError(f"these tensors are no packed weight ({type(error).__name__}: {error})") from error


def _built(facts: Mapping[str, Any], tensors: Packed, shape: tuple[int, int], keep: Tensor | None) -> QuantizedWeight:
    form = facts["form"]
    if form == "affine":
        bits = int(facts["bits"])
        if not 1 <= bits <= 8 or len(tensors["codes"]) != bits or len(tensors["zero"]) != bits:
            raise ValueError("codes, zero and bits do not agree")
        scale = _fits(tensors["scale"], shape)
        zero = _from_planes(tensors["zero"], (scale.shape[0], scale.shape[1]), None)
        return Affine(_from_planes(tensors["codes"], shape, keep), scale, zero, bits)
    if form == "binary":
        mean = tensors.get("mean")
        signs, alpha = _spread(tensors["signs"], shape, keep), _fits(tensors["alpha"], shape)
        return Binary(signs, alpha, mean if mean is None else _fits(mean, shape))
    if form == "split":
        return Split.unpacked(tensors, shape, keep)
    if form == "mixed":
        mask = _spread(tensors["mask"], (int(facts["rows"]), shape[1]), None)
        full = mask.expand(shape)
        inside = _built(facts["inside"], _below("inside", tensors), shape, full)
        return Mixed(mask, inside, _built(facts["outside"], _below("outside", tensors), shape, ~full))
    if form == "scaled":
        return Scaled(_built(facts["inner"], _below("inner", tensors), shape, keep), tensors["scale"])
    if form == "sum":
        terms = enumerate(facts["terms"])
        return Sum(tuple(_built(term, _below(str(number), tensors), shape, keep) for number, term in terms))
    raise ValueError(f"there is no form {form!r}")


def _fits(scale: Tensor, shape: tuple[int, int]) -> Tensor:
    """A scale or mean that serves a weight of this shape."""
    if scale.ndim != 2 or scale.shape[0] not in (1, shape[0]) or not scale.shape[1] or shape[1] % scale.shape[1]:
        raise ValueError(f"scales of the shape {tuple(scale.shape)} do not serve a weight of {shape}")
    return scale


def _under(prefix: str, tensors: Packed) -> Packed:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _below(prefix: str, tensors: Packed) -> Packed:
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _bits(values: Tensor) -> UInt8[Tensor, " bytes"]:
    """Zeros and ones, eight to a byte."""
    return torch.from_numpy(np.packbits(values.flatten().cpu().numpy().astype(bool)))


def _planes(codes: UInt8[Tensor, "*shape"], bits: int) -> UInt8[Tensor, "bits bytes"]:
    """Codes of ``bits`` bits, one plane per bit, the lowest first."""
    return torch.stack([_bits((codes >> plane) & 1) for plane in range(bits)])


def _from_planes(planes: Tensor, shape: tuple[int, int], keep: Tensor | None) -> UInt8[Tensor, "o i"]:
    """The inverse of `_planes`, each code at its place; 0 where nothing was kept."""
    codes = torch.zeros(shape, dtype=torch.uint8)
    for number, plane in enumerate(planes):
        codes |= _spread(plane, shape, keep).to(torch.uint8) << number
    return codes


def _spread(packed: Tensor, shape: tuple[int, int], keep: Tensor | None) -> Bool[Tensor, "o i"]:
    """The inverse of `_bits`, each bit at its place; False where nothing was kept."""
    count = math.prod(shape) if keep is None else int(keep.sum())
    if packed.dtype != torch.uint8 or packed.shape != (-(-count // 8),):
        raise ValueError(f"{count} bits are not stored as {packed.dtype} of the shape {tuple(packed.shape)}")
    values = torch.from_numpy(np.unpackbits(packed.numpy(), count=count).astype(bool))
    if keep is None:
        return values.reshape(shape)
    full = torch.zeros(shape, dtype=torch.bool)
    full[keep] = values
    return full
