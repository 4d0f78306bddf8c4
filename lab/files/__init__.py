"""What users bring: tables (csv, npz, parquet), pictures, zip archives and safetensors, refused before they can harm.

A file is hostile until proven otherwise. Nothing is unpickled, nothing is extracted, no name is opened, and a file
that declares more than `Limits` allows is refused before the memory is asked for. Whatever is wrong comes back as a
`FileError`: one sentence that says what was found and what would be right.

A new format of tables is one module with `parse(data, label, limits)` and one line in `_PARSERS` and `_kind`.
"""

from __future__ import annotations

from lab.files import delimited, npz, parquet
from lab.files.archive import read_zip
from lab.files.bounds import LIMITS, FileError, Limits, Source, content
from lab.files.image import read_image
from lab.files.table import Table
from lab.files.tensors import TensorEntry, read_tensor, read_tensor_header

__all__ = [
    "FileError",
    "Limits",
    "Table",
    "TensorEntry",
    "read_csv",
    "read_image",
    "read_npz",
    "read_parquet",
    "read_table",
    "read_tensor",
    "read_tensor_header",
    "read_zip",
]

_PARSERS = {"csv": delimited.parse, "npz": npz.parse, "parquet": parquet.parse}


def read_table(source: Source, *, name: str | None = None, label: str | None = None, limits: Limits = LIMITS) -> Table:
    """A table of numbers, and its labels, from a csv, npz or parquet file; the content decides which it is.

    `source` is a path, the file's bytes, or an open binary stream (read from its start where it can be rewound).
    `name` serves messages only and is never opened. `label` names the label column; without it a column called
    label, labels, target, class or y (the first of these that is there, in any case) is the label, and no feature.
    Rows are counted from 1 in messages, without the header.

    Raises `FileError` when the file cannot be opened, is malformed, is over a limit, or holds features that are not
    finite numbers; `TypeError` when `source` is none of the three.

    >>> table = read_table(b"height,weight,label\\n1.5,60,cat\\n1.7,70,dog\\n")
    >>> table.columns, table.values.shape, table.labels.tolist(), table.label_names
    (('height', 'weight'), (2, 2), [0, 1], ('cat', 'dog'))
    """
    return _read(None, source, name, label, limits)


def read_csv(source: Source, *, name: str | None = None, label: str | None = None, limits: Limits = LIMITS) -> Table:
    """`read_table` for delimited text in UTF-8: comma, semicolon or tab, quoted cells, with or without a header.

    A first row of numbers alone is data, and the columns are then x0, x1, ...; the one exception is the header
    0, 1, 2, 3, ... that pandas writes for unnamed columns (four or more). Raises `FileError` as `read_table` does.

    >>> read_csv(b"1;2\\n3;4\\n").columns
    ('x0', 'x1')
    """
    return _read("csv", source, name, label, limits)


def read_npz(source: Source, *, name: str | None = None, label: str | None = None, limits: Limits = LIMITS) -> Table:
    """`read_table` for numpy's npz: features in `X`, `features`, `data` or the only 2-D array of numbers.

    The labels are the 1-D array that `label` names, else `label`, `labels`, `target`, `class` or `y`, else none.
    Raises `FileError` as `read_table` does; arrays of Python objects are pickles and are refused unread.

    >>> import io, numpy as np
    >>> np.savez(file := io.BytesIO(), X=np.eye(3), y=np.array([0, 1, 1]))
    >>> read_npz(file).label_names
    ('0', '1')
    """
    return _read("npz", source, name, label, limits)


def read_parquet(
    source: Source, *, name: str | None = None, label: str | None = None, limits: Limits = LIMITS
) -> Table:
    """`read_table` for parquet: flat columns of numbers or booleans, and a label column of integers or words.

    The index that pandas stores as a column (`__index_level_0__`) is no feature and is left out.
    Raises `FileError` as `read_table` does.

    >>> import io, pandas
    >>> pandas.DataFrame({"a": [1, 2], "b": [0.5, 1.5]}).to_parquet(file := io.BytesIO())
    >>> read_parquet(file).values.tolist()
    [[1.0, 0.5], [2.0, 1.5]]
    """
    return _read("parquet", source, name, label, limits)


def _kind(data: bytes) -> str:
    if data.startswith(b"PK"):
        return "npz"
    return "parquet" if data.startswith(b"PAR1") else "csv"


def _read(kind: str | None, source: Source, name: str | None, label: str | None, limits: Limits) -> Table:
    data, title = content(source, name, limits)
    try:
        return _PARSERS[kind or _kind(data)](data, label, limits)
    except FileError as error:
        raise FileError(f"{title}: {error}") from error
