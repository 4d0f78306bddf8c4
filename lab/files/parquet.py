"""Parquet through pyarrow: footer, schema and page headers are checked before a column is decoded."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.files.bounds import FileError, Limits, malformed, shown
from lab.files.pages import check_pages
from lab.files.table import Table, check_counts, check_names, find_label, missing, not_numbers, table
from lab.files.thrift import ThriftError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

FOOTER_BYTES = 2**23  # 512 columns in 50 row groups take 3 MiB
REMEDY = "write it again with DataFrame.to_parquet"
_INDEX = re.compile(r"__index_level_\d+__")


def parse(data: bytes, label: str | None, limits: Limits) -> Table:
    """The table in the bytes of a parquet file; raises `FileError`.

    >>> import io, pandas
    >>> pandas.DataFrame({"a": [1, 2], "kind": ["cat", "dog"]}).to_parquet(file := io.BytesIO())
    >>> parse(file.getvalue(), "kind", Limits()).label_names
    ('cat', 'dog')
    """
    import pyarrow as pa

    if len(data) < 12 or data[-4:] != b"PAR1":
        raise FileError(f"not readable as parquet: the file's end is missing, is it cut off?; {REMEDY}")
    (footer,) = struct.unpack("<L", data[-8:-4])
    if footer > min(FOOTER_BYTES, len(data) - 12):
        raise FileError(f"the parquet footer declares {footer:,} bytes, more than the file or the limit has; {REMEDY}")
    with malformed("parquet", REMEDY, ThriftError, pa.ArrowException, OSError, MemoryError, UnicodeDecodeError):
        return _parse(data, len(data) - 8 - footer, label, limits)


def _parse(data: bytes, footer: int, label: str | None, limits: Limits) -> Table:
    import pyarrow as pa

    head = _open(data, [])
    schema = head.schema_arrow
    nested = [(field.name, f"nested {shown(field.type, 20)}") for field in schema if pa.types.is_nested(field.type)]
    if nested:
        raise not_numbers(nested)
    index = [i for i, name in enumerate(schema.names) if _INDEX.fullmatch(name)]
    names = [name for i, name in enumerate(schema.names) if i not in index]
    check_names(names)
    at = find_label(names, label)
    features = [name for i, name in enumerate(names) if i != at]
    check_counts(head.metadata.num_rows, len(features), limits)
    _check_types(schema, features, None if at is None else names[at])
    check_pages(data, footer, limits)

    # Words stay in their dictionary: spelled out row by row, one long word would fill the memory.
    words = [field.name for field in schema if not _is_number(field.type)]
    columns = _open(data, words).read(use_threads=False)
    columns.validate(full=True)  # the reader itself does not look whether a word is in its dictionary
    values = np.empty((columns.num_rows, len(features)), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit float32 is found, and named, by table()
        for j, name in enumerate(features):
            column = columns.column(name)
            if column.null_count:
                raise missing(name, 1 + int(np.argmax(column.is_null().to_numpy())))
            values[:, j] = column.to_numpy()
    if at is None:
        return table(features, values)
    return table(features, values, names[at], _labels(columns.column(names[at])))


def _open(data: bytes, words: list[str]) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.ParquetFile(
        pa.BufferReader(data),
        read_dictionary=words,
        pre_buffer=False,
        page_checksum_verification=True,
        arrow_extensions_enabled=False,
        thrift_string_size_limit=2**22,
        thrift_container_size_limit=100_000,
    )


def _is_number(kind: pa.DataType) -> bool:
    from pyarrow import types

    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)


def _check_types(schema: pa.Schema, features: list[str], label: str | None) -> None:
    from pyarrow import types

    wrong = [(name, f"values of type {shown(schema.field(name).type, 20)}") for name in features]
    wrong = [(name, what) for name, what in wrong if not _is_number(schema.field(name).type)]
    if wrong:
        raise not_numbers(wrong)
    for field in schema:
        kind = field.type.value_type if types.is_dictionary(field.type) else field.type
        if not (_is_number(kind) or types.is_string(kind) or types.is_large_string(kind)):
            what = "the label column" if field.name == label else "the index column"
            raise FileError(
                f"{what} {shown(field.name)} has type {shown(field.type, 20)}; it must hold integers or words"
            )


def _labels(column: pa.ChunkedArray) -> list[Any]:
    """The label of each row; rows with the same word share one string."""
    import pyarrow as pa

    raw: list[Any] = []
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            words = chunk.dictionary.to_pylist()
            raw += [None if i is None else words[i] for i in chunk.indices.to_pylist()]
        else:
            raw += chunk.to_pylist()
    return raw
