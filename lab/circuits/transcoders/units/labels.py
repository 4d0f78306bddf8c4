"""A reader's own names of features: a JSON or CSV file of layer, feature and label, read strictly and written whole.

CSV has a header with these three words, in any order, among other columns if need be; JSON is a list of objects of the
three. A file comes from outside: it is bounded, and what is wrong in it is said by line (CSV) or entry (JSON).
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from lab.files import FileError, Limits
from lab.files.bounds import Source, content, shown
from lab.paths import write_atomic

LABEL_LIMITS = Limits(max_bytes=5 * 10**6)
LENGTH = 200  # characters a label
LAYERS, FEATURES = 10_000, 2**31  # no model has so many
COLUMNS = ("layer", "feature", "label")
FORMATTING = ("\u200c", "\u200d")  # joiners, without which some scripts and emoji fall apart

_DIGITS = re.compile(r"\d{1,11}", re.ASCII)


class Labels(MutableMapping[tuple[int, int], str]):
    """``(layer, feature) -> text``, like a dict; what is put in is cleaned, and refused as ValueError where it cannot be.

    Control characters go, white space becomes single blanks. A label has 1 ... 200 characters.

    >>> labels = Labels({(2, 17): "after a\\tcomma"})
    >>> labels[2, 17]
    'after a comma'
    """

    def __init__(self, labels: Mapping[tuple[int, int], str] | None = None) -> None:
        self._labels: dict[tuple[int, int], str] = {}
        self.update(labels or {})

    def __getitem__(self, key: tuple[int, int]) -> str:
        return self._labels[key]

    def __setitem__(self, key: tuple[int, int], label: str) -> None:
        layer, feature = key
        self._labels[_number("layer", layer, LAYERS), _number("feature", feature, FEATURES)] = _label(label)

    def __delitem__(self, key: tuple[int, int]) -> None:
        del self._labels[key]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._labels)

    def __len__(self) -> int:
        return len(self._labels)

    @classmethod
    def read(cls, source: Source, *, name: str | None = None) -> Labels:
        """The labels in a JSON or CSV file of at most 5 MB; the content decides which it is.

        `source` is a path, the file's bytes, or an open binary stream; `name` serves messages only. Two labels for one
        feature are refused, as nothing says which is meant. Raises FileError naming the lines that are wrong.

        >>> Labels.read(b"layer,feature,label\\n0,3,years\\n")[0, 3]
        'years'
        """
        data, title = content(source, name, LABEL_LIMITS)
        try:
            text = data.decode("utf-8-sig")
            rows = _json_rows(text) if text.lstrip()[:1] in ("[", "{") else _csv_rows(text)
            return cls._of(rows)
        except FileError as error:
            raise FileError(f"{title}: {error}") from error
        except UnicodeDecodeError as error:
            raise FileError(f"{title}: this is no text in UTF-8; save it again as JSON or as 'CSV UTF-8'") from error

    @classmethod
    def _of(cls, rows: Iterable[tuple[str, Any, Any, Any]]) -> Labels:
        found, where, wrong = cls(), dict[tuple[int, int], str](), list[str]()
        for place, layer, feature, label in rows:
            try:
                key = _number("layer", layer, LAYERS), _number("feature", feature, FEATURES)
                if key in where:
                    raise ValueError(f"layer {key[0]}, feature {key[1]} has a label already, in {where[key]}")
                found._labels[key] = _label(label)
                where[key] = place
            except ValueError as error:
                wrong.append(f"{place}: {error}")
        if wrong:
            more = f"; and {len(wrong) - 3:,} more" if len(wrong) > 3 else ""
            raise FileError("; ".join(wrong[:3]) + more)
        return found

    def to_json(self) -> str:
        """A list of objects, one a line, by layer and feature: what `read` reads.

        >>> Labels({(0, 3): "years"}).to_json()
        '[\\n{"layer": 0, "feature": 3, "label": "years"}\\n]\\n'
        """
        lines = [
            json.dumps({"layer": layer, "feature": feature, "label": label}, ensure_ascii=False)
            for (layer, feature), label in sorted(self._labels.items())
        ]
        return "[\n" + ",\n".join(lines) + "\n]\n" if lines else "[]\n"

    def save(self, path: Path) -> None:
        """Write `to_json` to a file, which is the old one or the new one at any time."""
        write_atomic(path, self.to_json())


def _json_rows(text: str) -> Iterator[tuple[str, Any, Any, Any]]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError("not readable as JSON; it must be a list of objects of layer, feature and label") from error
    if not isinstance(entries, list):
        raise FileError("the JSON must be a list of objects of layer, feature and label, not one object")
    for number, entry in enumerate(entries, start=1):
        values = entry if isinstance(entry, dict) else {}
        yield f"entry {number}", values.get("layer"), values.get("feature"), values.get("label")


def _csv_rows(text: str) -> Iterator[tuple[str, Any, Any, Any]]:
    first = next((line for line in text.splitlines() if line.strip()), "")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    try:
        header = [cell.strip().lower() for cell in next(filter(None, rows), [])]
        if missing := [name for name in COLUMNS if header.count(name) != 1]:
            raise FileError(
                f"the first line must name the columns layer, feature and label once each; {missing[0]} is not there, or "
                f"twice: {shown(', '.join(header))}"
            )
        places = [header.index(name) for name in COLUMNS]
        for row in filter(None, rows):
            cells = [row[place].strip() if place < len(row) else None for place in places]
            layer, feature = (int(cell) if cell and _DIGITS.fullmatch(cell) else cell for cell in cells[:2])
            yield f"line {rows.line_num}", layer, feature, cells[2]
    except csv.Error as error:
        raise FileError(f"line {rows.line_num}: not readable as CSV ({error}); is a quote left open?") from error


def _number(name: str, value: Any, below: int) -> int:
    if type(value) is not int or not 0 <= value < below:
        raise ValueError(f"{name} must be a whole number from 0 to {below - 1:,}, not {shown(value)}")
    return value


def _label(label: Any) -> str:
    if not isinstance(label, str):
        raise ValueError(f"label must be text, not {shown(label)}")
    text = cleaned(label)
    if not 1 <= len(text) <= LENGTH:
        raise ValueError(f"label must have 1 to {LENGTH} printable characters; {shown(label, 20)} has {len(text)}")
    return text


def cleaned(text: str) -> str:
    """Text without control characters, on one line, with single blanks.

    >>> cleaned("one\\n\\x00 two ")
    'one two'
    """
    kept = "".join(mark for mark in " ".join(text.split()) if mark in FORMATTING or not _control(mark))
    return " ".join(kept.split())


def _control(mark: str) -> bool:
    """Control and format characters, among them those that turn the direction of what follows, and lone surrogates."""
    return unicodedata.category(mark) in ("Cc", "Cf", "Cs")
