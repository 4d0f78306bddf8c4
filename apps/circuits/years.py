"""The view of the greater-than study: one prompt of which the true answer is known, and how few units keep it."""

from __future__ import annotations

import ui
from ui.paper import Room

from lab.circuits.transcoders.views.years import figures

PICTURES = {
    "The years": figures.year_plot,
    "Few units": figures.few_units,
    "What units write": figures.logit_boosts,
    "Without the MLP": figures.without_mlp,
}


def draw(room: Room) -> None:
    """Draw the view."""
    ui.stage(room.experiment, PICTURES)
