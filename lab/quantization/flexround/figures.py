"""The room's pictures: pure functions from a Result to a plotly figure."""

from __future__ import annotations

from lab import ledger
from lab.quantization.figures import LAYER, MATRIX, SEARCH, model_view
from lab.quantization.flexround.digits_figures import digits_accuracy, digits_error, digits_s4, digits_seeds
from lab.quantization.flexround.rounding_figures import (
    rounding_codes,
    rounding_deciles,
    rounding_flow,
    rounding_lens,
    rounding_race,
    rounding_scatter,
)
from lab.views import Picture, View

__all__ = [
    "VIEWS",
    "digits_accuracy",
    "digits_error",
    "digits_s4",
    "digits_seeds",
    "rounding_codes",
    "rounding_deciles",
    "rounding_flow",
    "rounding_lens",
    "rounding_race",
    "rounding_scatter",
]


def _seeds() -> list[dict[str, float]]:
    """The ledger's seeds of the network for digits; no knob moves them."""
    return ledger.rows("flexround", "digits")


VIEWS = (
    LAYER,
    View(
        "rounding",
        "Rounding",
        {
            "One weight": rounding_lens,
            "All weights": rounding_flow,
            "Who moves": rounding_scatter,
            "By size": rounding_deciles,
            "Points": rounding_codes,
            "Race": rounding_race,
        },
    ),
    model_view("FlexRound"),
    View(
        "digits",
        "Digits",
        {
            "Accuracy": digits_accuracy,
            "Error": digits_error,
            "Channel factors": digits_s4,
            "Over seeds": Picture(digits_seeds, rows=_seeds),
        },
    ),
    SEARCH,
    MATRIX,
)
