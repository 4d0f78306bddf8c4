"""What a parquet file will unpack to, read from its footer and from each page's own header, which the footer may belie.

A column chunk is a run of pages, each behind a `PageHeader` (names and field numbers: parquet-format, parquet.thrift).
The page headers' sizes are what a decoder allocates, so they are added up before any decoder runs. The footer is read
here and not through pyarrow, whose metadata objects end the whole process on some malformed ones.
"""

from __future__ import annotations

from lab.files.bounds import FileError, Limits, shown
from lab.files.thrift import Compact, ThriftError

MAX_PAGES = 200_000
FOOTER_VALUES = 2_000_000  # 512 columns in 50 row groups take 925,000
DELTA_BYTE_ARRAY = 7  # each word repeats the start of the one before it: a few bytes a row unpack without bound


def check_pages(data: bytes, footer: int, limits: Limits) -> None:
    """Refuse a parquet file that contradicts itself or would unpack to more than the limits.

    `footer` is where the file's metadata begins. Raises `FileError`, and `ThriftError` for headers that are none.

    >>> import io, pandas
    >>> pandas.DataFrame({"a": [1, 2]}).to_parquet(file := io.BytesIO())
    >>> data = file.getvalue()
    >>> check_pages(data, len(data) - 8 - int.from_bytes(data[-8:-4], "little"), Limits(max_bytes=4))
    Traceback (most recent call last):
    lab.files.bounds.FileError: a file may unpack to at most 4 bytes, and this one declares ...
    """
    metadata = Compact(data, footer, len(data) - 8, FOOTER_VALUES).struct()
    rows = _int(metadata, 3)
    unpacked = pages = 0
    for group in _structs(metadata, 4):
        count = _int(group, 3)
        rows -= count
        for chunk in _structs(group, 1):
            more = _check_chunk(data, footer, chunk, count)
            unpacked, pages = unpacked + more[0], pages + more[1]
            if unpacked > limits.max_bytes:
                raise FileError(
                    f"a file may unpack to at most {limits.max_bytes:,} bytes, and this one declares {unpacked:,} or more"
                )
            if pages > MAX_PAGES:
                raise FileError(f"a parquet file may have at most {MAX_PAGES:,} pages; write fewer row groups")
    if rows:
        raise ThriftError("the row groups do not add up to the file's rows")


def _check_chunk(data: bytes, footer: int, chunk: dict[int, object], rows: int) -> tuple[int, int]:
    """The bytes that a column chunk's pages unpack to, and how many pages there are."""
    meta = chunk.get(3)
    if not isinstance(meta, dict) or 1 in chunk:  # 1: a path, to another file
        raise ThriftError("a column's metadata is missing or elsewhere")
    path = meta.get(3)
    parts = (
        [part.decode(errors="replace") for part in path if isinstance(part, bytes)] if isinstance(path, list) else []
    )
    name = shown(".".join(parts))
    at = min(_int(meta, 9), _int(meta, 11)) if 11 in meta else _int(meta, 9)
    end = at + _int(meta, 7)
    if at < 4 or end > footer or _int(meta, 5) != rows:
        raise FileError(f"column {name} does not lie in the file with a value for each row; is the file cut off?")
    reader = Compact(data, at, end, budget=100 * MAX_PAGES)
    unpacked = pages = 0
    while reader.at < end:
        header = reader.struct()
        held, stored = _int(header, 2), _int(header, 3)
        for field, slot, most in ((5, 2, rows), (7, 2, held), (8, 4, rows)):  # data page, dictionary, data page v2
            kind = header.get(field)
            if not isinstance(kind, dict):
                continue
            if _int(kind, 1) > most:
                raise FileError(f"a page of column {name} declares more values than there are")
            if _int(kind, slot) == DELTA_BYTE_ARRAY:
                raise FileError(f"column {name} is stored as DELTA_BYTE_ARRAY; write it with another encoding")
        reader.at += stored
        unpacked += held
        pages += 1
    if reader.at != end:
        raise ThriftError(f"the pages of column {name} do not fill it")
    return unpacked, pages


def _int(fields: dict[int, object], field: int) -> int:
    value = fields.get(field)
    if not isinstance(value, int) or value < 0:
        raise ThriftError(f"field {field} is no count")
    return value


def _structs(fields: dict[int, object], field: int) -> list[dict[int, object]]:
    value = fields.get(field)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ThriftError(f"field {field} is no list of structs")
    return value
