"""The views that the three quantization papers share: of a layer, a matrix, a model and a search."""

from __future__ import annotations

import plotly.graph_objects as go

from lab import ledger
from lab.plot import LIGHT, Theme
from lab.quantization.layer_figures import layer_bill, layer_columns, layer_histogram, layer_maps, layer_peers
from lab.quantization.model_experiment import ModelResult
from lab.quantization.model_figures import model_blocks, model_metrics, model_scatter
from lab.quantization.search_figures import search_scatter, search_top
from lab.quantization.seeds_figures import over_seeds, seeds_by_name
from lab.views import Picture, View

PAPERS = ("pb-llm", "ptq1-61", "flexround")
STUDIES = {"MiniLM": ("minilm", "cosine"), "stdlib-gpt": ("gpt", "perplexity")}  # by a result's subject: study, metric


def replicates(study: str, metric: str) -> dict[str, list[dict[str, float]]]:
    """The shipped rows of a study of all three papers, those that have the metric; a paper without a record is left out."""
    rows = {slug: ledger.rows(slug, study) for slug in PAPERS}
    return {slug: some for slug, some in rows.items() if some and any(name.endswith(f"_{metric}") for name in some[0])}


def model_view(paper: str) -> View:
    """A whole model: one run, and the ledger's seeds of all three papers, as no knob moves them; `paper` is the accent."""

    def has_seeds(result: ModelResult) -> bool:
        return result.subject in STUDIES and bool(replicates(*STUDIES[result.subject]))

    def by_bits(result: ModelResult, theme: Theme = LIGHT) -> go.Figure:
        study, metric = STUDIES[result.subject]
        return over_seeds(replicates(study, metric), paper, metric, theme=theme)

    def by_name(result: ModelResult, theme: Theme = LIGHT) -> go.Figure:
        study, metric = STUDIES[result.subject]
        return seeds_by_name(replicates(study, metric), paper, metric, theme=theme)

    return View(
        "model",
        "Model",
        {
            "Quality and bits": model_scatter,
            "By name": model_metrics,
            "Block by block": model_blocks,
            "Over seeds": Picture(by_bits, when=has_seeds),
            "Seeds by name": Picture(by_name, when=has_seeds),
        },
    )


_LAYER_PICTURES = {
    "Loss and bits": layer_peers,
    "The weights": layer_maps,
    "The bill": layer_bill,
    "Channels": layer_columns,
    "Histogram": layer_histogram,
}
LAYER = View("layer", "Layer", _LAYER_PICTURES)
MATRIX = View("matrix", "Matrix", _LAYER_PICTURES)
SEARCH = View(
    "search",
    "Search",
    {
        "Found": Picture(search_top, presented={"letters": 46, "lines": 2, "size": 15}),
        "All documents": search_scatter,
    },
)
