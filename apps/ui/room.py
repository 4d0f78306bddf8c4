"""A paper's page while it is drawn: its card, its experiments, the view on stage; and views that draw themselves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.catalog import Card
from lab.experiment import Experiment
from lab.views import View
from ui.address import in_address

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator


@dataclass(frozen=True)
class OwnView:
    """A view that draws itself; made by `@ui.own_view`.

    experiment  the key of its experiment
    choices     what it lets its reader choose beside the knobs: "way" for `ui.choose(..., key="wiring.way")`
    draw        draws it
    """

    experiment: str
    choices: Collection[str]
    draw: Callable[[Room], None]


def own_view(experiment: str, *, choices: Collection[str] = ()) -> Callable[[Callable[[Room], None]], OwnView]:
    """Declare a function draw(room) as a view that draws itself, and what it lets its reader choose beside the knobs.

    The choices are known from here even while another view is on stage, when a link that carries them is judged.
    """
    return lambda draw: OwnView(experiment, choices, draw)


@dataclass(frozen=True)
class Room:
    """A paper's page while it is drawn.

    view      what is on stage: the name on its tab and its pictures
    own       the views that draw themselves, by the key of their experiment
    views     all views, by the key of their experiment
    messages  where to say what a link got wrong
    """

    card: Card
    experiments: Mapping[str, Experiment]
    views: Mapping[str, View]
    view: View
    own: Mapping[str, OwnView]
    messages: DeltaGenerator

    @property
    def experiment(self) -> Experiment:
        """The experiment on stage."""
        return self.experiments[self.view.experiment]

    def knows(self, name: str) -> bool:
        """A name in the address is a knob or a choice of one of the room's views, on stage just now or not."""
        key, _, knob = name.partition(".")
        if key not in self.views:
            return False
        return knob in self.experiments[key].config.model_fields or knob in self._choices(key)

    def _choices(self, key: str) -> set[str]:
        """What there is to choose in a view beside the knobs, as the address calls it."""
        if key in self.own:
            return set(self.own[key].choices)
        view = self.views[key]
        return {"picture"} | {in_address(view.picture(name).choose) for name in view.pictures} - {""}
