"""numpy's npz without pickle: a member's declared size must match its array header before it is unpacked."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
from dataclasses import dataclass

import numpy as np
from numpy.lib import format as npy

from lab.files.archive import BAD_ZIP, open_archive, unpack
from lab.files.bounds import FileError, Limits, malformed, shown
from lab.files.table import Table, check_counts, find_label, table

MAX_MEMBERS = 64
HEADER_BYTES = 2**14  # numpy itself reads array headers of at most 10,000 bytes
FEATURES = ("X", "x", "features", "data")
REMEDY = "write it again with numpy.savez"
# What zipfile and numpy raise on bytes that are no archive or no array header.
_BAD_HEADER = (*BAD_ZIP, SyntaxError, TypeError, KeyError, tokenize.TokenError, RecursionError, MemoryError)


@dataclass(frozen=True)
class _Member:
    name: str
    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    start: int  # where the numbers begin, behind the array header

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_matrix(self) -> bool:
        return len(self.shape) == 2 and self.dtype.kind in "biuf"


def parse(data: bytes, label: str | None, limits: Limits) -> Table:
    """The table in the bytes of an npz file; raises `FileError`.

    >>> np.savez(file := io.BytesIO(), X=np.eye(2), y=np.array(["cat", "dog"]))
    >>> parse(file.getvalue(), None, Limits()).label_names
    ('cat', 'dog')
    """
    archive = open_archive(data, "npz", REMEDY, MAX_MEMBERS, limits)
    _check_names(archive.infolist())
    members = [member_header(archive, info) for info in archive.infolist()]
    matrix = _features(members)
    rows, columns = matrix.shape
    check_counts(rows, columns, limits)
    others = [member for member in members if member is not matrix]
    at = find_label([member.name for member in others], label)
    if at is not None and others[at].shape != (rows,):
        raise FileError(
            f"the label array {shown(others[at].name)} has shape {_shape(others[at])}; it must be ({rows},), "
            f"one label for each row of {shown(matrix.name)}"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit float32 is found, and named, by table()
        values = np.ascontiguousarray(member_array(archive, matrix), dtype=np.float32)
    names = [f"x{i}" for i in range(columns)]
    if at is None:
        return table(names, values)
    with malformed("npz", REMEDY, ValueError):  # code points that no text has
        raw = member_array(archive, others[at]).tolist()
        "".join(word for word in raw if isinstance(word, str)).encode()
    return table(names, values, others[at].name, raw)


def _check_names(infos: list[zipfile.ZipInfo]) -> None:
    for info in infos:
        if not info.filename.endswith(".npy") or any(mark in info.filename for mark in "/\\:"):
            raise FileError(
                f"the archive's member {shown(info.filename)} is no array of an npz file ('X.npy'); "
                "save a spreadsheet as CSV, and arrays with numpy.savez"
            )


def member_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    """Shape and type of a member, from its first bytes; refused unless they account for its size exactly."""
    with malformed("npz", REMEDY, *_BAD_HEADER):
        with archive.open(info) as stream:
            head = io.BytesIO(stream.read(HEADER_BYTES))
        version = npy.read_magic(head)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"npy version {version}")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(head)
    member = _Member(info.filename.removesuffix(".npy"), info, shape, fortran, dtype, head.tell())
    if dtype.hasobject:
        raise FileError(
            f"array {shown(member.name)} holds Python objects, a pickle, which is never loaded; save numbers"
        )
    if dtype.kind not in "biufU":
        raise FileError(
            f"array {shown(member.name)} has type {shown(dtype)}; save real numbers, and labels as integers or str"
        )
    if any(type(length) is not int or length < 0 for length in shape) or member.start + member.size != info.file_size:
        raise FileError(
            f"array {shown(member.name)} declares shape {_shape(member)} and type {dtype}, which is not what its "
            f"{info.file_size:,} bytes hold; {REMEDY}"
        )
    return member


def _features(members: list[_Member]) -> _Member:
    named = [member for name in FEATURES for member in members if member.name == name]
    if named:
        if not named[0].is_matrix:
            raise FileError(
                f"array {shown(named[0].name)} has shape {_shape(named[0])} and type {named[0].dtype}; the features "
                "must be numbers in shape (rows, columns)"
            )
        return named[0]
    matrices = [member for member in members if member.is_matrix]
    if len(matrices) != 1:
        found = ", ".join(f"{shown(member.name)} {_shape(member)}" for member in members[:8]) or "none"
        raise FileError(f"one array must be named 'X' or be the only 2-D array of numbers; the arrays are: {found}")
    return matrices[0]


def member_array(archive: zipfile.ZipFile, member: _Member) -> np.ndarray:
    """The member's numbers, unpacked into the memory that its header accounts for and no more."""
    with malformed("npz", REMEDY, *BAD_ZIP):
        flat = unpack(archive, member.info, member.start)
    return np.ndarray(member.shape, member.dtype, buffer=flat, order="F" if member.fortran else "C")


def _shape(member: _Member) -> str:
    return shown(member.shape)[1:-1]
