"""The room's pictures, in files by view: pure functions from a Result to a figure, with the finding as title."""

from lab.circuits.transcoders.views.circuit.answer_figures import cut_title, live_and_frozen, next_tokens, waterfall
from lab.circuits.transcoders.views.circuit.figures import circuit_graph, graph_title
from lab.circuits.transcoders.views.features.figures import all_units, headline, histogram, logits
from lab.circuits.transcoders.views.pareto.figures import dead_share, loss_curve, pareto_scatter
from lab.circuits.transcoders.views.rating.figures import answers
from lab.circuits.transcoders.views.wiring.figures import earlier_features, ov_map, tokens_read, weights_and_input
from lab.circuits.transcoders.views.years.figures import few_units, logit_boosts, without_mlp, year_plot

__all__ = [
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
