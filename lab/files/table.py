"""What a table is, whichever file it came from: finite float32 features, and labels as codes with names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from lab.files.bounds import FileError, Limits, shown

LABELS = ("label", "labels", "target", "class", "y")


@dataclass(frozen=True, eq=False)
class Table:
    """A matrix of finite numbers with named columns; `labels[i]` indexes `label_names`, or is absent.

    >>> Table(("a",), np.ones((2, 1), np.float32), np.array([1, 0]), ("cat", "dog")).values.shape
    (2, 1)
    """

    columns: tuple[str, ...]
    values: Float32[np.ndarray, "n d"]
    labels: Int64[np.ndarray, " n"] | None = None
    label_names: tuple[str, ...] = ()


def table(
    columns: Sequence[str], values: Float32[np.ndarray, "n d"], label: str = "", raw: Sequence[Hashable] | None = None
) -> Table:
    """The `Table` of `columns` and `values`, with the labels `raw` of the column `label` as codes.

    Raises `FileError` at the first value that is not finite and at labels that are missing or fractions.

    >>> table(["a"], np.ones((3, 1), np.float32), "y", ["10", "9", "10"]).label_names
    ('9', '10')
    """
    finite = np.isfinite(values)
    if not finite.all():
        row, column = divmod(int(np.argmin(finite)), len(columns))
        raise FileError(
            f"column {shown(columns[column])} holds NaN, infinity or a number beyond float32 in row {row + 1}; "
            "every value must be finite"
        )
    if raw is None:
        return Table(tuple(columns), values)
    codes, names = _encode(label, raw)
    return Table(tuple(columns), values, codes, names)


def find_label(names: Sequence[str], wanted: str | None) -> int | None:
    """Where the label column is: the one called `wanted`, else the first of `LABELS` that is there, else None.

    A `y` beside an `x` is a coordinate.

    >>> find_label(["x", "y", "Label"], None), find_label(["x", "y"], None), find_label(["a", "y"], None)
    (2, None, 1)
    """
    if wanted is not None:
        if wanted in names:
            return names.index(wanted)
        raise FileError(f"there is no label column {shown(wanted)}; there are {_list(names)}")
    lowered = [name.lower() for name in names]
    usual = [name for name in LABELS if name in lowered and not (name == "y" and "x" in lowered)]
    return lowered.index(usual[0]) if usual else None


def check_names(names: Sequence[str]) -> None:
    """Refuse column names that are empty or occur twice.

    >>> check_names(["a", "a"])
    Traceback (most recent call last):
    lab.files.bounds.FileError: the column name 'a' occurs 2 times; every name must be unique
    """
    if "" in names:
        raise FileError(
            f"column {names.index('') + 1} has no name; name it, or leave it out (pandas: to_csv(..., index=False))"
        )
    for name, times in Counter(names).items():
        if times > 1:
            raise FileError(f"the column name {shown(name)} occurs {times} times; every name must be unique")


def check_counts(rows: int, features: int, limits: Limits) -> None:
    """Refuse fewer than two rows, no features, and more of either than `limits` allows.

    >>> check_counts(1, 3, Limits())
    Traceback (most recent call last):
    lab.files.bounds.FileError: a table needs at least two rows of data, and this one has 1
    """
    if rows < 2:
        raise FileError(f"a table needs at least two rows of data, and this one has {rows or 'none'}")
    if rows > limits.max_rows:
        raise FileError(f"a table may have at most {limits.max_rows:,} rows, and this one has {rows:,}")
    if features < 1:
        raise FileError("a table needs at least one feature column beside the label, and this one has none")
    if features > limits.max_columns:
        raise FileError(f"a table may have at most {limits.max_columns} feature columns, and this one has {features:,}")


def not_numbers(found: Sequence[tuple[str, str]], hint: str = "") -> FileError:
    """The refusal of feature columns that hold no numbers: `found` pairs a column's name with what it holds.

    >>> str(not_numbers([("city", "'Paris'")]))
    "features must be numbers, but column 'city' holds 'Paris'; leave it out, encode it, or name it as the label"
    """
    some = ", ".join(f"column {shown(name)} holds {what}" for name, what in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    them = "it" if len(found) == 1 else "them"
    return FileError(
        f"features must be numbers, but {some}{more}; leave {them} out, encode {them}, or name it as the label{hint}"
    )


def missing(column: str, row: int) -> FileError:
    """The refusal of an empty cell in `row`, counted from 1.

    >>> str(missing("a", 3))
    "column 'a' has no value in row 3; fill missing values in, or leave such rows out"
    """
    return FileError(
        f"column {shown(column)} has no value in row {row}; fill missing values in, or leave such rows out"
    )


def _encode(column: str, raw: Sequence[Hashable]) -> tuple[Int64[np.ndarray, " n"], tuple[str, ...]]:
    # By distinct value, so that a long word that occurs in many rows is held, stripped and parsed once.
    words = {value: "" if value is None else str(value).strip() for value in set(raw)}
    numbers = {word: _number(word) for word in words.values() if word}
    if any(value != value for value in numbers.values()) and None not in numbers.values():
        words = {value: "" if word.lower() == "nan" else word for value, word in words.items()}
    for row, value in enumerate(raw, 1):
        if not words[value]:
            raise missing(column, row)
    names: dict[str, str] = {word: word for word in words.values()}
    order = sorted(names)
    if None not in numbers.values():
        for word, number in numbers.items():
            if isinstance(number, float):
                raise FileError(
                    f"column {shown(column)} is read as the label, and {shown(word)} in it is neither an integer nor "
                    "a word; rename the column if it is a feature"
                )
        names = {word: str(number) for word, number in numbers.items()}
        order = [str(number) for number in sorted(set(numbers.values()))]  # type: ignore[type-var]
    codes = {name: code for code, name in enumerate(order)}
    lookup = {value: codes[names[word]] for value, word in words.items()}
    return np.fromiter((lookup[value] for value in raw), np.int64, len(raw)), tuple(order)


def _number(word: str) -> int | float | None:
    """An int where `word` is a whole number, a float where it is another, None where it is no number."""
    if "_" in word:  # Python reads 1_0 as 10
        return None
    try:
        return int(word)
    except ValueError:
        pass
    try:
        number = float(word)
    except ValueError:
        return None
    return int(number) if number.is_integer() else number


def _list(names: Sequence[str]) -> str:
    return ", ".join(shown(name) for name in names[:8]) + (", ..." if len(names) > 8 else "")
