"""Delimited text, one record at a time: what is held beyond the file is one record and the numbers read so far."""

from __future__ import annotations

import csv
import io
import re
from array import array

import numpy as np

from lab.files.bounds import FileError, Limits, malformed, shown
from lab.files.table import Table, check_counts, check_names, find_label, missing, not_numbers, table

RECORD_CHARS = 2**20  # bounds what one record may ask for: 512 cells of 2,000 characters
MISSING = {"", "na", "n/a", "null", "none", "?", "-"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class _Lines:
    """The text's lines; `spent` counts the characters of the record being read, which quotes spread over lines."""

    def __init__(self, data: bytes) -> None:
        self.text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
        self.spent = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.text.readline(RECORD_CHARS + 1)
        self.spent += len(line)
        if self.spent > RECORD_CHARS:
            raise FileError(
                f"a row may have at most {RECORD_CHARS:,} characters; is a quote left open, or is it no csv?"
            )
        if not line:
            raise StopIteration
        return line


def parse(data: bytes, label: str | None, limits: Limits) -> Table:
    """The table in the bytes of a csv file; raises `FileError`.

    >>> parse(b"a;b\\n1;2\\n3;4\\n", None, Limits()).values.tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    if b"\0" in data[:4096]:
        raise FileError("this is neither csv text in UTF-8 nor npz nor parquet; save a spreadsheet as 'CSV UTF-8'")
    with malformed("csv text", "save it again as 'CSV UTF-8'", csv.Error, UnicodeDecodeError):
        return _parse(data, label, limits)


def _parse(data: bytes, label: str | None, limits: Limits) -> Table:
    lines = _Lines(data)
    records = csv.reader(lines, delimiter=_delimiter(data), skipinitialspace=True, strict=True)
    header = [cell.strip() for cell in next(filter(None, records), [])]
    if not header:
        raise FileError("the file holds blank lines only")
    width = len(header)
    numeric = sum(bool(_NUMBER.fullmatch(cell)) for cell in header)
    headless = numeric == width and not (width >= 4 and header == [str(i) for i in range(width)])
    names = [f"x{i}" for i in range(width)] if headless else header
    check_names(names)
    at = find_label(names, label)
    raw: list[str] | None = None if at is None else []
    features = [name for i, name in enumerate(names) if i != at]
    check_counts(2, len(features), limits)
    hint = " (or is the header line missing?)" if numeric and not headless else ""

    values = array("f")
    rows = 0

    def take(cells: list[str]) -> None:
        if raw is not None and at is not None:
            raw.append(cells.pop(at))
        try:
            if "_" in "".join(cells):  # float() reads 1_0 as 10
                raise ValueError
            values.fromlist(list(map(float, cells)))
        except ValueError:
            raise _refusal(features, cells, rows, hint) from None

    if headless:
        rows = 1
        take(header)
    lines.spent = 0
    for cells in records:
        lines.spent = 0
        if not cells:
            continue
        rows += 1
        if len(cells) != width:
            raise FileError(
                f"row {rows} (line {records.line_num}) has {len(cells)} cells where the first line has {width}; "
                "every row must have as many"
            )
        if rows > limits.max_rows:
            about = max(rows, data.count(b"\n"))
            raise FileError(f"a table may have at most {limits.max_rows:,} rows, and this one has about {about:,}")
        take(cells)
    check_counts(rows, len(features), limits)
    matrix = np.frombuffer(values, np.float32).reshape(rows, len(features))
    return table(features, matrix, "" if at is None else names[at], raw)


def _delimiter(data: bytes) -> str:
    """The one of comma, semicolon and tab that cuts the first line into the most cells; a comma where none does."""
    lines = _Lines(data)
    first = next((line for line in lines if line.strip()), "")
    return max(",;\t", key=lambda mark: len(next(csv.reader([first], delimiter=mark, skipinitialspace=True), [])))


def _refusal(features: list[str], cells: list[str], row: int, hint: str) -> FileError:
    """Why the cells of `row` are not all numbers."""
    odd = [(name, cell.strip()) for name, cell in zip(features, cells, strict=True) if not _is_float(cell)]
    words = [(name, f"{shown(cell, 20)} in row {row}") for name, cell in odd if cell.lower() not in MISSING]
    if words:
        return not_numbers(words, hint)
    return missing(odd[0][0], row)


def _is_float(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell
