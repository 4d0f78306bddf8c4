"""The room's pictures, in files by view: pure functions from a Result to a figure, with the finding as title."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from lab import ledger
from lab.circuits.transcoders.views.circuit.answer_figures import cut_title, live_and_frozen, next_tokens, waterfall
from lab.circuits.transcoders.views.circuit.figures import circuit_graph, graph_title
from lab.circuits.transcoders.views.features.figures import all_units, headline, histogram, logits
from lab.circuits.transcoders.views.pareto.figures import Measure, dead_share, loss_curve, pareto_scatter
from lab.circuits.transcoders.views.rating.figures import answers
from lab.circuits.transcoders.views.wiring.figures import earlier_features, ov_map, tokens_read, weights_and_input
from lab.circuits.transcoders.views.years.figures import few_units, logit_boosts, without_mlp, year_plot
from lab.plot import LIGHT, Theme
from lab.views import View

__all__ = [
    "VIEWS",
    "all_units",
    "answers",
    "circuit_graph",
    "cut_title",
    "dead_share",
    "earlier_features",
    "few_units",
    "graph_title",
    "headline",
    "histogram",
    "live_and_frozen",
    "logit_boosts",
    "logits",
    "loss_curve",
    "next_tokens",
    "ov_map",
    "pareto_scatter",
    "tokens_read",
    "waterfall",
    "weights_and_input",
    "without_mlp",
    "year_plot",
]

STUDIES = {"stdlib-gpt": "pareto", "spans-1l": "spans"}  # by a result's model: the study that swept its MLP


def beside_the_ledger(result: Any, theme: Theme = LIGHT, *, measure: Measure = "added") -> go.Figure:
    """The coder in training beside the lab's own and the seeds of the ledger that swept the same MLP."""
    return pareto_scatter(result, theme, measure=measure, seeds=ledger.rows("transcoders", STUDIES[result.model]))


def _by_divergence(result: Any, theme: Theme = LIGHT) -> go.Figure:
    return beside_the_ledger(result, theme, measure="kl")


VIEWS = (  # those without pictures here draw themselves, see the page
    View("circuit", "Circuit"),
    View(
        "years",
        "Years",
        {
            "The years": year_plot,
            "Few units": few_units,
            "What units write": logit_boosts,
            "Without the MLP": without_mlp,
        },
    ),
    View(
        "pareto",
        "Sparsity",
        {
            "Sparse and faithful": beside_the_ledger,
            "By divergence": _by_divergence,
            "Loss": loss_curve,
            "Silent features": dead_share,
        },
    ),
    View("features", "Features"),
    View("wiring", "Wiring"),
    View("case", "Case"),
    View("rating", "Rating"),
)
