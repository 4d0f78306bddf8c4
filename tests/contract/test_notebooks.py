"""What a program can see of a notebook's form: short, told by the card, stored with pictures and without traces of a run.

Whether it runs is another test's business: each cell is one, under nbval.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import catalog, paths
from lab.catalog import Card
from lab.commands import notebooks
from lab.commands.notebooks import Limits

# Older than the limits: each may become shorter, none longer. A new notebook has no line here.
OLDER = {
    "sp2ot": Limits(cells=44, words=1369, lines=40),
    "pb-llm": Limits(cells=58, words=1961, lines=37),
    "ptq1-61": Limits(cells=61, words=1922, lines=47, imports=18),
    "flexround": Limits(cells=51, words=1624, lines=37, imports=21),
    "transcoders": Limits(cells=81, words=2442, lines=56, imports=28),
    "transcoders-own-model": Limits(cells=32, words=1200, lines=41, imports=19),
}
NOTEBOOKS = sorted(paths.shared("notebooks").rglob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
READY = catalog.ready()


@each_notebook
def test_it_is_short(path: Path) -> None:
    assert notebooks.too_long(notebooks.read(path), OLDER.get(path.stem, Limits())) == []


def test_allowances_are_for_notebooks_that_need_them() -> None:
    """Who has become as short as all must be loses the line."""
    assert {path.stem for path in NOTEBOOKS if notebooks.too_long(notebooks.read(path), Limits())} == set(OLDER)


@pytest.mark.parametrize("card", READY, ids=[card.slug for card in READY])
def test_it_opens_with_minutes_and_what_one_must_know(card: Card) -> None:
    assert notebooks.opening(notebooks.read(card.notebook), card) == []


@each_notebook
def test_it_is_stored_with_pictures_and_without_traces_of_a_run(path: Path) -> None:
    assert notebooks.traces(notebooks.read(path)) == []


def test_a_bad_notebook_is_told_all_that_is_wrong() -> None:
    data = {notebooks.FIGURE: {}}
    outputs = [
        {"output_type": "error"},
        {"output_type": "stream", "name": "stderr", "text": ["careful"]},
        {"output_type": "stream", "name": "stdout", "text": [" 50%|#####"]},
        {"output_type": "display_data", "data": data},
    ]
    code = {"cell_type": "code", "source": "import this\n" * 26, "metadata": {"execution": {}}, "outputs": outputs}
    prose = {"cell_type": "markdown", "source": ["word " * 1201 + "$x$"], "metadata": {}}
    bad = notebooks.Notebook([prose, code] + 29 * [prose], {"widgets": {}}, notebooks.MAX_BYTES + 1)
    long = notebooks.too_long(bad, Limits())
    assert [sentence.partition(";")[0].split("has ")[1] for sentence in long] == [
        "31 cells",
        "36,030 words",
        "26 lines in one code cell",
        "26 import lines",
    ]
    said = " ".join(notebooks.traces(bad))
    for what in ("MB", "state of widgets", "execution times", "an error", "progress bar", "without a picture"):
        assert what in said
    assert "no figure" in notebooks.traces(notebooks.Notebook([prose], {}, 1))[0]
