"""Transcoders, live: circuits that are cut by clicking; years, coders, features, wiring, a case to solve, a blind rating."""

from __future__ import annotations

import ui
from circuits import case, circuit, features, rating, wiring

room = ui.open_paper("transcoders", circuit.draw, features.draw, wiring.draw, case.draw, rating.draw)
ui.stage(room)
ui.close_paper(room)
