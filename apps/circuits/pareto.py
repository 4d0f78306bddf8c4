"""The view of sparsity against faithfulness: a coder in training, beside the lab's own and the seeds of the ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ui
from ui.paper import Room

from lab import ledger
from lab.circuits.transcoders.views.pareto import figures

STUDIES = {"stdlib-gpt": "pareto", "spans-1l": "spans"}  # by a result's model: the study that swept its MLP


def draw(room: Room) -> None:
    """Draw the view."""

    def scatter(measure: figures.Measure) -> Callable[[Any, Any], Any]:
        def drawn(result: Any, theme: Any) -> Any:
            seeds = replicates(room.card.slug, result.model)
            return figures.pareto_scatter(result, theme, measure=measure, seeds=seeds)

        return drawn

    pictures = {
        "Sparse and faithful": scatter("added"),
        "By divergence": scatter("kl"),
        "Loss": figures.loss_curve,
        "Silent features": figures.dead_share,
    }
    ui.stage(room.experiment, pictures)


def replicates(slug: str, model: str) -> Sequence[dict[str, float]]:
    """The shipped rows of the study of this model; none where it is not recorded."""
    measured = ledger.shipped(slug).get(STUDIES[model])
    return [] if measured is None else [dict(row["values"]) for row in measured.rows]
