"""What a program can see of a notebook's form: short, told by the card, stored with pictures and without traces of a run.

Whether it runs is another test's business: each cell is one, under nbval.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import catalog, paths
from lab.catalog import Card


@dataclass(frozen=True)
class Limits:
    """How long a notebook may be: cells, words between them, lines of a code cell, import lines at the top."""

    cells: int = 30
    words: int = 1200
    lines: int = 25
    imports: int = 15


# Older than the limits: each may become shorter, none longer. A new notebook has no line here.
OLDER = {
    "sp2ot": Limits(cells=44, words=1369, lines=40),
    "pb-llm": Limits(cells=58, words=1961, lines=37),
    "ptq1-61": Limits(cells=61, words=1922, lines=47, imports=18),
    "flexround": Limits(cells=51, words=1624, lines=37, imports=21),
    "transcoders": Limits(cells=81, words=2442, lines=56, imports=28),
    "transcoders-own-model": Limits(cells=32, words=1200, lines=41, imports=19),
}
MAX_BYTES = 2 * 2**20
FIGURE, PICTURE = "application/vnd.plotly.v1+json", ("image/png", "image/svg+xml")
PROGRESS = re.compile(r"\d%\||\r(?!\n)|it/s\]")
NOTEBOOKS = sorted(paths.shared("notebooks").rglob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
READY = catalog.ready()


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    """A notebook's cells of a kind: code or markdown."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def words(text: str) -> int:
    """Words of prose, equations left out."""
    return len(re.sub(r"\$\$.*?\$\$|\$[^$]*\$", "", text, flags=re.DOTALL).split())


@each_notebook
def test_it_is_short(path: Path) -> None:
    limits, code, prose = OLDER.get(path.stem, Limits()), cells(path, "code"), cells(path, "markdown")
    assert len(code) + len(prose) <= limits.cells
    assert sum(words(source(cell)) for cell in prose) <= limits.words
    for cell in code:
        assert len(source(cell).splitlines()) <= limits.lines, source(cell)
    imports = [line for line in source(code[0]).splitlines() if re.match(r"(from|import) ", line)]
    assert len(imports) <= limits.imports


def test_allowances_are_for_notebooks_that_need_them() -> None:
    """Who has become as short as all must be loses the line."""
    assert set(OLDER) <= {path.stem for path in NOTEBOOKS}
    for path in NOTEBOOKS:
        longest = max(len(source(cell).splitlines()) for cell in cells(path, "code"))
        assert path.stem not in OLDER or longest > Limits.lines or len(cells(path, "code")) > Limits.cells


@pytest.mark.parametrize("card", READY, ids=[card.slug for card in READY])
def test_it_opens_with_minutes_and_what_one_must_know(card: Card) -> None:
    opening = source(cells(card.notebook, "markdown")[0])
    assert card.minutes and card.prerequisites and card.opening in opening


@each_notebook
def test_it_is_stored_with_pictures_and_without_traces_of_a_run(path: Path) -> None:
    assert path.stat().st_size <= MAX_BYTES
    metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
    assert "widgets" not in metadata, "widget state is stored; see CONTRIBUTING on how to fill the outputs"
    drawn = 0
    for cell in cells(path, "code"):
        assert "execution" not in cell["metadata"], "execution times are stored"
        for output in cell["outputs"]:
            assert output["output_type"] != "error", output
            said = "".join(output.get("text", []))
            assert output.get("name") != "stderr" and not PROGRESS.search(said), said
            data = output.get("data", {})
            if FIGURE in data:
                drawn += 1
                assert any(kind in data for kind in PICTURE), "a figure without a picture beside it"
    assert drawn, "no figure is stored: fill the outputs (CONTRIBUTING)"
