"""Safetensors headers: what is read is what safetensors itself says, and a header that lies gets one sentence."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutants import FUZZ, peak_below
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save
from safetensors.torch import save as torch_save

from lab.files import FileError, Limits, read_tensor, read_tensor_header
from lab.files.tensors import COMMAS, HEADER_BYTES, MAX_TENSORS

VALID = save({"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.int8), "s": np.array(2.0)})


def file(header: Any, numbers: bytes = b"") -> bytes:
    """A file with any header, true or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + numbers


def tensor(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_it_says_what_safetensors_says(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(VALID)
    true = {name: info for name, info in deserialize(VALID)}
    for source in (path, str(path), VALID, path.open("rb")):
        entries = read_tensor_header(source)
        assert {entry.name for entry in entries} == set(true)
        for entry in entries:
            assert (entry.dtype, list(entry.shape)) == (true[entry.name]["dtype"], true[entry.name]["shape"])
            assert VALID[entry.start : entry.stop] == bytes(true[entry.name]["data"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_tensor_is_what_safetensors_reads(dtype: torch.dtype) -> None:
    values = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    data = torch_save(
        {"before": torch.arange(3), "w": values, "point": values[0, 0].clone(), "none": values[:0].clone()}
    )
    assert np.array_equal(read_tensor(data, "w"), values.float().numpy())
    assert read_tensor(data, "point").shape == () and read_tensor(data, "none").shape == (0, 3)
    with pytest.raises(FileError, match="tensor 'before' is of type I64; wanted is one of F16, BF16, F32, F64"):
        read_tensor(data, "before")
    with pytest.raises(FileError, match=r"'w.safetensors': there is no tensor '\.\./w' in it; there are 4: 'before', "):
        read_tensor(data, "../w", name="w.safetensors")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e300])
def test_a_tensor_of_no_numbers_is_refused(bad: float) -> None:
    with pytest.raises(FileError, match="holds NaN, inf"):
        read_tensor(torch_save({"w": torch.tensor([1.0, bad], dtype=torch.float64)}), "w")


def test_metadata_is_no_tensor_and_a_file_may_be_without_any() -> None:
    assert read_tensor_header(file({"__metadata__": {"format": "pt"}})) == ()
    assert read_tensor_header(file({"e": tensor(shape=[0, 5], offsets=[0, 0])}))[0].shape == (0, 5)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"short", "cut off"),
        (VALID[:40], "cut off"),
        (VALID[:-1], "the tensors end at byte"),
        (VALID + b"x", "the tensors end at byte"),
        (b"PK\x03\x04" + bytes(40), "another kind of file"),
        (b"\x80\x04\x95" + b"pickle" * 9, "another kind of file"),
        (file(b"{nonsense}"), "no JSON"),
        (file(b"[" * 100_000), "no JSON"),
        (file([1]), "no JSON object"),
        (file(b" " * (2**22 + 1)), "more than 4,194,304"),
        (file(b'{"a": 1, "a": 2}'), "twice"),
        (file({"a": 7}), "not described"),
        (file({"a": tensor() | {"more": 1}}), "not described"),
        (file({"a": tensor(dtype="O")}, bytes(8)), "unknown type 'O'"),
        (file({"a": tensor(dtype=["F32"])}, bytes(8)), "unknown type"),
        (file({"a": tensor(shape=[-2])}, bytes(8)), "no shape"),
        (file({"a": tensor(shape=[True, 2])}, bytes(8)), "no shape"),
        (file({"a": tensor(shape=[2.0])}, bytes(8)), "no shape"),
        (file({"a": tensor(shape=[1] * 9)}, bytes(4)), "no shape"),
        (file({"a": tensor(shape=[10**9, 10**9])}, bytes(8)), "other bytes"),
        (file({"a": tensor(shape=[2**31 * 4], offsets=[0, 2**35])}, bytes(8)), "the tensors end at byte"),
        (file({"a": tensor(offsets=[8, 0])}, bytes(8)), "other bytes"),
        (file({"a": tensor(offsets=[0, 8, 9])}, bytes(8)), "no two offsets"),
        (file({"a": tensor(), "b": tensor()}, bytes(8)), "does not begin where"),
        (file({"a": tensor(offsets=[4, 12])}, bytes(12)), "does not begin where"),
        (file({str(i): tensor(shape=[0], offsets=[0, 0]) for i in range(MAX_TENSORS + 1)}), "more than 20,000"),
    ],
)
def test_a_header_that_lies_is_one_sentence(data: bytes, says: str) -> None:
    with pytest.raises(FileError, match=says) as caught:
        read_tensor_header(data, name="model.safetensors")
    assert str(caught.value).startswith("'model.safetensors': ") and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    with path.open("wb") as stream:
        stream.truncate(10 * 2**30)  # sparse: ten gigabytes that take no room
    with pytest.raises(FileError, match="at most 64 MiB"):
        read_tensor_header(path)
    with pytest.raises(FileError, match=r"at most 9\.5"):
        read_tensor_header(VALID, limits=Limits(max_bytes=10))
    with pytest.raises(TypeError, match="source"):
        read_tensor_header(7)  # type: ignore[arg-type]


HOSTILE = {
    "names": b"{" + b",".join(b'"%06x":0' % number for number in range(HEADER_BYTES // 11 - 1)) + b"}",
    "dicts": b"[" + b",".join([b"{}"] * (HEADER_BYTES // 3 - 1)) + b"]",
    "fewer dicts": b"[" + b",".join([b"{}"] * (COMMAS * MAX_TENSORS)) + b"]",
    "wide letters": b'{"x": "' + "\U0001f600".encode() * (HEADER_BYTES // 4 - 4) + b'"}',
    "depth": b"[" * HEADER_BYTES,
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_a_hostile_header_takes_no_more_memory_than_is_stated(kind: str) -> None:
    data = file(HOSTILE[kind])
    with peak_below(64), pytest.raises(FileError):
        read_tensor_header(data)


@FUZZ
@given(
    edits=st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.booleans(),
)
def test_mutants_are_refused_or_are_what_safetensors_takes_too(edits: list[tuple[int, int]], cut: bool) -> None:
    changed = bytearray(VALID)
    for at, byte in edits:
        changed[at] = byte
    data = bytes(changed[: edits[0][0]] if cut else changed)
    with peak_below(1):
        try:
            entries = read_tensor_header(data)
        except FileError as error:
            assert "\n" not in str(error)
            return
    try:
        true = {name: info["shape"] for name, info in deserialize(data)}
    except SafetensorError:
        return  # it checks more than we do: alignment, metadata
    assert {entry.name: list(entry.shape) for entry in entries} == true
