"""Text that is the same on every machine: Python's standard library, frozen, with its docstrings as query / rest pairs.

The library's source changes from interpreter to interpreter; the files in `data/corpora` do not. They are made by
`python -m lab.datasets.corpus` and carry the licence of the Python Software Foundation.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import lzma
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import paths
from lab.cache import cached
from lab.provenance import note_opened

NAMES = ("stdlib-docstrings", "stdlib-source")
COMMAND = "python -m lab.datasets.corpus"
MAX_BYTES = 64 * 2**20  # no corpus of ours is larger, unpacked
SHORTEST_QUERY, SHORTEST_REST = 20, 40  # characters
# Tests, vendored packages, other languages' data and what differs from platform to platform.
LEFT_OUT = frozenset(
    {
        "test",
        "tests",
        "idle_test",
        "site-packages",
        "idlelib",
        "lib2to3",
        "turtledemo",
        "ensurepip",
        "pydoc_data",
        "__pycache__",
    }
)
_FIRST_SENTENCE = re.compile(r"(.+?[.!?])\s+(.*)", re.DOTALL)


class CorpusError(ValueError):
    """A frozen file is missing or damaged; the text names it and the command that remakes it."""


@dataclass(frozen=True)
class Docstring:
    """One docstring: where it stands (`json/decoder.py:JSONDecoder`), its first sentence, and the rest; single spaces."""

    place: str
    query: str
    rest: str


def docstrings() -> tuple[Docstring, ...]:
    """Docstrings of the standard library with a first sentence (the query) and a rest (the document that answers it).

    Raises CorpusError for a missing or damaged file.

    >>> docstrings()[0].query
    'Record of phased-in incompatible language changes.'
    """
    return tuple(Docstring(**json.loads(line)) for line in _text("stdlib-docstrings").split("\n"))


def source() -> dict[str, str]:
    """The standard library's modules: path below the library -> source text. Raises CorpusError as `docstrings`.

    >>> "class JSONDecoder" in source()["json/decoder.py"]
    True
    """
    return dict(json.loads(line) for line in _text("stdlib-source").split("\n"))


def cards() -> dict[str, dict[str, Any]]:
    """The card of each corpus: interpreter, counts, sha256 of the packed file, command that made it.

    Raises CorpusError when they cannot be read.
    """
    path = _folder() / "cards.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise CorpusError(
            f"the corpora's cards {path} cannot be read ({error}); remake them with `{COMMAND}`"
        ) from error


def _folder() -> Path:
    return paths.shared("data") / "corpora"


@cached(maxsize=len(NAMES))
def _text(name: str) -> str:
    """The unpacked text of a corpus, its checksum compared; what is opened is noted for the record."""
    path, repair = _folder() / f"{name}.jsonl.xz", f"remake it with `{COMMAND}`"
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"the corpus {path} cannot be read ({error.strerror}); {repair}") from error
    checksum = hashlib.sha256(packed).hexdigest()
    if checksum != cards()[name]["sha256"]:
        raise CorpusError(f"the corpus {path} has another checksum than its card; {repair}")
    note_opened(f"corpus {name}", checksum[:16])
    unpacker = lzma.LZMADecompressor()
    text = unpacker.decompress(packed, max_length=MAX_BYTES)
    if not unpacker.eof:
        raise CorpusError(f"the corpus {path} unpacks to more than {MAX_BYTES // 2**20} MB; {repair}")
    return text.decode("utf-8")


def modules(library: Path) -> Iterator[tuple[str, str]]:
    """(path, text) of the modules below ``library`` that belong to the corpus, by path; unparsable ones are left out."""
    for path in sorted(library.rglob("*.py")):
        place = path.relative_to(library)
        if (
            LEFT_OUT & set(place.parts)
            or place.parts[0].startswith("config-")
            or place.stem.startswith("_sysconfigdata")
        ):
            continue
        try:
            text = path.read_text(encoding="utf-8")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # old escapes in strings
                ast.parse(text)
        except (UnicodeDecodeError, SyntaxError, ValueError):
            continue
        yield place.as_posix(), text


def pairs(place: str, text: str) -> Iterator[Docstring]:
    """The docstrings of a module whose first sentence and rest are both long enough.

    >>> [pair.query for pair in pairs("m.py", '"Adds two whole numbers. Both may be negative, and neither is changed by it."')]
    ['Adds two whole numbers.']
    """
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        found = _FIRST_SENTENCE.match(ast.get_docstring(node) or "")
        if found is None:
            continue
        query, rest = (" ".join(part.split()) for part in found.groups())
        if len(query) >= SHORTEST_QUERY and len(rest) >= SHORTEST_REST:
            name = getattr(node, "name", "")
            yield Docstring(f"{place}:{name}" if name else place, query, rest)


def make(folder: Path, library: Path) -> dict[str, dict[str, Any]]:
    """Freeze the library below ``library`` into ``folder``: two packed files, their cards, the licence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        texts = list(modules(library))
        found = {(pair.query, pair.rest): pair for place, text in texts for pair in pairs(place, text)}
    lines = {
        "stdlib-docstrings": [json.dumps(vars(pair), ensure_ascii=False) for pair in found.values()],
        "stdlib-source": [json.dumps(item, ensure_ascii=False) for item in texts],
    }
    made = {}
    for name in NAMES:
        packed = lzma.compress("\n".join(lines[name]).encode("utf-8"), preset=9)
        made[name] = {
            "python": platform.python_version(),
            "entries": len(lines[name]),
            "characters": sum(map(len, lines[name])),
            "bytes": len(packed),
            "sha256": hashlib.sha256(packed).hexdigest(),
            "licence": "PSF-2.0 (LICENSE.txt)",
            "command": COMMAND,
        }
        paths.write_atomic(folder / f"{name}.jsonl.xz", packed)
    paths.write_atomic(folder / "LICENSE.txt", (library / "LICENSE.txt").read_bytes())
    paths.write_atomic(folder / "cards.json", json.dumps(made, indent=1) + "\n")
    return made


def main() -> None:
    """The command line: freezes the running interpreter's library into the shipped folder, or `--out`."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--out", type=Path, default=paths.shared("data") / "corpora")
    print(json.dumps(make(parser.parse_args().out, Path(sysconfig.get_path("stdlib"))), indent=1))


if __name__ == "__main__":
    main()
