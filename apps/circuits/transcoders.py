"""Transcoders, live: circuits that are cut by clicking; years, coders, features, wiring, a case to solve, a blind rating."""

from __future__ import annotations

import ui
from circuits import case, circuit, features, pareto, rating, wiring, words, years

VIEWS = {
    "circuit": "Circuit",
    "years": "Years",
    "pareto": "Sparsity",
    "features": "Features",
    "wiring": "Wiring",
    "case": "Case",
    "rating": "Rating",
}
DRAWN = {
    "circuit": circuit.draw,
    "years": years.draw,
    "pareto": pareto.draw,
    "features": features.show,
    "wiring": wiring.show,
    "case": case.draw,
    "rating": rating.show,
}

room = ui.open_paper("transcoders", VIEWS)
DRAWN[room.experiment.key](room)
ui.close_paper(room, words.how)
