"""What the pages of the three quantization papers share: the pictures of a layer, a model and a search, and a file to try."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st
import ui
from ui import knobs

from lab import ledger

Pictures = Mapping[str, Callable[[Any, Any], Any]] | Callable[[Any], Mapping[str, Callable[[Any, Any], Any]]]
PAPERS = ("pb-llm", "ptq1-61", "flexround")
STUDIES = {"MiniLM": ("minilm", "cosine"), "stdlib-gpt": ("gpt", "perplexity")}  # by a result's subject: study, metric
TOKENS = 1024  # of the sample's inputs
UNTESTED = """A model of your own, from a folder or the hub, is quantized by the same code, block by block. Each family is
tested with small random weights; **untested on released weights**."""


def layer(room: ui.paper.Room) -> Pictures:
    """What there is to see of one layer, a model's or one that was brought."""
    figures = room.figures
    return {
        "Loss and bits": figures.layer_peers,
        "The weights": figures.layer_maps,
        "The bill": figures.layer_bill,
        "Channels": figures.layer_columns,
        "Histogram": figures.layer_histogram,
    }


def model(room: ui.paper.Room) -> Pictures:
    """What there is to see of a whole model: one run, and the ledger's seeds of all three papers, as no knob moves them."""
    figures = room.figures

    def pictures(result: Any) -> Mapping[str, Callable[[Any, Any], Any]]:
        study, metric = STUDIES.get(result.subject, ("", ""))
        rows = replicates(study, metric) if study else {}

        def over(draw: Callable[..., Any]) -> Callable[[Any, Any], Any]:
            return lambda _, theme: draw(rows, room.card.short, metric, theme=theme)

        return {
            "Quality and bits": figures.model_scatter,
            "By name": figures.model_metrics,
            "Block by block": figures.model_blocks,
        } | ({"Over seeds": over(figures.over_seeds), "Seeds by name": over(figures.seeds_by_name)} if rows else {})

    return pictures


def replicates(study: str, metric: str) -> dict[str, list[dict[str, float]]]:
    """The shipped rows of a study of all three papers, those that have the metric; a paper without a record is left out."""
    found = {}
    for slug in PAPERS:
        measured = ledger.shipped(slug).get(study)
        if measured is not None and any(name.endswith(f"_{metric}") for name in measured.rows[0]["values"]):
            found[slug] = [row["values"] for row in measured.rows]
    return found


def search(room: ui.paper.Room) -> Pictures:
    """What there is to see of one query."""
    figures = room.figures

    def found(result: Any, theme: Any) -> Any:
        for_a_class = {"letters": 46, "lines": 2, "size": 15} if ui.presenting() else {}
        return figures.search_top(result, theme, **for_a_class)

    return {"Found": found, "All documents": figures.search_scatter}


def sample() -> bytes:
    """One layer of MiniLM, and what calibration brings into it."""
    import torch
    from safetensors.torch import save

    from lab.quantization.one_layer import NAME, layer_inputs

    work = layer_inputs("minilm", 2, "attention.self.query")
    inputs = torch.cat([call.hidden.flatten(0, -2) for call in work.calls_full])[:TOKENS]
    return save({"query": work.weight(NAME).contiguous(), "inputs": inputs.half().contiguous()})


SAMPLE = ui.Sample(
    "minilm-query.safetensors",
    sample,
    "the query weights of MiniLM's third block, and 1,024 tokens that go into them",
    mime="application/octet-stream",
)


def stage(room: ui.paper.Room, own: Mapping[str, Callable[[], Pictures]]) -> None:
    """Draw the experiment that was chosen; ``own`` gives the pictures of a room's own experiments, by key."""
    shared = {"layer": layer, "matrix": layer, "model": model, "search": search}
    key = room.experiment.key
    pictures = shared[key](room) if key in shared else own[key]()
    ui.stage(room.experiment, pictures, sample=SAMPLE)
    if key == "model":
        from lab.quantization.model_experiment import STEPS

        st.caption(
            f"The other methods that learn take {STEPS} steps a block here, at rates tuned for it; the ledger compares "
            "all at equal steps."
        )
    if any(control.private for control in knobs.visible(room.experiment.config)):
        st.caption(UNTESTED)


def how(equations: str, differences: str) -> Callable[[], None]:
    """What stands under "How it works": the equations, and where paper and code differ."""

    def write() -> None:
        st.markdown(equations)
        st.markdown("**Where paper and code differ**")
        st.markdown(differences)

    return write
