"""What a page shows of a paper: its views, one per experiment, each with its pictures; a room's `figures.py` ends in VIEWS.

Pages draw from this table, contract tests walk over it. Figure functions are pure: f(result, theme=...) -> Figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from lab.plot import Theme


def _always(result: Any) -> bool:
    return True


@dataclass(frozen=True)
class Picture:
    """One picture of a view, where a plain figure function does not say all.

    draw       f(result, theme=...); with `options` f(result, option, theme=...); with `rows` f(rows, theme=...)
    choose     what the reader chooses among `options`: "Method"
    options    names to choose from, by result: f(result) -> names; the first is the default
    rows       () -> what is drawn in place of the result (the ledger's seeds, which no knob moves); no rows, no picture
    when       whether a result has this picture
    presented  further keywords of `draw` while a page is presented
    """

    draw: Callable[..., Figure]
    choose: str = ""
    options: Callable[[Any], Sequence[str]] | None = None
    rows: Callable[[], Any] | None = None
    when: Callable[[Any], bool] = _always
    presented: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """One view of a page: the experiment it shows, the name on its tab, its pictures by name in the order shown.

    >>> view = View("plan", "One plan", {"Map": lambda result, theme: f"map of {result}"})
    >>> view.shown("blobs"), view.draw("Map", "blobs", theme=None)
    (['Map'], 'map of blobs')
    """

    experiment: str
    tab: str
    pictures: Mapping[str, Picture | Callable[..., Figure]] = field(default_factory=dict)

    def picture(self, name: str) -> Picture:
        """The picture of this name; KeyError when there is none."""
        entry = self.pictures[name]
        return entry if isinstance(entry, Picture) else Picture(entry)

    def shown(self, result: Any) -> list[str]:
        """The names of the pictures that a result has."""
        pictures = ((name, self.picture(name)) for name in self.pictures)
        return [name for name, each in pictures if each.when(result) and (each.rows is None or each.rows())]

    def options(self, name: str, result: Any) -> list[str]:
        """What there is to choose in a picture; empty where there is nothing."""
        options = self.picture(name).options
        return list(options(result)) if options else []

    def draw(self, name: str, result: Any, theme: Theme, *, chosen: str = "", presenting: bool = False) -> Figure:
        """Draw a picture of a result; `chosen` is one of its options, the first if left out."""
        picture = self.picture(name)
        options = self.options(name, result)
        subject = picture.rows() if picture.rows else result
        more = (chosen or options[0],) if options else ()
        return picture.draw(subject, *more, theme=theme, **(picture.presented if presenting else {}))
