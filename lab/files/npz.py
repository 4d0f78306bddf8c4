"""numpy's npz without pickle: a member's declared size must match its array header before it is unpacked."""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.lib import format as npy

from lab.files.bounds import FileError, Limits, malformed, shown
from lab.files.table import Table, check_counts, find_label, table

MAX_MEMBERS = 64
DIRECTORY_BYTES = 2**16  # zipfile builds an object for each of its >= 46-byte entries, so it is bounded before
HEADER_BYTES = 2**14  # numpy itself reads array headers of at most 10,000 bytes
INFLATION = 1032  # deflate cannot expand further
CHUNK = 2**18
FEATURES = ("X", "x", "features", "data")
REMEDY = "write it again with numpy.savez"
# What zipfile and numpy raise on bytes that are no archive or no array header.
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, OverflowError, NotImplementedError)
_BAD_HEADER = (*_BAD_ZIP, SyntaxError, TypeError, KeyError, tokenize.TokenError, RecursionError, MemoryError)


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
    archive = _open(data)
    infos = archive.infolist()
    _check_members(infos, len(data), limits)
    members = [_header(archive, info) for info in infos]
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
        values = np.ascontiguousarray(_array(archive, matrix), dtype=np.float32)
    names = [f"x{i}" for i in range(columns)]
    if at is None:
        return table(names, values)
    with malformed("npz", REMEDY, ValueError):  # code points that no text has
        raw = _array(archive, others[at]).tolist()
        "".join(word for word in raw if isinstance(word, str)).encode()
    return table(names, values, others[at].name, raw)


def _open(data: bytes) -> zipfile.ZipFile:
    """The archive, once its directory is known to be small.

    Only the plain layout that numpy writes is let in, no comment and no zip64 directory, so that the record read
    here is the one that zipfile will go by.
    """
    end = data[-22:]
    if len(end) < 22 or end[:4] != b"PK\5\6" or end[-2:] != b"\0\0":
        raise FileError(f"not readable as npz: the zip archive's end is missing, is it cut off?; {REMEDY}")
    if data[-42:-38] == b"PK\6\7":
        raise FileError("npz archives in the zip64 layout (over 4 GiB, or over 65,535 members) are not read")
    members, directory = struct.unpack("<HL", end[10:16])
    if members > MAX_MEMBERS or directory > DIRECTORY_BYTES:
        raise FileError(f"an npz file may have at most {MAX_MEMBERS} members, and this one has {members:,}")
    with malformed("npz", REMEDY, *_BAD_ZIP):
        return zipfile.ZipFile(io.BytesIO(data))


def _check_members(infos: list[zipfile.ZipInfo], stored: int, limits: Limits) -> None:
    if len(infos) > MAX_MEMBERS:
        raise FileError(f"an npz file may have at most {MAX_MEMBERS} members, and this one has {len(infos):,}")
    if len({info.filename for info in infos}) < len(infos):
        raise FileError(f"two members of the archive have the same name; {REMEDY}")
    for info in infos:
        if not info.filename.endswith(".npy") or any(mark in info.filename for mark in "/\\:"):
            raise FileError(
                f"the archive's member {shown(info.filename)} is no array of an npz file ('X.npy'); "
                "save a spreadsheet as CSV, and arrays with numpy.savez"
            )
        if info.flag_bits & 0x1:
            raise FileError(f"the member {shown(info.filename)} is encrypted; {REMEDY}")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FileError(f"the member {shown(info.filename)} is not packed with deflate; {REMEDY}")
    total = sum(info.file_size for info in infos)
    if total > limits.max_bytes:
        raise FileError(
            f"a file may unpack to at most {limits.max_bytes / 2**20:.4g} MiB, and this one declares "
            f"{total / 2**20:,.0f} MiB"
        )
    for info in infos:
        if info.file_size > INFLATION * (min(info.compress_size, stored) + 1):
            raise FileError(f"the member {shown(info.filename)} declares more than its bytes can hold; {REMEDY}")


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
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


def _array(archive: zipfile.ZipFile, member: _Member) -> np.ndarray:
    """The member's numbers, unpacked into the memory that its header accounts for and no more."""
    flat = np.empty(member.size, np.uint8)
    with malformed("npz", REMEDY, *_BAD_ZIP), archive.open(member.info) as stream:
        stream.read(member.start)
        at = 0
        while at < member.size:  # in chunks: zipfile would join thousands of small pieces in one long read
            part = stream.read(min(CHUNK, member.size - at))
            if not part:
                raise EOFError(f"array {member.name} ends early")
            flat[at : at + len(part)] = np.frombuffer(part, np.uint8)
            at += len(part)
    return np.ndarray(member.shape, member.dtype, buffer=flat, order="F" if member.fortran else "C")


def _shape(member: _Member) -> str:
    return shown(member.shape)[1:-1]
