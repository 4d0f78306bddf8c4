"""Transcoders, live: the circuit behind a prediction, cut by clicking; years, coders, features, wiring, a case to solve."""

from __future__ import annotations

import ui
from circuits import case, circuit, features, pareto, wiring, words, years

VIEWS = {
    "circuit": "Circuit", "years": "Years", "pareto": "Sparse or faithful", "features": "Features", "wiring": "Wiring",
    "case": "A case",
}  # fmt: skip
DRAWN = {
    "circuit": circuit.draw, "years": years.draw, "pareto": pareto.draw, "features": features.show, "wiring": wiring.show,
    "case": case.draw,
}  # fmt: skip

room = ui.open_paper("transcoders", VIEWS)
DRAWN[room.experiment.key](room)
ui.close_paper(room, words.how)
