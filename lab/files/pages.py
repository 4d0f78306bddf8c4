"""What a parquet file's pages will unpack to, read from their own headers: the footer that a library trusts may lie.

A column chunk is a run of pages, each behind a header in Thrift's compact protocol (parquet-format, `PageHeader`).
The header's sizes are what a decoder allocates, so they are added up before any decoder runs.
"""

from __future__ import annotations

from lab.files.bounds import FileError, Limits, shown

MAGIC = b"PAR1"  # four bytes, so no page starts before
MAX_PAGES = 200_000
DELTA_BYTE_ARRAY = 7  # each word repeats the start of the one before it: a few bytes a row unpack without bound
_DEPTH = 4  # PageHeader, DataPageHeader, Statistics, and one to spare


def check_chunk(data: bytes, start: int, size: int, rows: int, column: str) -> tuple[int, int]:
    """The bytes that the chunk's pages unpack to, and how many pages there are; raises `FileError` and `IndexError`.

    `start` and `size` place the chunk in the file `data`; `rows` is the number of rows in its row group.

    >>> page = bytes([0x15, 0, 0x15, 20, 0x15, 4, 0x2C, 0x15, 6, 0, 0]) + b"ab"  # a page of 3 values: 2 bytes for 10
    >>> check_chunk(MAGIC + page, 4, len(page), 3, "a")
    (10, 1)
    """
    at, end, unpacked, pages = start, start + size, 0, 0
    if start < len(MAGIC) or size < 0 or end > len(data):
        raise FileError(f"column {shown(column)} lies outside the file; is it cut off?")
    while at < end:
        header, at = _struct(data, at)
        held, stored = _int(header, 2), _int(header, 3)
        if min(held, stored) < 0 or at + stored > end:
            raise FileError(f"a page of column {shown(column)} declares sizes that contradict the file's")
        for field, slot, most in ((5, 2, rows), (7, 2, held), (8, 4, rows)):  # data page, dictionary, data page v2
            kind = header.get(field)
            if not isinstance(kind, dict):
                continue
            if not 0 <= _int(kind, 1) <= most:
                raise FileError(f"a page of column {shown(column)} declares more values than there are")
            if _int(kind, slot) == DELTA_BYTE_ARRAY:
                raise FileError(f"column {shown(column)} is stored as DELTA_BYTE_ARRAY; write it with another encoding")
        at += stored
        unpacked += held
        pages += 1
    return unpacked, pages


def check_total(unpacked: int, pages: int, limits: Limits) -> None:
    """Refuse pages that would unpack to more than `limits.max_bytes`, or that are too many.

    >>> check_total(2**40, 1, Limits())
    Traceback (most recent call last):
    lab.files.bounds.FileError: a file may unpack to at most 256 MiB, and this one declares 1,048,576 MiB
    """
    if unpacked > limits.max_bytes:
        raise FileError(
            f"a file may unpack to at most {limits.max_bytes / 2**20:.4g} MiB, and this one declares "
            f"{unpacked / 2**20:,.0f} MiB"
        )
    if pages > MAX_PAGES:
        raise FileError(
            f"a parquet file may have at most {MAX_PAGES:,} pages, and this one has more; write fewer row groups"
        )


def _int(fields: dict, field: int) -> int:
    value = fields.get(field, 0)
    return value if isinstance(value, int) else -1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError("a number in a page header does not end")


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _struct(data: bytes, at: int, depth: int = 0) -> tuple[dict[int, object], int]:
    """A compact-protocol struct as {field: int or struct}; other kinds are skipped, lists and maps refused."""
    if depth > _DEPTH:
        raise IndexError("a page header nests too deep")
    fields: dict[int, object] = {}
    field = 0
    while byte := data[at]:
        at += 1
        delta, kind = byte >> 4, byte & 0x0F
        if delta:
            field += delta
        else:
            field, at = _zigzag(data, at)
        if field in fields:  # readers differ in which one counts
            raise IndexError(f"a page header holds field {field} twice")
        if kind in (1, 2):  # a boolean is its own value
            pass
        elif kind == 3:
            at += 1
        elif kind in (4, 5, 6):
            fields[field], at = _zigzag(data, at)
        elif kind == 7:
            at += 8
        elif kind == 8:
            length, at = _varint(data, at)
            at += length
        elif kind == 12:
            fields[field], at = _struct(data, at, depth + 1)
        else:
            raise IndexError(f"a page header holds a field of kind {kind}")
    return fields, at + 1
