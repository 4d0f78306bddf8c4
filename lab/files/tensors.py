"""The header of a safetensors file: which tensors it holds, of what type and shape, and where, before any is read.

The format: eight bytes with the header's length, little endian; the header, JSON of name -> dtype, shape, data_offsets;
the numbers. Every claim of the header is checked against the file's true size, so what passes can be mapped or read.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from lab.files.bounds import FileError, Limits, Source, content, shown

TENSOR_LIMITS = Limits(max_bytes=64 * 2**20)
HEADER_BYTES = 2**22  # real ones of thousands of tensors have a few hundred kilobytes
MAX_TENSORS, MAX_DIMENSIONS = 20_000, 8
COMMAS = 4 + MAX_DIMENSIONS  # at most so many in one tensor's claim; they bound what JSON becomes in memory
BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
}
FLOATS = ("F16", "BF16", "F32", "F64")
_STORED = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}


@dataclass(frozen=True)
class TensorEntry:
    """One tensor by the header's word, checked: dtype as in `BYTES`, shape, and the bytes [start, stop) of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_tensor_header(
    source: Source, *, name: str | None = None, limits: Limits = TENSOR_LIMITS
) -> tuple[TensorEntry, ...]:
    """The tensors of a safetensors file, in the order of their bytes; only the header is parsed, nothing is unpickled.

    `source` is a path, the file's bytes, or an open binary stream; `name` serves messages only. Memory: the file, and
    64 MiB.

    Raises `FileError` for a file over the limit, one that is cut off, and a header that is no JSON, is too long, or
    promises what the file does not hold; `TypeError` when `source` is none of the three.

    >>> import numpy as np, safetensors.numpy
    >>> read_tensor_header(safetensors.numpy.save({"w": np.zeros((2, 3), np.float32)}))[0].shape
    (2, 3)
    """
    data, title = content(source, name, limits)
    try:
        return _entries(data)
    except FileError as error:
        raise FileError(f"{title}: {error}") from error


def read_tensor(
    source: Source, tensor: str, *, name: str | None = None, limits: Limits = TENSOR_LIMITS
) -> Float32[np.ndarray, " *shape"]:
    """One tensor of floating-point numbers from a safetensors file, as float32; all others are left where they are.

    Memory: the file, the tensor as float32 twice, and 64 MiB. Raises `FileError` as `read_tensor_header` does, for a name
    that is not in the file, for other numbers than `FLOATS`, and for NaN or inf.

    >>> import numpy as np, safetensors.numpy
    >>> read_tensor(safetensors.numpy.save({"w": np.ones((1, 2), np.float16)}), "w")
    array([[1., 1.]], dtype=float32)
    """
    data, title = content(source, name, limits)
    try:
        entries = {entry.name: entry for entry in _entries(data)}
        if tensor not in entries:
            some = ", ".join(shown(entry) for entry in list(entries)[:5]) or "none"
            raise FileError(f"there is no tensor {shown(tensor)} in it; there are {len(entries):,}: {some}")
        return _numbers(data, entries[tensor])
    except FileError as error:
        raise FileError(f"{title}: {error}") from error


def _numbers(data: bytes, entry: TensorEntry) -> Float32[np.ndarray, " *shape"]:
    if entry.dtype not in FLOATS:
        raise FileError(f"tensor {shown(entry.name)} is of type {entry.dtype}; wanted is one of {', '.join(FLOATS)}")
    stored = np.frombuffer(data, _STORED[entry.dtype], math.prod(entry.shape), entry.start)
    if entry.dtype == "BF16":  # the upper half of a float32
        values = (stored.astype(np.uint32) << 16).view(np.float32)
    else:
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, and is refused as such
            values = stored.astype(np.float32)
    if not np.isfinite(values).all():
        raise FileError(f"tensor {shown(entry.name)} holds NaN, inf, or what is larger than float32 can say")
    return values.reshape(entry.shape)


def _entries(data: bytes) -> tuple[TensorEntry, ...]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise FileError("not readable as safetensors: the header is cut off, or this is another kind of file")
    if length > HEADER_BYTES:
        raise FileError(f"the header has {length:,} bytes, more than {HEADER_BYTES:,}")
    if data.count(b",", 8, 8 + length) > COMMAS * MAX_TENSORS:
        raise FileError(f"the header has more entries than {MAX_TENSORS:,} tensors need")
    try:
        header = json.loads(data[8 : 8 + length].decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError("not readable as safetensors: the header is no JSON; save it with safetensors") from error
    if not isinstance(header, dict):
        raise FileError("not readable as safetensors: the header is no JSON object")
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise FileError(f"the file promises {len(header):,} tensors, more than {MAX_TENSORS:,}")
    entries = sorted((_entry(name, claim, 8 + length) for name, claim in header.items()), key=_place)
    at = 8 + length
    for entry in entries:
        if entry.start != at:
            raise FileError(f"tensor {shown(entry.name)} does not begin where the one before it ends")
        at = entry.stop
    if at != len(data):
        raise FileError(f"the tensors end at byte {at:,}, but the file has {len(data):,}; is it cut off?")
    return tuple(entries)


def _place(entry: TensorEntry) -> tuple[int, int, str]:
    return entry.start, entry.stop, entry.name


def _unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) < len(items):
        raise FileError("the header names a tensor twice")
    return found


def _entry(name: str, claim: Any, base: int) -> TensorEntry:
    if not isinstance(claim, dict) or set(claim) != {"dtype", "shape", "data_offsets"}:
        raise FileError(f"tensor {shown(name)} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = claim["dtype"], claim["shape"], claim["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BYTES:
        raise FileError(f"tensor {shown(name)} has the unknown type {shown(dtype)}; known are {', '.join(BYTES)}")
    if not _naturals(shape) or len(shape) > MAX_DIMENSIONS:
        raise FileError(f"tensor {shown(name)} has no shape of at most {MAX_DIMENSIONS} whole numbers >= 0")
    if not _naturals(offsets) or len(offsets) != 2:
        raise FileError(f"tensor {shown(name)} has no two offsets")
    start, stop = offsets
    if stop - start != math.prod(shape) * BYTES[dtype]:
        raise FileError(
            f"tensor {shown(name)} of shape {shown(tuple(shape))} and type {dtype} has other bytes than that"
        )
    return TensorEntry(name, dtype, tuple(shape), base + start, base + stop)


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**48 for value in values)
