"""Every live experiment at its small Config: the same answer twice, told of, stopped, stored; every picture of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from papers import EXPERIMENTS, READY, answer, answers, assert_equal, each_experiment, experiment, small, views

from lab import results, rooms
from lab.experiment import Stopped
from lab.plot import DARK, LIGHT, Theme
from lab.provenance import Record
from lab.views import View

LETTERS = 110  # of a title: two lines on a page at a desk
# Views with a longer title from before this rule, at their length today: these may only shrink.
LONGER = {("transcoders", "years"): 137, ("flexround", "rounding"): 114}
MAX_JSON = 2 * 2**20
PICTURES = [
    (card.slug, view.experiment)
    for card in READY
    for view in views(card.slug)
    if view.pictures and (card.slug, view.experiment) in EXPERIMENTS
]
each_view = pytest.mark.parametrize(("slug", "key"), PICTURES, ids=["-".join(pair) for pair in PICTURES])


def test_every_view_shows_an_experiment() -> None:
    assert all(view.experiment in rooms.experiments(card) for card in READY for view in views(card.slug))


@each_experiment
def test_it_gives_the_same_answer_twice(slug: str, key: str) -> None:
    assert_equal(*answers(slug, key))


@each_experiment
def test_it_is_stored_and_read_back(slug: str, key: str, tmp_path: Path) -> None:
    shown = experiment(slug, key)
    results.save(tmp_path / "kept", answer(slug, key), Record.now(shown, 0.0, opened={}))
    assert_equal(answer(slug, key), results.load(tmp_path / "kept", shown.result)[0])


@each_experiment
def test_it_tells_where_it_is_and_stops(slug: str, key: str) -> None:
    """A run says so before it has worked long; Stop ends it there. A live one need not tell anything."""
    shown, told = experiment(slug, key), list[float]()

    def stopping(fraction: float, note: str = "", partial: Any | None = None) -> None:
        assert 0 <= fraction <= 1 and isinstance(note, str) and (partial is None or isinstance(partial, shown.result))
        told.append(fraction)
        raise Stopped

    try:
        shown(*small(shown), progress=stopping)
    except Stopped:
        assert len(told) == 1
    else:
        assert not told, "it went on after Stop"
        assert shown.cost == "live", "a run that tells nothing cannot be stopped"


# --- figures -----------------------------------------------------------------------------------------------------


def drawn(view: View, result: Any, theme: Theme) -> Iterator[tuple[str, Any]]:
    """Every picture of a view, with the first and the last of what there is to choose, as on a page and presented."""
    for name in view.shown(result):
        options = view.options(name, result)
        for chosen in dict.fromkeys([*options[:1], *options[-1:]]) or [""]:
            yield name, view.draw(name, result, theme, chosen=chosen)
        if view.picture(name).presented:
            yield f"{name}, presented", view.draw(name, result, theme, presenting=True)


def words(text: str | None) -> str:
    """A title without its markup."""
    return re.sub(r"<[^>]*>", "", text or "").strip()


def untitled(fig: Any) -> list[str]:
    """The axes with tick labels of which nobody says what they measure."""
    shown = set()
    for trace in fig.data:
        if hasattr(trace, "xaxis"):
            shown |= {f"xaxis{(trace.xaxis or 'x')[1:]}", f"yaxis{(trace.yaxis or 'y')[1:]}"}
    said = {words(note.text) for note in fig.layout.annotations}
    found = []
    for name in sorted(shown):
        axis = fig.layout[name]
        hidden = (
            axis.visible is False or axis.showticklabels is False or axis.matches is not None or bool(axis.ticktext)
        )
        if not hidden and not words(axis.title.text) and not said:
            found.append(name)
    return found


def numbers(trace: Any) -> Iterator[tuple[str, np.ndarray]]:
    for name in ("x", "y", "z", "values"):
        values = getattr(trace, name, None)
        if values is not None and np.asarray(values).dtype.kind in "iuf":
            yield name, np.asarray(values, float)


@each_view
def test_every_picture(slug: str, key: str) -> None:
    """A short title that says what one sees, axes that say what they measure, finite numbers, small, in both themes."""
    view, result = next(view for view in views(slug) if view.experiment == key), answer(slug, key)
    light, dark = (list(drawn(view, result, theme)) for theme in (LIGHT, DARK))
    assert light and [name for name, _ in light] == [name for name, _ in dark]
    for (name, fig), (_, other) in zip(light, dark, strict=True):
        title = words(fig.layout.title.text)
        assert 15 < len(title) <= LONGER.get((slug, key), LETTERS), f"{name}: {len(title)} letters: {title}"
        assert not untitled(fig), f"{name}: {untitled(fig)}"
        assert fig.data, name
        for trace in fig.data:
            for axis, values in numbers(trace):
                assert not np.isinf(values).any() and (values.size == 0 or not np.isnan(values).all()), (name, axis)
        assert len(fig.to_json()) <= MAX_JSON, name
        assert words(other.layout.title.text) == title and len(other.data) == len(fig.data), name
        assert (fig.layout.font.color, other.layout.font.color) == (LIGHT.ink, DARK.ink), name
