"""What a program can see of a notebook's form: short, told by the card, stored with pictures and without traces of a run."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.catalog import Card

MAX_BYTES = 2 * 2**20
FIGURE, _PICTURES = "application/vnd.plotly.v1+json", ("image/png", "image/svg+xml")
_PROGRESS = re.compile(r"\d%\||\r(?!\n)|it/s\]")


@dataclass(frozen=True)
class Limits:
    """How long a notebook may be: cells, words between them, lines of a code cell, import lines at the top."""

    cells: int = 30
    words: int = 1200
    lines: int = 25
    imports: int = 15


@dataclass(frozen=True)
class Notebook:
    """A notebook's cells and metadata, and its size on the disk."""

    cells: list[dict[str, Any]]
    metadata: dict[str, Any]
    size: int

    def sources(self, kind: str) -> list[str]:
        """The texts of the cells of a kind: code or markdown."""
        return ["".join(cell["source"]) for cell in self.cells if cell["cell_type"] == kind]


def read(path: Path) -> Notebook:
    """Read a notebook; ValueError in one sentence where it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        notebook = Notebook(list(content["cells"]), dict(content["metadata"]), path.stat().st_size)
        notebook.sources("code")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path.name} cannot be read as a notebook ({type(error).__name__}: {error})") from error
    return notebook


def words(text: str) -> int:
    """Words of prose, equations left out.

    >>> words("The cost $C_{ij} + 1$ of a pair")
    5
    """
    return len(re.sub(r"\$\$.*?\$\$|\$[^$]*\$", "", text, flags=re.DOTALL).split())


def too_long(notebook: Notebook, limits: Limits) -> list[str]:
    """Where a notebook is longer than it may be, one sentence each."""
    code = notebook.sources("code")
    imports = [line for line in (code or [""])[0].splitlines() if re.match(r"(from|import) ", line)]
    measured = {
        "cells": (len(notebook.cells), limits.cells),
        "words": (sum(words(text) for text in notebook.sources("markdown")), limits.words),
        "lines in one code cell": (max((len(text.splitlines()) for text in code), default=0), limits.lines),
        "import lines": (len(imports), limits.imports),
    }
    return [f"the notebook has {n:,} {what}; at most {most:,}" for what, (n, most) in measured.items() if n > most]


def opening(notebook: Notebook, card: Card) -> list[str]:
    """Whether the first cell says its minutes and what its reader must know, as the card does."""
    if card.minutes and card.prerequisites and card.opening in next(iter(notebook.sources("markdown")), ""):
        return []
    return [f"the notebook's first cell does not say, as the card does: {card.opening}"]


def traces(notebook: Notebook) -> list[str]:
    """What is stored that should not be, and what is not stored that should, one sentence each."""
    found = []
    if notebook.size > MAX_BYTES:
        found.append(f"the notebook has {notebook.size / 2**20:.1f} MB; the limit is 2")
    if "widgets" in notebook.metadata:
        found.append("the notebook stores the state of widgets")
    figures = 0
    for number, cell in enumerate(notebook.cells):
        if "execution" in cell["metadata"]:
            found.append(f"cell {number} of the notebook stores execution times")
        for output in cell.get("outputs", ()):
            text, data = "".join(output.get("text", [])), output.get("data", {})
            if output["output_type"] == "error":
                found.append(f"cell {number} of the notebook stores an error")
            if output.get("name") == "stderr" or _PROGRESS.search(text):
                found.append(f"cell {number} of the notebook stores warnings or a progress bar")
            if FIGURE in data:
                figures += 1
                if not any(kind in data for kind in _PICTURES):
                    found.append(f"cell {number} of the notebook stores a figure without a picture beside it")
    return found + ([] if figures else ["the notebook stores no figure: fill the outputs (CONTRIBUTING)"])
